"""The scorers against tables of cases, the intervals against known values, and both on the real golds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from growth import MOST_TIMES_THE_WORK, times_the_work

from toasterft.scoring import (
    SCORERS,
    Scored,
    contains,
    digits_for_words,
    relaxed,
    robust,
    share,
    summarise,
    wilson,
)

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TOASTERFT_SHARED", ROOT / ".." / "shared"))
ITEMS = SHARED / "data" / "chartqa" / "items.jsonl"

# Each row: prediction, gold, right?
RELAXED = [
    ("12", "12", True),
    ("12.6", "12", True),
    ("12.61", "12", False),
    ("11.4", "12", True),
    ("2017", "2010", True),
    ("12%", "0.12", True),
    ("12%", "12%", True),
    ("12%", "12", False),
    ("12", "12%", False),
    ("1,200", "1200", False),
    ("$5", "5", False),
    ("0.0", "0", False),
    ("0", "0", True),
    ("-5", "-5.1", True),
    ("-5", "5", False),
    ("[1, 2]", "[1,2]", False),
    ("[1, 2]", "[1, 2]", True),
    ("yes.", "Yes", False),
    ("YES", "yes", True),
    ("12.", "12", True),  # float() reads it
    (" 12\n", "12", True),  # float() strips
    ("twelve", "12", False),
    ("The answer is 12", "12", False),
    ("", "12", False),
    ("nan", "nan", False),  # to the letter: not-a-number is near nothing
]

CONTAINS = [
    ("The answer is twelve.", "12", True),
    ("twenty-five people", "25", True),
    ("one hundred and five", "105", True),
    ("five", "Five", True),
    ("1,200", "1200", True),
    ("$5", "5", True),
    ("It is YES!", "yes", True),
    ("16.9", "1", False),
    ("16.9", "1.69", False),
    ("−5", "5", False),
    ("5", "-5", False),
    ("It is -5.", "-5", True),
    ("about 16.9%", "16.9", True),
    ("Female", "male", True),
    ("12 or 13", "13", True),
    ("12", "12.0", False),
    ("true", "yes", False),
    ("0.5", "1/2", False),
    ("11", "12", False),
    ("", "12", False),
]

NUMBER_WORDS = [
    ("zero", "0"),
    ("seven", "7"),
    ("seventeen", "17"),
    ("Seventy", "70"),
    ("seventy-seven", "77"),
    ("seventy seven", "77"),
    ("a hundred", "100"),
    ("nine hundred and ninety-nine", "999"),
    ("two hundred thousand", "200000"),
    ("one thousand two hundred and five", "1205"),
    ("three million four hundred thousand and six", "3400006"),
    ("two billion", "2000000000"),
    ("two million and three million", "2000000 and 3000000"),
    ("five and six", "5 and 6"),
    ("five six", "5 6"),
    ("twenty nineteen", "20 19"),
    ("someone often attends", "someone often attends"),
    ("a chart", "a chart"),
    ("5 million", "5 million"),
]

RIGHT = [
    # thousands, currency, decimals, signs
    ("1,200", "1200"),
    ("1200", "1,200"),
    ("1,234,567.8", "1234567.8"),
    ("4\u202f608\u202f848", "4608848"),
    ("$5", "5"),
    ("5", "$5"),
    ("$ 5.00", "5"),
    ("5 €", "5"),
    ("£5", "5"),
    ("US$5", "5"),
    ("5", "US$5"),
    ("5 dollars", "5"),
    ("$1.2 billion", "1200000000"),
    (".5", "0.5"),
    ("0.5", ".5"),
    ("12.", "12"),
    ("12.0", "12"),
    ("+12", "12"),
    ("-5", "-5"),
    ("\u22125", "-5"),
    ("-$5", "-5"),
    ("minus five", "-5"),
    ("1e3", "1000"),
    # tolerance
    ("105", "100"),
    ("95", "100"),
    ("1.05", "1"),
    ("-104", "-100"),
    ("0", "0"),
    ("0.0", "0"),
    ("0%", "0"),
    ("zero", "0"),
    # percentages
    ("12", "12%"),
    ("12%", "12%"),
    ("12 %", "12%"),
    ("12 percent", "12%"),
    ("twelve per cent", "12%"),
    ("0.12", "12%"),
    ("12%", "12"),
    ("12%", "0.12"),
    # fractions, ratios
    ("1/2", "0.5"),
    ("0.5", "1/2"),
    ("3/4", "0.75"),
    ("2:1", "2:1"),
    ("2 : 1", "2:1"),
    ("2 to 1", "2:1"),
    ("The ratio is 2:1.", "2:1"),
    # units, scales, words
    ("5 million", "5000000"),
    ("5000000", "5 million"),
    ("5 million", "5 million people"),
    ("5 million people", "5 million"),
    ("5.2M", "5200000"),
    ("5.2bn", "5200000000"),
    ("16.9 years", "16.9"),
    ("16.9", "16.9 years"),
    ("16.9 Years.", "16.9 years"),
    ("16.9kg", "16.9"),
    ("30°C", "30"),
    ("twelve", "12"),
    ("Twenty-five", "25"),
    ("12", "twelve"),
    ("one hundred and five", "105"),
    ("five million", "5000000"),
    ("a million", "1000000"),
    # years
    ("2017", "2017"),
    ("2,017", "2017"),
    ("In 2017.", "2017"),
    ("2100", "2150"),
    # lists
    ("[1, 2]", "[1,2]"),
    ("[2, 1]", "[1, 2]"),
    ("1, 2", "[1, 2]"),
    ("1 and 2", "[1, 2]"),
    ("2,1", "1 and 2"),
    ("1 & 2", "1, 2"),
    ("one and two", "[1, 2]"),
    ("The answers are 1 and 2.", "[1, 2]"),
    ("[200,100]", "[100, 200]"),
    (".5 and 1.", "[1, 0.5]"),
    ("1,200 and 1,300", "[1200, 1300]"),
    ("[1,200, 1,300]", "[1200, 1300]"),
    ("104, 109", "[100, 104]"),  # 104 fits both; only one pairing works
    ("Romney, Obama", "[Obama, Romney]"),
    ("Romney and Obama", "[Obama, Romney]"),
    ("['Obama', 'Romney']", "[Obama, Romney]"),
    ("red, green, and blue", "[Blue, Green, Red]"),
    ("Trinidad and Tobago, Cuba", "[Cuba, Trinidad and Tobago]"),
    ("[12]", "12"),
    # text
    ("yes", "Yes"),
    ("True", "Yes"),
    ("Correct.", "yes"),
    ("false", "No"),
    ("No.", "No"),
    ('"Blue"', "Blue"),
    ("the  blue", "Blue"),
    ("**Blue**", "blue"),
    ("US", "U.S."),
    ("Democratic form of gov’t", "Democratic form of gov't"),
    ("18–29", "18-29"),
    ("May 2020.", "May 2020"),
    ("covid19", "#covid19"),
    ("Generally O.K.", "Generally OK"),
    ("São Paulo", "são paulo"),
    ("Two parties", "2 parties"),
    ("A", "A"),
    ("Florida Power and Light Co.", "Florida Power & Light Co"),
    # sentences
    ("The answer is 12.", "12"),
    ("China has 12 people.", "12"),
    ("In 2019 Asia had 5. So the answer is 12.", "12"),
    ("**Answer:** 12", "12"),
    ("The answer is Blue.", "Blue"),
    ("Answer: the blue", "Blue"),
    ("The answer is twelve.", "12"),
    ("The answer is true.", "Yes"),
    ("nan", "nan"),
    ("", ""),
]

WRONG = [
    ("1,200", "12"),
    ("1,20", "120"),
    ("1 200", "1200"),  # a plain space may part two numbers
    ("$5", "6"),
    ("5", "0.5"),
    (".5", "5"),
    ("5", "-5"),
    ("-5", "5"),
    ("−5", "5"),
    ("-$5", "5"),
    ("1", "16.9"),
    ("16.9", "1"),
    ("16", "1"),
    ("106", "100"),
    ("94", "100"),
    ("11", "12"),
    ("0.01", "0"),
    ("0.00001", "0"),
    ("1", "0"),
    ("12", "0.12"),
    ("0.12", "12"),
    ("0.12%", "12%"),
    ("1200%", "12%"),
    ("13%", "12"),
    ("1200", "12%"),
    ("12 percent", "0.14"),
    ("1/2", "2"),
    ("1/2", "1"),
    ("1/0", "1"),
    ("one third", "1"),
    ("half of 12", "12"),
    ("2:1", "1:2"),
    ("2", "2:1"),
    ("2:1", "2"),
    ("10:30", "10.5"),
    ("4:2", "2:1"),
    ("2:1:3", "2:1"),
    ("5 million", "5"),
    ("5", "5 million"),
    ("5 billion", "5 million"),
    ("16.9 months", "16.9 years"),
    ("sixteen", "60"),
    ("twelve", "13"),
    ("12th", "12"),
    ("Q3", "3"),
    ("5+", "5"),
    ("<5", "5"),
    ("18-29", "18"),
    ("1990s", "1990"),
    ("2018", "2017"),
    ("2016", "2017"),
    ("2017.5", "2017"),
    ("2017-18", "2017"),
    ("[1, 2]", "[1, 3]"),
    ("[1, 2, 3]", "[1, 2]"),
    ("1", "[1, 2]"),
    ("1, 1", "[1, 2]"),
    ("12", "[1, 2]"),
    ("100,200", "[100, 200]"),  # it may be one number
    ("1, 2", "12"),
    ("12, 12", "12"),
    ("[2010, 2012]", "[2010, 2011]"),
    ("104, 120", "[100, 104]"),
    ("Obama", "[Obama, Romney]"),
    ("Obama, Trump", "[Obama, Romney]"),
    ("no", "Yes"),
    ("false", "Yes"),
    ("true", "No"),
    ("yes and no", "Yes"),
    ("not true", "Yes"),
    ("Red", "Blue"),
    ("Light blue", "Blue"),
    ("Blue, not red", "Blue"),
    ("Unfavorable", "Favorable"),
    ("Sao Paulo", "São Paulo"),
    ("40", "40+"),
    ("12", "12th grade"),
    ("2", "BBC Radio 2"),
    ("5", "5 or more"),
    ("", "Blue"),
    ("the", "A"),
    ("", "12"),
    ("?", "!"),
    ("nan", "12"),
    ("inf", "12"),
    # sentences in doubt
    ("It is 12 or 13.", "12"),
    ("It is not 12.", "12"),
    ("It isn't 12.", "12"),
    ("More than 12.", "12"),
    ("Between 10 and 14.", "12"),
    ("One bar shows 12.", "12"),
    ("Out of 12 the answer is Blue.", "12"),
    ("The answer is 12. The answer is 13.", "13"),
    ("The answer is not Blue.", "Blue"),
    ("I see Blue.", "Blue"),
    ("The answer is Blue or Red.", "Blue"),
    ("2080", "2000 people"),  # it may be a year: exact
]


@pytest.mark.parametrize(("prediction", "gold", "right"), RELAXED)
def test_relaxed_is_chartqas(prediction: str, gold: str, right: bool) -> None:
    assert relaxed(prediction, gold) is right


@pytest.mark.parametrize(("prediction", "gold", "right"), CONTAINS)
def test_contains_is_as_published(prediction: str, gold: str, right: bool) -> None:
    assert contains(prediction, gold) is right


@pytest.mark.parametrize(("words", "digits"), NUMBER_WORDS)
def test_number_words_become_digits(words: str, digits: str) -> None:
    assert digits_for_words(words.lower()) == digits


@pytest.mark.parametrize(("prediction", "gold"), RIGHT)
def test_robust_forgives_the_format(prediction: str, gold: str) -> None:
    assert robust(prediction, gold)


@pytest.mark.parametrize(("prediction", "gold"), WRONG)
def test_robust_does_not_forgive_the_value(prediction: str, gold: str) -> None:
    assert not robust(prediction, gold)


REPEATED = ["five ", " ", "and ", "9", "9,", "1/", "2:", "[", "answer is ", "$", "-", "a hundred ", ".", "a "]


@pytest.mark.parametrize("unit", REPEATED)
@pytest.mark.parametrize("name", SCORERS)
def test_no_output_raises_or_stalls(name: str, unit: str) -> None:
    def judged(size: int) -> None:
        output = unit * size
        for prediction, gold in ((output, "[1, 2]"), (output, "12"), (output, "Blue"), ("12", output)):
            assert SCORERS[name](prediction, gold) in (True, False)

    assert times_the_work(judged, 4000) <= MOST_TIMES_THE_WORK


# ------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 10, 0.0179, 0.4042),
    ],
)
def test_wilson_known_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no count"):
        wilson(correct, n)


def test_a_share_lies_inside_its_interval() -> None:
    for n in range(1, 40):
        for correct in range(n + 1):
            rate = share(correct, n)
            assert 0.0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1.0
    assert share(0, 0) == {"value": 0.0, "low": 0.0, "high": 1.0}


def scored(name: str, kind: str | None, verdict: bool, tokens: int) -> Scored:
    return Scored(name, kind, {"robust": verdict, "relaxed": False, "contains": True}, verdict, tokens)


def test_summary_counts_and_sorts() -> None:
    rows = [
        scored("a", "human", True, 10),
        scored("b", "augmented", False, 20),
        scored("c", None, True, 60),
        scored("d", "human", False, 30),
    ]
    summary = summarise(iter(rows))
    assert summary["n"] == 4
    assert {name: score["value"] for name, score in summary["scores"].items()} == {
        "robust": 0.5,
        "relaxed": 0.0,
        "contains": 1.0,
    }
    assert list(summary["by_kind"]) == ["augmented", "human"]
    assert summary["by_kind"]["human"]["n"] == 2
    assert summary["by_kind"]["human"]["robust"]["value"] == 0.5
    assert (summary["format_rate"]["low"], summary["format_rate"]["high"]) == wilson(2, 4)
    assert summary["mean_completion_tokens"] == 30.0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_of_nothing_is_json_too() -> None:
    summary = summarise([])
    assert summary["n"] == 0
    assert summary["by_kind"] == {}
    assert summary["scores"]["robust"] == {"value": 0.0, "low": 0.0, "high": 1.0}
    json.dumps(summary, allow_nan=False)


def test_summary_refuses_a_missing_verdict() -> None:
    with pytest.raises(KeyError):
        summarise([Scored("a", None, {"robust": True}, True, 1)])


# ------------------------------------------------------------------------- the real golds, planted

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def spelled(number: int) -> str:
    """0 … 99 in words, written apart from the parser under test."""
    if number < 20:
        return SMALL.split(" ")[number]
    tens, ones = TENS.split(" ")[number // 10 - 2], number % 10
    return f"{tens}-{SMALL.split(' ')[ones]}" if ones else tens


def number_of(gold: str) -> float | None:
    try:
        return float(gold)
    except ValueError:
        return None


def elements_of(gold: str) -> list[str] | None:
    return gold[1:-1].split(", ") if gold.startswith("[") else None


def is_year(gold: str) -> bool:
    return gold.isdigit() and 1900 <= int(gold) <= 2099


def fraction_of(gold: str) -> Fraction | None:
    """The small fraction that a gold with decimals is exactly: 0.375 is 3/8."""
    exact = Fraction(gold)
    return exact if 1 < exact.denominator <= 40 and abs(exact.numerator) < 1000 else None


def right_numbers(gold: str, value: float) -> Iterator[str]:
    whole, point, decimals = gold.partition(".")
    grouped = f"{int(whole):,}{point}{decimals}"
    yield from (grouped, f"${gold}", f"${grouped}", f"€ {gold}", f"{gold} €", f"+{gold}")
    yield from (f"**{gold}**", f'"{gold}"', f"[{gold}]", f"{gold}.", f"{grouped}.", f" {gold}\n")
    yield from (f"{gold}%", f"{gold} percent", f"{gold} people", f"{gold} years.")
    yield from (f"The answer is {gold}.", f"Answer: {grouped}", f"The total is {gold} units")
    yield f"In 1999 there were 7. The answer is {gold}"
    yield f"{gold}0" if decimals else f"{gold}.0"
    if 0 < value < 1:
        yield from (gold[1:], f"{value * 100:.6g}%")
    if part := fraction_of(gold):
        yield from (f"{part}", f"The answer is {part}.", f"{part} of them")
    if gold.isdigit() and value < 100:
        words = spelled(int(gold))
        yield from (words, f"{words.capitalize()}.", f"The answer is {words}.")
    if value >= 1e6:
        yield from (f"{value / 1e6:.6g} million", f"${value / 1e6:.6g}M")
    if not is_year(gold) and value >= 20:
        yield from (f"{value * 1.04:.6g}", f"{value * 0.96:.6g}")


def right_variants(gold: str) -> Iterator[str]:
    value, elements = number_of(gold), elements_of(gold)
    if value is not None:
        yield from right_numbers(gold, value)
    elif elements is not None:
        turned = elements[::-1]
        yield from (f"[{', '.join(turned)}]", ", ".join(turned), " and ".join(turned))
        yield from (f"{', '.join(elements)}.", f"The answer is [{', '.join(turned)}].")
    else:
        yield from (gold.upper(), gold.lower(), f"{gold}.", f"the {gold}", gold.replace(" ", "  "))
        yield from (f'"{gold}"', f"“{gold}”", f"**{gold}**", f"The answer is {gold}.", f"Answer: {gold}")
        yield from {"Yes": ("true", "True.", "correct"), "No": ("false", "False.")}.get(gold, ())


def wrong_numbers(gold: str, value: float) -> Iterator[str]:
    more = f"{value * 1.1:.10g}"
    yield from (more, f"The answer is {more}.", f"${more}%", f"{value * 0.9:.10g}", f"-{gold}")
    yield from (f"{value * 1000:.10g}", f"{value / 1000:.10g}", f"{gold} million")
    yield from (f"not {gold}", f"more than {gold}", f"{gold}-{more}", f"{gold}:1", f"{gold}, {gold}", "Yes")
    if (part := fraction_of(gold)) and part.numerator != part.denominator:
        yield from (f"{part.denominator}/{part.numerator}", f"1/{part}", f"{part.numerator}")
    # The prefixes of `16.9` are 1 and 16; one within 6 % of the gold would be no wrong answer.
    yield from (cut for cut in (gold[:1], gold[:2], gold[:-1]) if cut and abs(float(cut) / value - 1) > 0.06)
    if is_year(gold):
        yield from (str(int(gold) + 1), str(int(gold) - 1), f"The answer is {int(gold) + 1}.")


def wrong_variants(gold: str, other: str) -> Iterator[str]:
    """Answers that are not the gold; `other` is a gold of another value."""
    value, elements = number_of(gold), elements_of(gold)
    yield from (other, "", f"{gold} or {other}", "I cannot tell")
    if value is not None:
        yield from wrong_numbers(gold, value)
    elif elements is not None:
        first = elements[0]
        yield from (first, f"[{', '.join([*elements, first])}]", f"[{first}, {first}]")
        yield f"[{', '.join([*elements[:-1], other])}]"
    else:
        yield from (f"not {gold}", f"{gold} and {other}", f"I think {gold} but {other}", f"non{gold}")
        yield from (gold.rstrip(".")[:-1], "12")
        yield from {"Yes": ("no", "false", "incorrect"), "No": ("yes", "true", "correct")}.get(gold, ())


def differs(other: str, gold: str) -> bool:
    """Whether two golds are plainly different answers, judged without the scorer."""
    a, b = number_of(other), number_of(gold)
    if a is not None and b is not None:
        return abs(a - b) > 0.2 * max(abs(a), abs(b))
    return other.casefold() != gold.casefold()


def wrong_pairs(golds: list[str]) -> Iterator[tuple[str, str]]:
    distinct = list(dict.fromkeys(golds))
    for i, gold in enumerate(distinct):
        other = next(other for other in distinct[i + 1 :] + distinct if differs(other, gold))
        yield from ((variant, gold) for variant in wrong_variants(gold, other))


@pytest.fixture(scope="module")
def golds() -> list[str]:
    if not ITEMS.is_file():
        pytest.skip(f"no ChartQA items at {ITEMS}")
    lines = ITEMS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines]


def officially_right(target: str, prediction: str, max_relative_change: float = 0.05) -> bool:
    """ChartQA's relaxed accuracy as published (Masry et al. 2022, end of section 5.1; pix2struct's metrics.py,
    which lmms-eval and VLMEvalKit copied): a number within 5 % of the gold, any other answer exactly."""

    def as_number(text: str) -> float | None:
        try:
            if text.endswith("%"):
                return float(text.rstrip("%")) / 100.0
            return float(text)
        except ValueError:
            return None

    said, wanted = as_number(prediction), as_number(target)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= max_relative_change
    return prediction.lower() == target.lower()


def test_relaxed_agrees_with_the_official_definition(golds: list[str]) -> None:
    pairs = [(variant, gold) for gold in golds for variant in right_variants(gold)] + list(wrong_pairs(golds))
    assert [pair for pair in pairs if relaxed(*pair) != officially_right(pair[1], pair[0])] == []
    right = sum(relaxed(*pair) for pair in pairs)
    assert 0.05 < right / len(pairs) < 0.95  # both verdicts occur


@pytest.mark.parametrize("name", SCORERS)
def test_every_gold_is_right_against_itself(name: str, golds: list[str]) -> None:
    assert [gold for gold in golds if not SCORERS[name](gold, gold)] == []


def test_planted_right_variants(golds: list[str]) -> None:
    pairs = [(variant, gold) for gold in dict.fromkeys(golds) for variant in right_variants(gold)]
    failed = [pair for pair in pairs if not robust(*pair)]
    assert len(pairs) > 10_000
    assert 1 - len(failed) / len(pairs) >= 0.995, failed[:20]


def test_planted_wrong_variants(golds: list[str]) -> None:
    pairs = list(wrong_pairs(golds))
    passed = [pair for pair in pairs if robust(*pair)]
    assert len(pairs) > 10_000
    assert len(passed) / len(pairs) <= 0.005, passed[:20]

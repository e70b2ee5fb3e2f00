"""The thinking reward: clean traces earn all of it, every planted fault costs and is named."""

from __future__ import annotations

import json
import re
from itertools import islice
from random import Random

import pytest
from growth import MOST_TIMES_THE_WORK, times_the_work

from toasterft.data import charts
from toasterft.data.charts.spec import fact_name
from toasterft.data.chat import Parsed
from toasterft.data.example import Example
from toasterft.scoring.rewards import Completion, thinking, thinking_lemma
from toasterft.scoring.tables import read
from toasterft.scoring.traces import check, lemma_f1, lemmas, needed_rows

SEEDS = (31, 32, 33)
ITEMS = 60  # per seed and difficulty; two traces each
FACTS = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}, {"label": "green", "value": 12}]
SALES = [
    {"label": label, "series": series, "value": value}
    for series, values in (("north", (5.5, 8.0, 2.5)), ("south", (4.0, 9.5, 3.0)))
    for label, value in zip(("2019", "2020", "2021"), values)
]


def items(difficulty, seed, count=ITEMS):
    return [item for _, item in islice(charts.stream(seed, difficulty), count)]


def traces():
    for difficulty in charts.DIFFICULTIES:
        for seed in SEEDS:
            for item in items(difficulty, seed):
                yield item, item.simplified
                yield item, item.structured


# ------------------------------------------------------------------------------------- planted faults


def bump(number, rng):
    """Another number, at least a reading's tolerance away."""
    if "." in number:
        return f"{float(number) + rng.choice((0.5, 1.0, 2.5)):.1f}"
    return str(int(number) + rng.choice((1, 2, 3, 7)))


def put(trace, found, group, text):
    return trace[: found.start(group)] + text + trace[found.end(group) :]


def stated(trace):
    """Where a structured trace starts to state things."""
    return max(0, trace.find("Observations"))


def a_reading(item, trace, rng):
    names = "|".join(re.escape(fact_name(fact)) for fact in item.facts)
    found = re.finditer(rf"(?:(?<=[.,:] )|^)({names}) (?:=|is) (\d+(?:\.\d)?)", trace)
    found = [each for each in found if each.start() >= stated(trace)]
    return rng.choice(found) if found else None


def wrong_number(item, trace, rng):
    found = a_reading(item, trace, rng)
    return put(trace, found, 2, bump(found[2], rng)) if found else trace


def wrong_label(item, trace, rng):
    found = a_reading(item, trace, rng)
    if not found:
        return trace
    others = [fact_name(fact) for fact in item.facts if float(fact["value"]) != float(found[2])]
    return put(trace, found, 1, rng.choice([*others, "zebra"]))


def wrong_arithmetic(item, trace, rng):
    """A result, a count, a pick's number, a list or a comparison's sign."""
    for pattern in (r" = (\d+(?:\.\d)?)", r"(?:largest|smallest) is (\d+(?:\.\d)?)", r"There are (\d+)"):
        if found := re.search(rf"[-+*/] \d+(?:\.\d)?{pattern}" if pattern[0] == " " else pattern, trace):
            return put(trace, found, 1, bump(found[1], rng))
    if found := re.search(r"(?<!Not )Above [\d.]+: ([^.]+)\. So", trace):
        names = [] if found[1] == "none" else found[1].split(", ")
        others = [fact_name(fact) for fact in item.facts if fact_name(fact) not in names]
        names = names[1:] if names and (not others or rng.random() < 0.5) else [*names, rng.choice(others)]
        return put(trace, found, 1, ", ".join(names) or "none")
    signs = [found for found in re.finditer("([<>])", trace) if found.start() >= stated(trace)]
    if signs:
        found = rng.choice(signs)
        return put(trace, found, 1, "<" if found[1] == ">" else ">")
    return trace


OPPOSITE = {"yes": "no", "no": "yes", "rising": "falling", "falling": "neither", "neither": "rising"}


def wrong_conclusion(item, trace, rng):
    answer = item.answer
    if answer in OPPOSITE:
        other = OPPOSITE[answer]
    elif item.kind in ("highest", "lowest"):
        other = rng.choice([*{str(fact["label"]) for fact in item.facts} - {answer}, "zebra"])
    elif item.kind == "transcribe":
        found = rng.choice(list(re.finditer(r"= (\d+)", answer)))
        other = put(answer, found, 1, bump(found[1], rng))
    else:
        other = bump(answer, rng)
    at = trace.rfind(answer)
    return trace[:at] + other + trace[at + len(answer) :]


PLANTS = (wrong_number, wrong_label, wrong_arithmetic, wrong_conclusion)


def test_clean_traces_earn_everything():
    total = alarms = low = 0
    for item, trace in traces():
        checked = check(trace, item.facts, item.question, item.answer)
        total += 1
        alarms += bool(checked.faults)
        low += checked.score < 0.999
    print(f"clean: {alarms} of {total} with a false alarm, {low} below full score")
    assert total >= 200
    assert alarms <= 0.02 * total
    assert low <= 0.02 * total


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_planted_faults_are_named(plant):
    rng, total, missed = Random(plant.__name__), 0, []
    for item, trace in traces():
        changed = plant(item, trace, rng)
        if changed == trace:
            continue
        total += 1
        clean = check(trace, item.facts, item.question, item.answer)
        checked = check(changed, item.facts, item.question, item.answer)
        if not checked.faults or checked.score >= clean.score:
            missed.append((changed, item.answer, checked))
    print(f"{plant.__name__}: {total - len(missed)} of {total} caught")
    assert total >= 200
    assert len(missed) <= 0.05 * total, missed[:3]


# ----------------------------------------------------------------------------------------- paraphrases

# Ways to say the same, none of them from `phrases.py`. {a}, {b}: rows; {x}, {y}: their values; {v}: answer.
PAIR_SAID = (
    "{a} has {x} and {b} has {y}.",
    "The value of {a} is {x}, while {b} shows {y}.",
    "From the chart, {a} ({x}) and {b} ({y}) can be read.",
    "I see {x} for {a}. I see {y} for {b}.",
    "Looking at the bars: {a}: {x}, {b}: {y}.",
    "The bar for {a} reaches {x}; the bar for {b} reaches {y}.",
    "1. **{a}** is labeled {x}.\n2. **{b}** is labeled {y}.",
)
PARAPHRASES = {
    "difference": (
        "Subtracting, {x} - {y} = {v}. So the answer is {v}.",
        "{x} minus {y} equals {v}. Therefore, the difference is {v}.",
        "The difference between {a} and {b} is {v}.",
        "{a} is {v} more than {b}. The answer is {v}.",
        "Subtracting {y} from {x} gives {v}. Hence {v}.",
        "{x} − {y} → {v}. Answer: {v}",
    ),
    "sum": (
        "Adding them: {x} + {y} = {v}. The answer is {v}.",
        "{x} plus {y} makes {v}, so the total is {v}.",
        "The sum of {a} and {b} is {v}. Thus, {v}.",
        "Together that is {x} + {y}, which is {v}. Final Answer: {v}",
        "{a} and {b} together come to {v}.",
    ),
    "ratio": (
        "{x} divided by {y} is {v}. So the ratio is {v}.",
        "Dividing {x} by {y} gives {v}. The answer is {v}.",
        "{x} ÷ {y} = {v}, so {v}.",
        "{a} is {v} times {b}. Therefore {v}.",
        "\\frac{{{x}}}{{{y}}} = {v}. The answer is {v}.",
    ),
    "compare": (
        "Since {x} is greater than {y}, so {v}.",
        "{a} is higher than {b}. The answer is {v}.",
        "{a} ({x}) exceeds {b} ({y}). Therefore, {v}.",
        "{y} is less than {x}. Hence {v}.",
        "Comparing, {x} > {y}. So the answer is {v}.",
    ),
}
EXTREME_SAID = (
    "Reading all values: {table}. The {most} value is {x}, which belongs to {v}. So the answer is {v}.",
    "The values are as follows: {table}. {v} has the {most} value ({x}). Therefore, {v}.",
    "{table}. Of these, the {most} is {v} at {x}. The answer is {v}.",
    "{table}. {v} is the {most}. Answer: {v}",
    "{table}. Since {x} is the {most}, the label is {v}.",
)
TABLE_SAID = ("{a} is {x}", "{a}: {x}", "{a} has {x}", "{a} = {x}", "{x} for {a}")


def paraphrased():
    """(question, answer, facts, trace) in many wordings, from charts of every difficulty."""
    rng = Random("paraphrases")
    for difficulty in charts.DIFFICULTIES:
        for item in items(difficulty, 41, 500):
            named = {fact_name(fact): str(fact["value"]) for fact in item.facts}
            if item.kind in ("highest", "lowest") and "series" not in item.facts[0]:
                said = rng.choice(TABLE_SAID)
                value = named[item.answer]
                words = {
                    "table": ", ".join(said.format(a=name, x=number) for name, number in named.items()),
                    "most": rng.choice(("largest", "highest", "greatest", "maximum"))
                    if item.kind == "highest"
                    else rng.choice(("smallest", "lowest", "minimum")),
                }
                yield item, rng.choice(EXTREME_SAID).format(x=value, v=item.answer, **words)
            elif item.kind in PARAPHRASES and len(item.simplified.split(". ")[0].split(", ")) >= 2:
                asked = item.question.replace("year ", "")
                rows = [name for name in named if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", asked)]
                if len(rows) != 2:
                    continue
                a, b = sorted(rows, key=lambda name: -float(named[name]))
                words = {"a": a, "b": b, "x": named[a], "y": named[b], "v": item.answer}
                trace = f"{rng.choice(PAIR_SAID)} {rng.choice(PARAPHRASES[item.kind])}"
                yield item, trace.format(**words)


def test_paraphrases_are_understood():
    assert sum(map(len, PARAPHRASES.values())) + len(EXTREME_SAID) + len(PAIR_SAID) >= 30
    total, alarms, low = 0, [], []
    for item, trace in paraphrased():
        checked = check(trace, item.facts, item.question, item.answer)
        total += 1
        if checked.faults:
            alarms.append((trace, item.answer, checked))
        if checked.score < 0.9:
            low.append((trace, item.question, item.answer, checked))
    print(f"paraphrases: {len(alarms)} of {total} with a false alarm, {len(low)} below 0.9")
    assert total >= 200
    assert len(alarms) <= 0.02 * total, alarms[:3]
    assert len(low) <= 0.05 * total, low[:3]


def test_faults_in_paraphrases_are_named():
    """Any one number of a paraphrase is changed."""
    rng, total, missed = Random("planted"), 0, []
    for item, trace in paraphrased():
        clean = check(trace, item.facts, item.question, item.answer)
        numbers = [n for n in re.finditer(r"(?<![\w.])(\d+(?:\.\d)?)(?![\w.]\w|\w|\.\s\*\*)", trace)]
        names = {str(fact.get(part)) for fact in item.facts for part in ("label", "series")}
        numbers = [found for found in numbers if found[1] not in names]
        if not numbers:
            continue
        found = rng.choice(numbers)
        # Twice as much and one: far outside of what the scorer's 5 % forgives.
        changed = put(trace, found, 1, str(round(float(found[1]) * 2 + 1, 1)).removesuffix(".0"))
        total += 1
        checked = check(changed, item.facts, item.question, item.answer)
        if not checked.faults or checked.score >= clean.score:
            missed.append((changed, item.question, item.answer, checked))
    print(f"paraphrases: {total - len(missed)} of {total} planted faults caught")
    assert total >= 200
    assert len(missed) <= 0.05 * total, missed[:4]


# --------------------------------------------------------------------------------------- one by one

RIGHT = (
    "red = 7",
    "red is 7",
    "red has 7",
    "red (7)",
    "7 for red",
    "The value of red is 7",
    "the red bar stands at 7",
    "Red: 7",
    "red and blue are 7 and 3 respectively",
    "7 + 3 + 12 = 22",
    "12 / 3 = 4",
    "7 × 3 = 21",
    "3 · 12 = 36",
    "12 minus 7 is 5",
    "(7 + 3) / 2 = 5",
    "7 / 12 = 0.58",
    "7 / 12 = 58.3%",
    "12 > 7 > 3",
    "green is higher than red",
    "blue is not higher than red",
    "The largest is 12, so green",
    "green is the tallest bar",
    "blue has the lowest value of 3",
    "There are 3 bars",
    "Above 5: red, green",
    "two bars are above 5",
    "The average of red, blue and green is 7.33",
    "red is about 7.2",
    "green exceeds red by 5",
)
FALSE = (
    "red = 8",
    "red is 8",
    "red has 70",
    "red (3)",
    "3 for red",
    "The value of red is 12",
    "the red bar stands at 6",
    "Red: 8",
    "rod = 7",
    "rod is 7",
    "red and blue are 3 and 7 respectively",
    "16 - 10 = 6",
    "7 + 3 + 12 = 23",
    "12 / 3 = 5",
    "7 × 3 = 20",
    "12 minus 7 is 6",
    "7 / 12 = 0.6 = 0.7",
    "3 > 7",
    "blue is higher than red",
    "green is not higher than red",
    "The largest is 12, so red",
    "The largest is 7",
    "red is the tallest bar",
    "blue has the lowest value of 7",
    "There are 4 bars",
    "Above 5: red",
    "Above 5: rod, green",
    "three bars are above 5",
    "The average of red, blue and green is 8",
    "green exceeds red by 6",
    "7 = 8",
)
NEUTRAL = (
    "",
    "The chart is a bar chart titled Sales 2020",
    "I will now look for the red bar",
    "The y-axis goes from 0 to 20 in steps of 5",
    "The season 2019/20 is shown",
    "Between 2010-2015 is a gap",
    "red seems to be a warm colour",
    "The second largest is red",
    "Is red higher than green?",
    "Step 2: find the value",
    "7 / 0 = 7",
)


@pytest.mark.parametrize("said", [*RIGHT, *NEUTRAL])
def test_nothing_wrong(said):
    assert check(f"{said}.", FACTS, "What is the value of red?", "").faults == ()


@pytest.mark.parametrize("said", FALSE)
def test_wrong(said):
    checked = check(f"{said}.", FACTS, "What do the bars show together?", "")
    assert checked.faults, checked


def test_series_and_years():
    question = "What is the difference between north 2020 and south 2020?"
    for said in (
        "north 2020 = 8.0, south 2020 = 9.5. 9.5 - 8.0 = 1.5.",
        "In 2020, north reached 8 and south reached 9.5. The difference is 9.5 - 8 = 1.5.",
        "For north the value in 2020 is 8.0. For south the value in 2020 is 9.5. 9.5 - 8.0 = 1.5. So 1.5.",
        "Looking at 2020: north: 8.0, south: 9.5. So 9.5 - 8.0 = 1.5.",
    ):
        checked = check(said, SALES, question, "1.5")
        assert checked.faults == (), (said, checked)
        assert checked.score > 0.95, (said, checked)
    for said in (
        "north 2020 = 9.5, south 2020 = 8.0. 9.5 - 8.0 = 1.5.",
        "In 2020, north reached 9.5 and south reached 8. The difference is 9.5 - 8 = 1.5.",
        "north 2019 = 8.0, south 2020 = 9.5. 9.5 - 8.0 = 1.5.",
    ):
        assert check(said, SALES, question, "1.5").faults, said


def test_readings_off_an_axis():
    """Exact for whole numbers up to 100 and years, 1 % otherwise, 5 % after "about"."""
    facts = [{"label": "A1", "value": 4608848}, {"label": "B1", "value": 34.9}, {"label": "C1", "value": 60}]

    def faults(said):
        return check(said, facts, "What is A1?", "").faults

    assert not faults("A1 = 4,610,000. B1 = 34.8. C1 = 60.")
    assert not faults("A1 is about 4.5 million, B1 is around 34. C1 is roughly 58.")
    assert len(faults("A1 = 4,700,000. B1 = 34. C1 = 61.")) == 3
    founded = [{"label": "firm", "value": 1998}]
    assert check("firm = 1999.", founded, "When was firm founded?", "1998").faults


# Free text about tables of several sorts, written by hand: (facts, question, gold answer, trace).


def table(names, **series):
    """Rows of one series (`values`) or of several."""
    return [
        {"label": name, **({} if key == "values" else {"series": key}), "value": value}
        for key, values in series.items()
        for name, value in zip(names, values)
    ]


COUNTRIES = table(("Spain", "Italy", "Japan", "Peru", "Chile"), values=(42, 37, 58, 12, 25))
CHANNELS = table(("2018", "2019", "2020"), Online=(120, 150, 210), Shop=(300, 280, 240))
ANSWERS = table(
    ("Very satisfied", "Somewhat satisfied", "Not satisfied", "Don't know"), values=(34.5, 41.2, 18.3, 6.0)
)
YEARS = table(("2015", "2016", "2017", "2018", "2019"), values=(3.2, 3.9, 4.4, 4.1, 5.0))
AGES = table(("18-29", "30-49", "50+"), Men=(64, 52, 38), Women=(71, 55, 30))
CITIES = table(("Tokyo", "Delhi", "Shanghai"), values=(37400068, 28514000, 25582138))
SOUND = (
    (COUNTRIES, "Which country has the highest value?", "Japan",
     "Scanning the chart, Spain is at 42, Italy at 37, Japan at 58, Peru at 12 and Chile at 25. The "
     "largest of these is 58. This corresponds to Japan."),
    (COUNTRIES, "Which country has the highest value?", "Japan",
     "Let me compare the bars. Japan stands out with 58, followed by Spain (42) and Italy (37). Chile "
     "has 25, and Peru is lowest with 12. Hence Japan has the highest value."),
    (COUNTRIES, "How many countries are above 30?", "3",
     "Spain (42), Italy (37), and Japan (58) exceed 30, while Chile (25) and Peru (12) do not. So "
     "there are 3 countries above 30."),
    (COUNTRIES, "How many countries are above 30?", "3",
     "I go through each bar: Spain 42 > 30, Italy 37 > 30, Japan 58 > 30, Peru 12 < 30, Chile 25 < 30. "
     "Three countries are above 30. The answer is 3."),
    (COUNTRIES, "What is the average of Spain, Italy and Chile?", "34.67",
     "Spain: 42. Italy: 37. Chile: 25. The sum is 42 + 37 + 25 = 104. Dividing by 3 gives 104 / 3 = "
     "34.67. So the average is approximately 34.67."),
    (COUNTRIES, "What is the total of all countries?", "174",
     "Adding all the values: 42 + 37 + 58 + 12 + 25 = 174."),
    (COUNTRIES, "What is the total of all countries?", "174",
     "Start with Spain at 42. Add Italy's 37 to get 79. Adding Japan's 58 gives 137. Adding Peru's 12 "
     "gives 149, and adding Chile's 25 gives 174. The total is 174."),
    (COUNTRIES, "How much more does Japan have than Spain?", "16",
     "Japan: 58\nSpain: 42\nDifference: 58 - 42 = 16\nAnswer: 16"),
    (COUNTRIES, "What percent of the total is Japan?", "33.3",
     "The total is 42 + 37 + 58 + 12 + 25 = 174. Japan is 58. 58 / 174 = 0.333 = 33.3%. So the answer "
     "is 33.3."),
    (COUNTRIES, "How many bars are there?", "5",
     "The bars are Spain, Italy, Japan, Peru and Chile. That makes five bars. The answer is 5."),
    (CHANNELS, "In which year was the gap between Shop and Online smallest?", "2020",
     "2018: Shop 300, Online 120, gap 300 - 120 = 180. 2019: Shop 280, Online 150, gap 280 - 150 = "
     "130. 2020: Shop 240, Online 210, gap 240 - 210 = 30. The smallest gap is 30, in 2020. So 2020."),
    (CHANNELS, "Is Online rising?", "Yes",
     "Online goes from 120 in 2018 to 150 in 2019 and then to 210 in 2020, so it keeps rising. Yes."),
    (CHANNELS, "What is the total in 2019?", "430",
     "For 2019, the Shop value is 280 and the Online value is 150. Together, 280 + 150 = 430. The "
     "total in 2019 is 430."),
    (CHANNELS, "What is the average Online value?", "160",
     "The Online values are 120, 150 and 210. Their sum is 480 and 480 / 3 = 160. The average is 160."),
    (CHANNELS, "What is the percentage decrease of Shop from 2018 to 2020?", "20",
     "Shop fell from 300 to 240, a decrease of 60. (300 - 240) / 300 * 100 = 20%. The answer is 20."),
    (ANSWERS, "What share is satisfied?", "75.7",
     "Very satisfied is 34.5% and somewhat satisfied is 41.2%. 34.5% + 41.2% = 75.7%. So 75.7% are "
     "satisfied."),
    (ANSWERS, "What is the value of Don't know?", "6",
     "The smallest slice is \"Don't know\" at 6%. The answer is 6."),
    (ANSWERS, "Is the sum of Not satisfied and Don't know below 30?", "Yes",
     "18.3 + 6 = 24.3, and 24.3 < 30. So yes."),
    (ANSWERS, "What is the median?", "26.4",
     "Sorted, the values are 6.0, 18.3, 34.5, 41.2. The median is (18.3 + 34.5) / 2 = 26.4."),
    (COUNTRIES, "What is the range?", "46",
     "The maximum is 58 for Japan and the minimum is 12 for Peru. Range = 58 - 12 = 46. The answer is "
     "46."),
    (COUNTRIES, "Which countries are below 40?", "[Italy, Peru, Chile]",
     "Countries below 40: Italy (37), Peru (12), Chile (25). The answer is Italy, Peru, Chile."),
    (CHANNELS, "How many values are above 200?", "4",
     "The values above 200 are Shop 2018 (300), Shop 2019 (280), Shop 2020 (240) and Online 2020 "
     "(210). So there are 4 values above 200."),
    (COUNTRIES, "Which is the largest?", "Japan",
     "Observation: Spain 42, Italy 37, Japan 58, Peru 12, Chile 25.\nReasoning: 58 is greater than "
     "every other value.\nConclusion: Japan is the largest."),
    (YEARS, "What was the value in 2017?", "4.4",
     "Find 2017 along the bottom. The line there is at 4.4, so the value in 2017 was 4.4."),
    (YEARS, "Which year had the peak?", "2019",
     "The line climbs from 3.2 in 2015 to 5.0 in 2019. Its peak of 5.0 comes in 2019. Answer: 2019"),
    (YEARS, "By how much did it change between 2018 and 2019?", "0.9",
     "2018 → 4.1 and 2019 → 5.0. The change is 5.0 − 4.1 = 0.9."),
    (YEARS, "Is the trend rising, falling or neither?", "neither",
     "Going year by year, 3.2 < 3.9 < 4.4, but 4.4 > 4.1, and then 4.1 < 5.0. The line therefore goes "
     "up and down. So neither."),
    (YEARS, "What is the mean of 2015 and 2016?", "3.55",
     "(3.2 + 3.9) / 2 = 7.1 / 2 = 3.55. The mean of 2015 and 2016 is 3.55."),
    (YEARS, "How many years are above 4?", "3",
     "Years over 4: 2017 (4.4), 2018 (4.1), 2019 (5.0). That makes 3. So 3."),
    (YEARS, "How many years are above 4?", "3",
     "2015 is 3.2 and 2016 is 3.9, which are below 4. The other three, 2017, 2018 and 2019, are above "
     "4. So the answer is 3."),
    (YEARS, "What is the ratio of 2019 to 2015?", "1.56",
     "5.0 divided by 3.2 equals 1.5625, which rounds to 1.56. Answer: 1.56."),
    (YEARS, "What is the lowest value?", "3.2",
     "The lowest point on the line is 3.2, in 2015. The answer is 3.2."),
    (AGES, "What is the gap between men and women aged 18-29?", "7",
     "Among 18-29 year olds, Women are at 71 and Men at 64. The gap is 71 - 64 = 7."),
    (AGES, "In which age group are Men above Women?", "50+",
     "18-29: Men 64 < Women 71. 30-49: Men 52 < Women 55. 50+: Men 38 > Women 30. Only in 50+ are men "
     "ahead. The answer is 50+."),
    (AGES, "What is the value for Women 30-49?", "55",
     "I look at the bar for Women in the 30-49 group; it reads 55. So 55."),
    (AGES, "What is the sum of Men in all groups?", "154",
     "Men: 64 (18-29), 52 (30-49), 38 (50+). 64 + 52 = 116; 116 + 38 = 154. The sum is 154."),
    (AGES, "Which group has the lowest value for Women?", "50+",
     "For Women the values are 71, 55 and 30. 30 is the minimum, and it belongs to the 50+ group. So "
     "50+."),
    (AGES, "Which gender has the larger value for 50+?", "Men",
     "For 50+, Men have 38 whereas Women have 30. As 38 is larger than 30, the answer is Men."),
    (AGES, "What is the average for Women?", "52",
     "Average for Women = (71 + 55 + 30) / 3 = 156 / 3 = 52."),
    (AGES, "How many times larger is Men 18-29 than Men 50+?", "1.68",
     "Men 18-29 is 64 and Men 50+ is 38. 64 / 38 ≈ 1.68."),
    (CITIES, "What is the population of Tokyo?", "37400068",
     "Tokyo has roughly 37.4 million people; the label says 37,400,068. The answer is 37400068."),
    (CITIES, "How many more people live in Tokyo than in Delhi?", "8886068",
     "37,400,068 − 28,514,000 = 8,886,068. So Tokyo has 8,886,068 more people than Delhi."),
    (CITIES, "Which is the biggest city?", "Tokyo",
     "Comparing: Tokyo (37.4 million) > Delhi (28.5 million) > Shanghai (25.6 million). Thus, the "
     "biggest city is Tokyo."),
    (CITIES, "What is the total of Delhi and Shanghai?", "54096138",
     "Delhi: 28514000; Shanghai: 25582138; total: 28514000 + 25582138 = 54096138"),
    (YEARS, "What is the difference between the largest and the smallest value?", "1.8",
     "Largest: 5.0 (2019). Smallest: 3.2 (2015). Subtract: 5.0 - 3.2 = 1.8."),
    (YEARS, "Did the value fall in 2018?", "Yes",
     "It was 4.4 in 2017 and 4.1 in 2018. Because 4.1 < 4.4, it fell. Yes."),
    (AGES, "Is Men 30-49 less than Women 30-49?", "Yes",
     "52 is smaller than 55, i.e. Men 30-49 is smaller than Women 30-49, so yes."),
    (YEARS, "Which year comes right after the 4.4?", "2018",
     "The value 4.4 belongs to 2017, and the following year on the axis is 2018. So 2018."),
)  # fmt: skip
UNSOUND = (
    (COUNTRIES, "What is the difference between Japan and Peru?", "46",
     "Japan's bar shows a value of 58, whereas Peru's bar shows only 14. 58 − 14 = 44. Therefore, the "
     "difference is 44."),
    (COUNTRIES, "Which country has the highest value?", "Japan",
     "Spain is at 42, Italy at 37, Japan at 38, Peru at 12 and Chile at 25. Spain is the highest. So "
     "Spain."),
    (COUNTRIES, "How many countries are above 30?", "3",
     "Spain (42), Italy (37), Japan (58) and Chile (35) exceed 30. So there are 4 countries above 30."),
    (COUNTRIES, "How many countries are above 30?", "3",
     "Two countries are above 30. The answer is 2."),
    (COUNTRIES, "What is the total of all countries?", "174",
     "Adding all the values: 42 + 37 + 58 + 12 + 25 = 184."),
    (COUNTRIES, "Is Spain higher than Italy?", "Yes",
     "Spain has 42 and Italy has 37; 42 is less than 37. No."),
    (CHANNELS, "What was Shop in 2019?", "280",
     "Looking at the Shop line, the point for 2019 is at 240. Therefore the answer is 240."),
    (CHANNELS, "What was Shop in 2019?", "280",
     "In 2019 Shop was 150. So 150."),
    (CHANNELS, "Which year has the highest Shop value?", "2018",
     "The highest Shop value is 280, which occurs in 2019. So the answer is 2019."),
    (CHANNELS, "How much did Online grow from 2018 to 2020?", "90",
     "In 2018, Online was 120. By 2020, Online had reached 220. The growth is 220 - 120 = 100."),
    (ANSWERS, "What share is satisfied?", "75.7",
     "Very satisfied is 34.5% and somewhat satisfied is 41.2%. 34.5% + 41.2% = 76.7%. So 76.7% are "
     "satisfied."),
    (ANSWERS, "Which answer was given most often?", "Somewhat satisfied",
     "The largest slice is Very satisfied with 34.5 percent."),
    (COUNTRIES, "What is the ratio of Japan to Chile?", "2.32",
     "Japan is 58 and Chile is 25, so the ratio is 58/25 = 2.5."),
    (COUNTRIES, "What is the average of Spain, Italy and Chile?", "34.67",
     "The average of Spain, Italy and Chile is 36."),
    (COUNTRIES, "How many bars are there?", "5",
     "There are 6 bars. The answer is 6."),
    (COUNTRIES, "What is the value of Peru?", "12",
     "Brazil is 12. So 12."),
    (YEARS, "What was the value in 2017?", "4.4",
     "Find 2017 along the bottom. The line there is at 4.1, so the value in 2017 was 4.1."),
    (YEARS, "Which year had the peak?", "2019",
     "Its peak of 4.4 comes in 2017. Answer: 2017"),
    (YEARS, "Is the trend rising, falling or neither?", "neither",
     "3.2 < 3.9 < 4.4 < 4.1 < 5.0, so rising."),
    (YEARS, "What is the mean of 2015 and 2016?", "3.55",
     "(3.2 + 3.9) / 2 = 3.75. The mean of 2015 and 2016 is 3.75."),
    (YEARS, "How many years are above 4?", "3",
     "Years over 4: 2016, 2017, 2018, 2019. So 4."),
    (AGES, "What is the gap between men and women aged 18-29?", "7",
     "Women are at 71 and Men at 52. The gap is 71 - 52 = 19."),
    (AGES, "What is the value for Women 30-49?", "55",
     "The bar for Women in the 30-49 group reads 52. So 52."),
    (AGES, "Which gender has the larger value for 50+?", "Men",
     "For 50+, Men have 38 whereas Women have 40. As 40 is larger than 38, the answer is Women."),
    (CITIES, "How many more people live in Tokyo than in Delhi?", "8886068",
     "37,400,068 − 28,514,000 = 9,886,068. So 9,886,068."),
    (CITIES, "Which is the biggest city?", "Tokyo",
     "Delhi is the biggest city with 28.5 million. So Delhi."),
    (YEARS, "What is the lowest value?", "3.2",
     "The lowest point on the line is 3.9, in 2016. The answer is 3.9."),
    (YEARS, "What is the ratio of 2019 to 2015?", "1.56",
     "5.0 divided by 3.2 equals 1.65. Answer: 1.65."),
)  # fmt: skip


@pytest.mark.parametrize(("facts", "question", "answer", "trace"), SOUND, ids=range(len(SOUND)))
def test_sound_free_text(facts, question, answer, trace):
    checked = check(trace, facts, question, answer)
    assert checked.faults == ()
    assert checked.conclusion == 1.0 or answer.startswith("[")
    assert checked.score > 0.15  # more than for the answer alone


@pytest.mark.parametrize(("facts", "question", "answer", "trace"), UNSOUND, ids=range(len(UNSOUND)))
def test_unsound_free_text(facts, question, answer, trace):
    checked = check(trace, facts, question, answer)
    assert checked.faults
    assert checked.score <= 0.6


# ------------------------------------------------------------------------------------ what it is worth

SUM = "What is the sum of red and green?"


def score(trace, question=SUM, answer="19", facts=FACTS):
    return check(trace, facts, question, answer).score


def test_the_order_of_worth():
    reasoned = score("red = 7, green = 12. 7 + 12 = 19.")
    listed = score("red = 7, blue = 3, green = 12.")
    assert reasoned == pytest.approx(1.0)
    assert 0.3 <= listed <= 0.45
    assert score("") == 0.0
    assert score("   \n") == 0.0
    assert score("The answer is 19.") <= 0.2
    assert score("19") <= 0.2
    assert score("The answer is 18.") == 0.0
    assert score("I look at the chart and think about it.") == 0.0
    assert listed < score("red = 7, green = 12. So the answer is 19.") < reasoned
    assert score("7 + 12 = 19.") < reasoned  # where the numbers come from is not shown
    assert score("red = 7, green = 12. 7 + 12 = 18.") < listed + 0.2
    # A look-up needs no step.
    assert score("red = 7. So 7.", "What is the value of red?", "7") == pytest.approx(1.0)
    assert score("red = 7, blue = 3, green = 12.", "What is the value of red?", "7") < 0.5


def test_repeating_earns_nothing():
    once = "red = 7. 7 > 3."
    assert score(" ".join([once] * 20)) == score(once)
    assert score("red = 7. " * 50) == score("red = 7.")
    assert score("1 + 1 = 2. 2 + 2 = 4. 4 + 4 = 8. " * 9) <= 0.2
    assert score("red 7 blue 3 green 12 19 " * 5) < 0.5
    # Every number at once is no conclusion.
    assert check("So " + " ".join(map(str, range(40))) + ".", FACTS, SUM, "19").conclusion == 0.0


def test_a_conclusion_must_follow():
    trace = "red = 60, green = 61. 60 + 61 = 121. So the answer is 125."
    facts = [{"label": "red", "value": 60}, {"label": "green", "value": 61}]
    checked = check(trace, facts, SUM, "121")
    assert checked.conclusion == 1.0  # within the scorer's 5 %
    assert checked.faults
    assert checked.score < 0.9
    both = check("red = 7, blue = 3. 7 > 3, so yes.\nFinal Answer: no", FACTS, "Is red above blue?", "no")
    assert both.conclusion == 0.0
    assert both.faults


def test_without_facts():
    question = "How much do both cost?"
    full = check("One costs 5 and the other 6. 5 + 6 = 11. So 11.", None, question, "11")
    assert full.coverage is None
    assert full.score == pytest.approx(1.0)
    assert check("5 + 6 = 12. So 11.", None, question, "11").score < 0.6
    assert check("So 11.", None, question, "11").score < 0.5
    assert check("", None, question, "11").score == 0.0


def test_facts_as_objects():
    facts = {
        "description": "a street",
        "objects": [
            {"name": "car", "attributes": ["red", "parked"], "position": "left"},
            {"name": "dog", "attributes": ["brown"], "position": "in front of the car"},
        ],
    }
    question = "What colour is the car?"
    good = check("The car on the left is parked and red. So the answer is red.", [facts], question, "red")
    bare = check("The answer is red.", [facts], question, "red")
    assert good.faults == bare.faults == ()
    assert good.coverage == 1.0
    assert good.score > 0.9
    assert bare.score <= 0.2
    assert check("The dog is brown. So brown.", facts, question, "red").score < 0.2  # type: ignore[arg-type]


def test_forms_of_facts():
    wide = [{"Year": 2019, "north": 5.5, "south": "4.0"}, {"Year": 2020, "north": 8, "south": "-"}]
    assert [(cell.name, cell.number) for cell in read(wide).cells] == [
        ("north 2019", 5.5), ("south 2019", 4), ("north 2020", 8),
    ]  # fmt: skip
    assert [cell.value for cell in read([{"label": "a", "value": "1,200"}, {"label": "b", "value": "12%"}]).cells] == [
        1200, 12,
    ]  # fmt: skip
    assert not any(read(facts).cells for facts in (None, "red", [3, None], {}))
    assert [cell.number for cell in read([{"label": "a", "value": float("nan")}]).cells] == [None]
    assert read([{"name": "red", "attributes": ["value: 7"]}]).cells[0].value == 7


def test_needed_rows():
    table = read(SALES)
    assert needed_rows(table, table.fold("What is the sum of north 2019 and south 2021?")) == [0, 5]
    assert needed_rows(table, table.fold("Which year is the highest for south?")) == [3, 4, 5]
    assert needed_rows(table, table.fold("What is the total?")) == list(range(6))
    assert needed_rows(table, table.fold("How much was sold in the north in 2020?")) == [1]


HOSTILE = (
    lambda n: "9" * 5 * n + " = 7.",
    lambda n: "(" * 3 * n + "1" + ")" * 3 * n + " + 1 = 2.",
    lambda n: "1 + " * 2 * n + "1 = 2001.",
    lambda n: "red = " * 2 * n,
    lambda n: "the " * 4 * n + "red is 7",
    lambda n: "red is the a the of value " * n + "7",
    lambda n: "= = = < > < > 7 < red > = 5" * (n // 100),
    lambda n: "red, blue and " * n + "green are " + "7, 3 and " * n + "12",
    lambda n: "\ue000 = 7. \x00\ud800 red = \u0667." * (n // 100),
    lambda n: "7 / 0 = 1. 1e999 = 7. -- 7 - - 3 = 10." * (n // 100),
    lambda n: "so " * 3 * n,
    lambda n: "largest " * 2 * n + "12 " * (n // 2),
    lambda n: "answer is " * 2 * n,
    lambda n: "7" + " million" * 2 * n,
    lambda n: "3 bars " * 2 * n + "are above 5",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_stalls(text):
    def judged(size):
        assert 0.0 <= check(text(size), FACTS, SUM, "19").score <= 1.0

    assert times_the_work(judged, 1000) <= MOST_TIMES_THE_WORK


def test_noise_is_judged():
    rng = Random("noise")
    pieces = re.findall(
        r"\S+", "red blue 7 3 12 19 = + - / ( ) , . : is the of for so largest than and % above answer ? -"
    )
    pieces.append("\n")
    for _ in range(400):
        trace = " ".join(rng.choice(pieces) for _ in range(rng.randrange(60)))
        checked = check(trace, FACTS, SUM, "19")
        assert 0.0 <= checked.score <= 1.0
        assert checked == check(trace, FACTS, SUM, "19")


def test_odd_labels():
    facts = [
        {"label": "Yes", "value": 40}, {"label": "No", "value": 60},
        {"label": "18-29", "value": 33}, {"label": "May", "value": 5}, {"label": "U.S. (net)*", "value": 12},
        {"label": "5", "value": 9},
    ]  # fmt: skip
    said = "Yes = 40, No = 60, 18-29 = 33, May = 5, U.S. (net)* = 12, 5 = 9. We may say no. So 60."
    checked = check(said, facts, "What is the value for No?", "60")
    assert checked.faults == ()
    assert checked.conclusion == 1.0
    assert check("18-29 = 34.", facts, "What?", "34").faults


# ------------------------------------------------------------------------------------- lemmas, rewards


def test_lemma_f1():
    assert lemma_f1("The bars are rising.", "the bar is rising") == 1.0
    assert lemma_f1("", "red") == lemma_f1("red", "") == lemma_f1("the of", "the of") == 0.0
    assert lemma_f1("red", "blue") == 0.0
    assert lemma_f1("red red red blue", "red green") == pytest.approx(0.5)
    assert lemma_f1("The value is 1,200.", "1200 values") == 1.0
    assert lemmas("Countries added 3 categories, adding stopped boxes") == lemmas(
        "country add 3 category, add stop box"
    )
    assert lemma_f1("a b", "b a") == lemma_f1("b a", "a b")


def completion(reasoning):
    return Completion(reasoning or "", Parsed(reasoning, "19", True), 20, True, 100)


def test_rewards():
    example = Example("1", SUM, "19", reasoning="red = 7, green = 12. 7 + 12 = 19.", facts=FACTS)
    told = completion(example.reasoning)
    assert thinking(told, example) == pytest.approx(1.0)
    assert thinking_lemma(told, example) == pytest.approx(1.0)
    assert thinking(completion(None), example) == thinking_lemma(completion(None), example) == 0.0
    bare = Example("2", SUM, "19", reasoning="red = 7, green = 12. 7 + 12 = 19.")
    assert thinking(completion("red = 7"), bare) == lemma_f1("red = 7", bare.reasoning)
    nothing = Example("3", SUM, "19")
    assert thinking_lemma(told, nothing) == 0.0
    assert thinking(told, nothing) == pytest.approx(1.0)  # its own arithmetic and conclusion


def test_free_text_raises_few_alarms(shared):
    """Traces that a large model wrote about real charts: what is not understood is no fault."""
    lines = (shared / "chartqa" / "items.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row.get("hint") and row["kind"] == "augmented"]
    checked = [check(row["hint"], None, row["question"], row["answer"]) for row in rows]
    alarms = sum(bool(each.faults) for each in checked)
    ends = sum(each.conclusion == 1.0 for each in checked)
    print(f"ChartQA hints: {alarms} of {len(rows)} with a fault, {ends} end in the answer")
    assert alarms <= 0.02 * len(rows)
    assert ends >= 0.8 * len(rows)


def test_a_table_s_text_is_facts_too():
    """ChartQA's tables: a trace is held against them as against rows."""
    text = "Entity: red | blue | green & Votes: 7 | 3 | 12"
    question, answer = "How much higher is red than blue?", "4"
    for trace in ("red = 7, blue = 3. 7 - 3 = 4.", "red = 8, blue = 3. 8 - 3 = 5.", "red is 7. So 4."):
        assert check(trace, text, question, answer) == check(trace, FACTS, question, answer)
    several = "Year: 2019 | 2020 & north: 5.5 | 8 & south: 4 | nan"
    assert [(cell.series, cell.label, cell.text) for cell in read(several).cells] == [
        ("north", "2019", "5.5"), ("south", "2019", "4"), ("north", "2020", "8"),
    ]  # fmt: skip
    gaps = "Year: 2013 | 2014 | 2015 & Values: 0 | 55 | 0"  # read off a picture: a zero is a mark not found
    assert [cell.label for cell in read(gaps).without_gaps().cells] == ["2014"]
    assert read("no table at all").cells == ()

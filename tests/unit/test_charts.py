"""The chart generator: right answers, checkable traces, the same rows for the same seed."""

from __future__ import annotations

import hashlib
import json
import re
from fractions import Fraction
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from toasterft.data import charts, sources
from toasterft.data.charts import style, text, vocabulary
from toasterft.data.charts.phrases import tokens
from toasterft.errors import DataError
from toasterft.scoring.traces import strict_faults

SEEDS = (11, 12, 13)
ITEMS = 250  # per seed and difficulty

# sha256 over the three JSON Lines files of 12 charts from seed 5. A change means that published
# datasets can no longer be made again: raise GENERATOR_VERSION when it is meant.
GOLDEN = {
    "core": "719d7a6bd3a5c8afeeb0a38859b21901e806d017789e23c258a253e94e7eaf5b",
    "full": "a0c6a8458ca9fb9efbe1f0fb27309606cd4fbde2c962a78c0e07f2d5ac75a6e2",
    "hard": "35b3fb0f332c5af53c3842bde85e9715d41516eaec2c7ccf738232141a2566ee",
}


def items(difficulty, seed, count=ITEMS, **more):
    return list(islice(charts.stream(seed, difficulty, **more), count))


def value(fact):
    return Fraction(str(fact["value"]))


def name(fact):
    return " ".join(str(fact[part]) for part in ("series", "label") if part in fact)


def plain(number):
    """A Fraction as a decimal without needless digits."""
    return str(number.numerator) if number.denominator == 1 else str(float(number))


def answer_from_facts(item):
    """The answer worked out from the question's words and the table alone."""
    facts, question, kind = item.facts, item.question, item.kind
    table = {name(fact): value(fact) for fact in facts}
    found = sorted(
        (match.start(), row)
        for row in table
        for match in [re.search(rf"(?<!\w){re.escape(row)}(?!\w)", question)]
        if match
    )
    named = [row for _, row in found]
    scope = facts
    scoped = re.search(r" for (\w+)", question)
    if scoped and kind in ("highest", "lowest", "sum", "count_above", "trend") and "series" in facts[0]:
        scope = [fact for fact in facts if fact["series"] == scoped[1]]
        assert scope
    values = [value(fact) for fact in scope]
    if kind == "transcribe":
        return ", ".join(f"{name(fact)} = {fact['value']}" for fact in facts)
    if kind == "count":
        part = "series" if "series" in question else "label"
        return str(len({fact[part] for fact in facts}))
    if kind == "lookup":
        (row,) = named
        return plain(table[row])
    if kind in ("highest", "lowest"):
        best = max(values) if kind == "highest" else min(values)
        (label,) = (str(fact["label"]) for fact in scope if value(fact) == best)  # no ties
        return label
    if kind == "difference":
        a, b = named
        return plain(abs(table[a] - table[b]))
    if kind == "sum":
        return plain(
            sum(values) if "all" in question or "total" in question else sum(table[r] for r in named)
        )
    if kind == "ratio":
        low, high = sorted(table[row] for row in named)
        assert (high / low * 10).denominator == 1
        return plain(high / low)
    if kind == "count_above":
        bound = Fraction(re.search(r"(?:above|than) (\d+(?:\.\d)?)", question)[1])
        assert bound not in values
        return str(sum(number > bound for number in values))
    if kind == "compare":
        a, b = (table[row] for row in named)
        assert a != b
        return "yes" if (a > b) == bool(re.search("higher|greater", question)) else "no"
    if kind == "trend":
        assert len(set(values)) > 1
        if values == sorted(set(values)):
            return "rising"
        return "falling" if values[::-1] == sorted(set(values)) else "neither"
    raise AssertionError(kind)


@pytest.mark.parametrize("difficulty", charts.DIFFICULTIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_answers_and_traces(difficulty, seed):
    seen = set()
    for chart, item in items(difficulty, seed):
        expected = answer_from_facts(item)
        # One-decimal charts write 3.0 where plain() writes 3; the number is what counts.
        number = re.fullmatch(r"\d+(\.\d)?", item.answer)
        is_label = item.kind in ("highest", "lowest")
        assert (plain(Fraction(item.answer)) if number and not is_label else item.answer) == expected, item
        for trace in (item.simplified, item.structured):
            assert strict_faults(trace, item.facts, item.question, item.answer) == [], trace
        headings = [line.partition(":")[0] for line in item.structured.splitlines()]
        assert tuple(headings) == charts.HEADINGS
        assert charts.text_table(chart) == charts.facts_table(item.facts)
        seen.add(item.kind)
    assert seen == set(charts.kinds_for(difficulty))


def test_core_traces_transcribe_first():
    for chart, item in items("core", 1):
        assert item.simplified.startswith(charts.text_table(chart) + ".")
        assert re.search(r"\d\.\d", item.simplified) is None


def test_core_fits_its_vocabulary():
    known = set(charts.core_vocabulary())
    assert len(known) == len(charts.core_vocabulary()) < 300
    for chart, item in items("core", 2, 1500):
        for said in (item.question, item.answer, item.simplified, item.structured, charts.text_table(chart)):
            assert set(tokens(said)) <= known


FAULTY = (
    ("red = 7, blue = 3, green = 12. The largest is 12, so green.", "green", True),
    ("red = 8, blue = 3, green = 12. The largest is 12, so green.", "green", False),  # number
    ("rod = 7, blue = 3, green = 12. The largest is 12, so green.", "green", False),  # label
    ("red = 3, blue = 7, green = 12. The largest is 12, so green.", "green", False),  # swapped
    ("red = 7, blue = 3. The largest is 7, so red.", "red", False),  # a row left out
    ("red = 7, blue = 3, green = 12. The largest is 12, so red.", "red", False),  # pick
    ("red = 7, blue = 3, green = 12. The smallest is 7, so red.", "red", False),
    ("red = 7, blue = 3, green = 12. The largest is 12, so green.", "red", False),  # conclusion
    ("red = 7, green = 12. 7 + 12 = 19.", "19", True),
    ("red = 7, green = 12. 7 + 12 = 18.", "18", False),  # arithmetic
    ("red = 7, green = 12. 7 + 11 = 18.", "18", False),  # a number from nowhere
    ("red = 7, green = 12. 7 + 12 = 19.", "9", False),  # part of a number is no answer
    ("red = 7, green = 12. 12 - 7 = 5.", "5", True),
    ("red = 7, green = 12. 12 - 7 = 4.", "4", False),
    ("blue = 3, green = 12. 12 / 3 = 4.", "4", True),
    ("blue = 3, green = 12. 12 / 3 = 5.", "5", False),
    ("red = 7, blue = 3. 7 > 3, so yes.", "yes", True),
    ("red = 7, blue = 3. 7 < 3, so no.", "no", False),
    ("red = 7, blue = 3, green = 12. Above 5: red, green. So 2.", "2", True),
    ("red = 7, blue = 3, green = 12. Above 5: green. So 1.", "1", False),
    ("red = 7, blue = 3, green = 12. Above 5: red, green. So 3.", "3", False),
    ("red = 7, blue = 3, green = 12. There are 3 bars, so 3.", "3", True),
    ("red = 7, blue = 3, green = 12. There are 4 bars, so 4.", "4", False),
    ("red = 7, blue = 3, green = 12. blue is 3.", "3", True),
    ("red = 7, blue = 3, green = 12. blue is 7.", "7", False),
    ("red = 7, blue = 3, green = 12. 7 > 3 < 12, so neither.", "neither", True),
    ("red = 7, blue = 3, green = 12. 3 < 12, so rising.", "rising", False),
    ("red = 7, red = 7, green = 12. 7 + 12 = 19.", "19", False),  # one reading in another's place
    ("red = 7, blue = 3, green = 12. so green.", "green", False),  # the step is missing
    ("red = 7, blue = 3, green = 12. Above 6: red, green. So 2.", "2", False),  # a bound from nowhere
    ("red = 7, blue = 3, green = 12. In order: 3, 7, 12. The second largest is 7, so red.", "red", True),
    ("red = 7, blue = 3, green = 12. In order: 3, 7. The middle is 7.", "7", False),
    ("red = 7, blue = 3, green = 12. In order: 3, 7, 12. The middle is 12.", "12", False),
    ("red = 7, blue = 3, green = 12. 7 + 3 + 12 = 22. 22 / 3 ≈ 7.33.", "7.33", True),
    ("red = 7, blue = 3, green = 12. 7 + 3 + 12 = 22. 22 / 3 ≈ 7.34.", "7.34", False),
    ("red = 7, blue = 3, green = 12. 7 + 3 + 12 = 22. 22 / 4 = 5.5.", "5.5", False),
    ("red = 7, blue = 3, green = 12. (7 + 3 + 12) / 3 ≈ 7.33.", "7.33", True),
    ("red = 7, blue = 3, green = 12. There are 3 labels: red, green. So 3.", "3", False),
    ("It looks as if it were 3.", "3", False),  # not checkable
    ("3", "3", False),
    ("", "3", False),
    ("9" * 5000 + " = 7.", "7", False),
    ("red = 7. 7 / 0 = 7.", "7", False),
)


@pytest.mark.parametrize(("trace", "answer", "ok"), FAULTY)
def test_strict_faults(trace, answer, ok):
    facts = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}, {"label": "green", "value": 12}]
    faults = strict_faults(trace, facts, "How many bars are above 5?", answer)
    assert (faults == []) is ok, faults


@pytest.mark.parametrize("difficulty", charts.DIFFICULTIES)
def test_planted_faults_are_caught(difficulty):
    """Every reading, result and verdict of real traces is changed in turn."""
    planted = 0
    for _, item in items(difficulty, 21):
        for trace in (item.simplified, item.structured):
            body = trace.find("Observations") + 1
            for found in re.finditer(r"(?<= = )\d+(\.\d)?", trace):
                if found.start() < body:
                    continue
                changed = trace[: found.start()] + "9" + trace[found.start() :]
                assert strict_faults(changed, item.facts, item.question, item.answer), changed
                planted += 1
            assert strict_faults(trace, item.facts, item.question, item.answer + "7")
            read = next(fact for fact in item.facts if f"{name(fact)} = " in trace)
            others = [fact for fact in item.facts if fact is not read]
            assert strict_faults(trace, others, item.question, item.answer)
        if item.kind in ("difference", "sum", "ratio"):
            # Consistent to the end, but worked out wrongly.
            wrong = item.answer + "1" if "." not in item.answer else "1" + item.answer
            changed = item.simplified.replace(f"= {item.answer}.", f"= {wrong}.")
            (fault,) = strict_faults(changed, item.facts, item.question, wrong)
            assert fault.startswith("wrong: ")
        swaps = {"rising": "falling", "falling": "neither", "neither": "rising"}
        if item.kind == "trend":
            changed = item.simplified.replace(f"so {item.answer}", f"so {swaps[item.answer]}")
            assert len(strict_faults(changed, item.facts, item.question, swaps[item.answer])) == 1
    assert planted > 300


def test_structured_headings_are_checked():
    _, item = items("core", 3, 1)[0]
    lines = item.structured.splitlines()
    for changed in (lines[:-1], [lines[1], lines[0], *lines[2:]], [*lines, lines[-1]], ["Well.", *lines]):
        assert strict_faults("\n".join(changed), item.facts, item.question, item.answer)
    other = "\n".join([*lines[:-1], "Final Answer: nothing"])
    assert strict_faults(other, item.facts, item.question, item.answer)


def test_colours_kinds_and_words_of_hard_are_its_own():
    core, full, hard = (charts.CHART_KINDS[difficulty] for difficulty in charts.DIFFICULTIES)
    assert not set(hard) & {*core, *full}
    known = {*style.CORE_COLOURS.values(), *(c for palette in style.FULL_PALETTES for c in palette)}
    novel = {c for palettes in style.HARD_PALETTES.values() for palette in palettes for c in palette}
    assert not novel & known
    assert not set(style.HARD_THEMES) & {*style.FULL_THEMES, "plain"}
    full_words = {
        *(w for pool in vocabulary.FULL_POOLS for w in pool.words),
        *sum(vocabulary.FULL_SERIES, ()),
    }
    hard_words = {
        *(w for pool in vocabulary.HARD_POOLS for w in pool.words),
        *sum(vocabulary.HARD_SERIES, ()),
    }
    assert not full_words & hard_words
    used = {charts.draw(chart).getpixel((0, 0)) for chart, _ in items("hard", 4, 30)}
    assert used <= {style.THEMES[theme].page for theme in style.HARD_THEMES}


def test_font_is_small_and_licensed():
    assert text.FONT_FILE.stat().st_size < 60_000
    assert "Permission is hereby granted" in text.FONT_LICENCE_FILE.read_text(encoding="utf-8")
    wide = {
        pool_word for pool in (*vocabulary.FULL_POOLS, *vocabulary.HARD_POOLS) for pool_word in pool.words
    }
    assert all(text.width_px(word, 9) > 4 for word in wide)


@pytest.mark.parametrize("kind", charts.CHART_KINDS["core"])
def test_core_values_can_be_measured(kind):
    """A bar's length in pixels gives its value: five pixels a unit, whatever the number of bars."""
    rng, seen = Random("measure"), 0
    while seen < 40:
        chart = charts.make_chart(rng, "core")
        if chart.kind != kind:
            continue
        seen += 1
        image = charts.draw(chart)
        width, height = image.size
        pixels = image.load()
        for colour, number in zip(chart.colours, chart.values[0], strict=True):
            spots = [(x, y) for x in range(width) for y in range(height) if pixels[x, y] == colour]
            # The legend's swatch is 8 x 8 px; the bar is what lies on the plot's side of it.
            bar = [s for s in spots if (s[0] < 76 if kind == "bar" else s[1] < 84)]
            along, across = (1, 0) if kind == "bar" else (0, 1)
            length = len({spot[along] for spot in bar})
            assert round(length / 5) == number
            assert abs(length - 5 * number) <= 1
            assert len({spot[across] for spot in bar}) >= 6


@pytest.mark.parametrize("difficulty", charts.DIFFICULTIES)
@pytest.mark.parametrize("size_px", [(64, 64), (768, 64), (64, 768), (768, 768), (129, 97)])
def test_any_size_can_be_drawn(difficulty, size_px):
    rng = Random("sizes")
    for _ in range(40):
        image = charts.draw(charts.make_chart(rng, difficulty, size_px))
        assert image.size == size_px
        assert image.mode == "RGB"


def test_bad_arguments_are_explained(tmp_path):
    rng = Random(0)
    with pytest.raises(DataError, match="64 to 768"):
        charts.make_chart(rng, "core", (63, 128))
    with pytest.raises(DataError, match="did you mean hard"):
        charts.make_chart(rng, "hrad")
    with pytest.raises(DataError, match="no question kind 'trend'"):
        next(charts.stream(0, "core", ["trend"]))
    chart = charts.make_chart(rng, "core")
    with pytest.raises(DataError, match="did you mean lookup"):
        charts.make_items(chart, rng, ["lokup"])
    for wrong in ({"n": 0}, {"per_chart": 0}, {"style": "long"}, {"splits": (0.5, 0.1, 0.1)}, {"kinds": []}):
        with pytest.raises(DataError):
            charts.write_dataset(tmp_path / "x", **{"n": 3, "seed": 0, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_make_items_gives_different_questions():
    rng = Random("several")
    for _ in range(30):
        chart = charts.make_chart(rng, "full")
        several = charts.make_items(chart, rng, per_chart=6)
        assert len({item.kind for item in several}) == 6
        lookups = charts.make_items(chart, rng, ["lookup"], per_chart=3)
        assert len({item.question for item in lookups}) == len(lookups) >= 1


def test_streams_repeat_and_differ():
    assert items("full", 1, 20) == items("full", 1, 20)
    assert items("full", 1, 20) != items("full", 2, 20)
    chart, _ = items("core", 1, 1)[0]
    assert charts.draw(chart).tobytes() == charts.draw(chart).tobytes()


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("difficulty", charts.DIFFICULTIES)
def test_the_same_seed_writes_the_same_bytes(tmp_path, difficulty):
    first = charts.write_dataset(tmp_path / "a", 12, 5, difficulty)
    second = charts.write_dataset(tmp_path / "b", 12, 5, difficulty)
    other = charts.write_dataset(tmp_path / "c", 12, 6, difficulty)
    assert content(first) == content(second) != content(other)
    data = b"".join((first / f"{split}.jsonl").read_bytes() for split in ("train", "validation", "test"))
    assert hashlib.sha256(data).hexdigest() == GOLDEN[difficulty]


def test_a_dataset_folder(tmp_path):
    calls = []
    out = charts.write_dataset(
        tmp_path / "new" / "set",
        60,
        1,
        style="structured",
        progress=lambda done, all_: calls.append((done, all_)),
    )
    assert calls[-1] == (60, 60)
    assert len(calls) == 60
    assert [path.name for path in out.parent.iterdir()] == ["set"]
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["licence"] == "CC0-1.0"
    assert card["charts"] == 60
    assert card["seed"] == 1
    rows = []
    for split, count in (("train", 48), ("validation", 6), ("test", 6)):
        data = (out / f"{split}.jsonl").read_bytes()
        assert hashlib.sha256(data).hexdigest() == card["sha256"][f"{split}.jsonl"]
        part = [json.loads(line) for line in data.decode().splitlines()]
        assert len({row["image"] for row in part}) == count == card["splits"][split]["charts"]
        rows += part
    assert len({row["id"] for row in rows}) == len(rows) == sum(card["kinds"].values()) == 180
    assert list(rows[0]) == [
        "id", "image", "question", "answer", "reasoning", "kind", "facts", "reasoning_structured",
    ]  # fmt: skip
    for row in rows:
        assert (out / row["image"]).is_file()
        assert row["reasoning"] == row["reasoning_structured"]
        assert not strict_faults(row["reasoning"], row["facts"], row["question"], row["answer"])
    assert not sources.load(str(out)).reading.unread
    assert len(list((out / "images").iterdir())) == 60
    bare = charts.write_dataset(tmp_path / "bare", 5, 1, style="none", kinds=["sum"], splits=(1, 0, 0))
    row = json.loads((bare / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["reasoning"] is None
    assert row["kind"] == "sum"
    assert row["reasoning_structured"]


def test_splits_share_no_table(tmp_path):
    out = charts.write_dataset(tmp_path / "set", 400, 2, per_chart=1, size_px=(64, 64))
    parts = [charts.dataset_keys(out, [split]) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [320, 40, 40]
    assert len(set.union(*parts)) == 400 == len(charts.dataset_keys(out))


def test_a_table_counts_once_however_it_is_shown():
    facts = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}]
    assert charts.facts_key(facts) == charts.facts_key(facts[::-1])
    assert charts.facts_key(facts) != charts.facts_key(
        [{"label": "red", "value": 3}, {"label": "blue", "value": 7}]
    )


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for target in ("full", "file"):
        with pytest.raises(DataError) as caught:
            charts.write_dataset(tmp_path / target, 3, 0)
        assert caught.value.next_step
    assert (tmp_path / "full" / "notes.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "empty").mkdir()
    assert charts.write_dataset(tmp_path / "empty", 3, 0) == tmp_path / "empty"


def test_nothing_is_left_behind_by_a_failure(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        charts.write_dataset(tmp_path / "set", 3, 0, progress=stop)
    assert list(Path(tmp_path).iterdir()) == []

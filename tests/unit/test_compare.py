"""Paired comparisons: the statistics against known values and simulations, the pairing, and the command."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy
import pytest

from toasterft.errors import UserError
from toasterft.evaluation.compare import compare
from toasterft.scoring.statistics import ALPHA, difference, holm, items_needed, mcnemar

# -------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (3, 3), (0, 5), (0, 6), (2, 10), (8, 6), (1, 13)]
)
def test_mcnemar_counts_coins(first: int, second: int) -> None:
    tosses = first + second
    off = abs(2 * first - tosses)
    outcomes = [abs(2 * sum(coins) - tosses) >= off for coins in product((0, 1), repeat=tosses)]
    assert mcnemar(first, second) == pytest.approx(sum(outcomes) / len(outcomes))
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_known_values_and_large_counts() -> None:
    assert mcnemar(2, 10) == pytest.approx(0.03857421875)
    assert mcnemar(8, 14) == pytest.approx(0.286279, abs=1e-6)
    assert 0 < mcnemar(3000, 3400) < 1e-6
    assert mcnemar(20_000, 20_000) == 1.0


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]


def test_the_interval_is_that_of_resampled_items() -> None:
    scores, rng = [-1] * 12 + [1] * 30 + [0] * 158, random.Random(5)
    means = sorted(sum(rng.choices(scores, k=200)) / 200 for _ in range(3000))
    found = difference(12, 30, 200, seed=0)
    assert found["value"] == pytest.approx(0.09)
    assert (found["low"], found["high"]) == pytest.approx((means[75], means[2925]), abs=0.011)
    assert found == difference(12, 30, 200, seed=0)


def test_the_interval_covers_the_truth() -> None:
    rng = numpy.random.default_rng(11)
    covered = 0
    for first, second, _ in rng.multinomial(200, [0.1, 0.2, 0.7], size=400):
        found = difference(int(first), int(second), 200, seed=1)
        covered += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= covered / 400 <= 0.975


def test_no_variation_is_no_certainty() -> None:
    assert difference(0, 0, 60, seed=0) == {"value": 0.0, "low": -0.05, "high": 0.05}
    assert difference(0, 60, 60, seed=0) == pytest.approx({"value": 1.0, "low": 0.9, "high": 1.0})
    assert difference(60, 0, 60, seed=0) == pytest.approx({"value": -1.0, "low": -1.0, "high": -0.9})
    assert difference(0, 0, 1, seed=0) == {"value": 0.0, "low": -1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("first", "second", "n"), [(8, 14, 200), (30, 40, 200), (45, 55, 100), (2, 10, 100), (0, 3, 50)]
)
def test_so_many_items_would_do(first: int, second: int, n: int) -> None:
    needed = items_needed(first, second, n)
    assert needed is not None

    def power(count: int) -> float:
        shares = [first / n, second / n, 1 - (first + second) / n]
        tables = numpy.random.default_rng(3).multinomial(count, shares, size=1500)
        p = {(int(a), int(b)): 0.0 for a, b, _ in tables}
        p = {pair: mcnemar(*pair) for pair in p}
        return sum(p[int(a), int(b)] < ALPHA for a, b, _ in tables) / len(tables)

    assert power(needed) >= 0.76
    assert power(needed // 2) < 0.8


def test_no_number_shows_no_difference() -> None:
    assert items_needed(7, 7, 100) is None
    assert items_needed(0, 0, 100) is None
    assert (items_needed(0, 100, 100) or 0) >= 6  # five heads in a row are no proof


# --------------------------------------------------------------------------------------- pairing


def row(number: int, right: bool, **more: Any) -> dict[str, Any]:
    return {
        "id": f"q{number}", "item": f"digest{number}", "kind": ("sum", "lookup")[number % 2],
        "images": [f"{number}.png"], "question": f"How much is {number}?", "gold": str(number),
        "answer": str(number if right else -1), "correct": {"robust": right, "relaxed": False}, **more,
    }  # fmt: skip


def stored(folder: Path, rows: list[dict[str, Any]], status: str = "done") -> str:
    folder.mkdir(parents=True)
    record = {"id": folder.name, "method": "eval", "status": status}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "recipe.yaml").write_text(
        "method: eval\nmodel: tiny\ndata: charts\nstep: false\nsuffix: null\n"
    )
    (folder / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(folder)


def planted(
    tmp_path: Path, first: int = 10, second: int = 30, both: int = 100, neither: int = 60
) -> list[str]:
    """Two runs with so many items that only one, both or none got right."""
    verdicts = (
        [(True, False)] * first
        + [(False, True)] * second
        + [(True, True)] * both
        + [(False, False)] * neither
    )
    rows = [[row(number, pair[place]) for number, pair in enumerate(verdicts)] for place in (0, 1)]
    random.Random(0).shuffle(rows[1])  # the order in the file says nothing
    return [stored(tmp_path / "one", rows[0]), stored(tmp_path / "two", rows[1])]


def test_items_are_paired_whatever_their_order(tmp_path: Path) -> None:
    found = compare(planted(tmp_path), tmp_path)
    (pair,) = found["pairs"]
    assert (found["n"], pair["only_first_right"], pair["only_second_right"]) == (200, 10, 30)
    assert pair["difference"]["value"] == pytest.approx(0.1)
    assert pair["p"] == pytest.approx(mcnemar(10, 30))
    assert "p_holm" not in pair
    assert found["warnings"] == []
    assert {kind: row["n"] for kind, row in found["by_kind"].items()} == {"lookup": 100, "sum": 100}
    assert found["differing"]["count"] == 40
    assert len(found["differing"]["items"]) == 5
    assert found == compare([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path)  # seeded


def test_only_shared_items_count_and_that_is_said(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [row(number, True) for number in range(30)])
    # The same id with another gold is another item.
    two = stored(tmp_path / "two", [row(n, n % 3 == 0) for n in range(20)] + [row(25, True, item="other")])
    found = compare([one, two], tmp_path)
    assert found["n"] == 20
    assert [run["left_out"] for run in found["runs"]] == [10, 1]
    assert found["notes"] == [
        "A: 10 of 30 answers left out: not every run answered the question",
        "B: 1 of 21 answers left out: not every run answered the question",
    ]


def test_answers_without_a_digest_are_matched_by_what_they_ask(tmp_path: Path) -> None:
    old = [row(number, True) for number in range(10)]
    for each in old:
        del each["item"]
    old[0]["gold"] = "7"  # the label was mended since
    one, two = (
        stored(tmp_path / "one", old),
        stored(tmp_path / "two", [row(number, True) for number in range(10)]),
    )
    found = compare([one, two], tmp_path)
    assert found["n"] == 9
    assert any("older than item digests" in note for note in found["notes"])


def test_a_question_that_stands_twice_is_two_items(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [row(1, True), row(1, True), row(2, True)])
    two = stored(tmp_path / "two", [row(1, True), row(2, True), row(1, False)])
    (pair,) = compare([one, two], tmp_path)["pairs"]
    assert (pair["only_first_right"], pair["only_second_right"]) == (1, 0)


def test_training_samples_and_cut_lines_are_passed_over(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [row(1, True), {"step": 3, "id": "q1", "text": "…", "rewards": {}}])
    with open(tmp_path / "one" / "samples.jsonl", "a") as file:
        file.write('{"id": "q9", "corr')
    assert compare([one, stored(tmp_path / "two", [row(1, False)], "failed")], tmp_path)["notes"] == [
        "B did not finish (failed): the answers it got to are used"
    ]


def test_three_runs_are_corrected_for(tmp_path: Path) -> None:
    names = planted(tmp_path)
    names.append(stored(tmp_path / "three", [row(number, number % 2 == 0) for number in range(200)]))
    found = compare(names, tmp_path)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("A", "B"),
        ("A", "C"),
        ("B", "C"),
    ]
    assert [pair["p_holm"] for pair in found["pairs"]] == holm([pair["p"] for pair in found["pairs"]])


def test_too_few_items_are_warned_of(tmp_path: Path) -> None:
    (warning,) = compare(planted(tmp_path / "a", 8, 14, 100, 78), tmp_path)["warnings"]
    assert warning.startswith(
        "B − A: 200 items are too few to tell; about 1,000 would show a difference of 3.0 points"
    )
    (warning,) = compare(planted(tmp_path / "b", 2, 11, 100, 87), tmp_path)["warnings"]
    assert "show only what happens to look large" in warning
    assert compare(planted(tmp_path / "c", 9, 9), tmp_path)["warnings"] == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: [stored(folder / "one", [row(1, True)])], "two or more different runs"),
        (lambda folder: [stored(folder / "one", [row(1, True)])] * 2, "two or more different runs"),
        (lambda folder: [stored(folder / "one", [row(1, True)]), stored(folder / "two", [])], "no scored answers"),
        (lambda folder: [stored(folder / "one", [row(1, True)]), stored(folder / "two", [row(2, True)])], "in common"),
        (lambda folder: [stored(folder / "one", [row(1, True)]), str(folder / "gone")], "no such run"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_explained(tmp_path: Path, make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        compare(make(tmp_path), tmp_path)


def test_an_unknown_scorer_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="relaxed, robust"):
        compare(planted(tmp_path), tmp_path, scorer="exact")


# ------------------------------------------------------------------------------------- the command


def test_the_command_prints_json(run_cli: Any, tmp_path: Path) -> None:
    done = run_cli("compare", *planted(tmp_path), "--json", "--differ", 2, "--scorer", "relaxed")
    assert done.code == 0, done.err
    found = done.json()
    assert (found["scorer"], found["pairs"][0]["p"], found["differing"]["items"]) == ("relaxed", 1.0, [])


def test_the_command_prints_tables(run_cli: Any, tmp_path: Path) -> None:
    shown = run_cli("compare", *planted(tmp_path, 8, 14, 100, 78), "--differ", 3).out
    for expected in (
        "A  one",
        "B − A",
        "+3.0 (",
        "McNemar",
        "0.286",
        "too few to tell",
        "lookup",
        "22 questions on which",
    ):
        assert expected in shown
    assert shown.count("✗") == 3  # two columns of headings hold ✓
    assert "✗" not in run_cli("compare", tmp_path / "one", tmp_path / "two", "--differ", 0).out


def test_markdown_holds_whatever_a_model_wrote(run_cli: Any, tmp_path: Path) -> None:
    hostile = "a|b\n| c | [red]d[/red] \x1b[31m `e` " + "x" * 200
    one = stored(tmp_path / "one", [row(1, True), row(2, False, answer=hostile)])
    two = stored(tmp_path / "two", [row(1, True), row(2, True)])
    for words in (["--markdown"], []):
        done = run_cli("compare", one, two, *words)
        assert done.code == 0, done.err
        assert "\x1b" not in done.out
        assert "[red]d" in done.out
    tables = [
        line for line in run_cli("compare", one, two, "--markdown").out.splitlines() if line.startswith("|")
    ]
    widths = {line.replace("\\|", "").count("|") for line in tables}
    assert widths == {4, 6, 7}  # runs, pairs and kinds, items: no row has a cell too many


def test_the_command_explains_itself_and_exits_2(run_cli: Any, tmp_path: Path) -> None:
    done = run_cli("compare", *planted(tmp_path)[:1])
    assert done.code == 2
    assert "two or more" in done.err
    assert not list(tmp_path.glob("runs"))


def test_the_command_never_imports_torch(tmp_path: Path) -> None:
    code = (
        f"import sys, toasterft.cli as cli\nsys.argv = ['toasterft', 'compare', *{planted(tmp_path)!r}]\ncli.main()\n"
        "found = {'torch', 'transformers', 'datasets', 'matplotlib'} & set(sys.modules)\nassert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

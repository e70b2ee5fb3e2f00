"""Paired comparison of runs on the same questions: tests, intervals, and the number of questions needed.

Everything is computed from the verdicts that evaluation stored in samples.jsonl: nothing is generated again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from toasterft.errors import UserError
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run
from toasterft.scoring import share
from toasterft.scoring.statistics import ALPHA, POWER, difference, holm, items_needed, mcnemar


@dataclass(frozen=True)
class Answers:
    """The answers of one run, by item."""

    name: str
    folder: Path
    record: dict[str, Any]
    recipe: dict[str, Any]
    """The model, the data, what was added to the questions."""
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Run) -> Answers | None:
        """The scored answers of a run; None where it has none."""
        rows = run.answers()
        return cls(run.id, run.path, run.record, run.recipe, rows) if rows else None

    @property
    def missing(self) -> str:
        """How many answers the record counts, where that is not as many as there are; empty where it agrees."""
        counted, here = (self.record.get("eval") or {}).get("n"), len(self.rows)
        if counted in (None, here):
            return ""
        return f"its record counts {counted:,} answers, {here:,} can be read in {run_folder.SAMPLES_FILE}"

    def by_item(self, *, by_content: bool) -> dict[Hashable, dict[str, Any]]:
        """Rows by item; a question that occurs twice in the data gets one key per occurrence."""
        turns: Counter[Hashable] = Counter()
        found: dict[Hashable, dict[str, Any]] = {}
        for row in self.rows:
            key: Hashable = row["item"] if by_content else _row_key(row)
            found[key, turns[key]] = row
            turns[key] += 1
        return found


def _row_key(row: dict[str, Any]) -> Hashable:
    return row["id"], row["question"], row["gold"], *row.get("images", ())


def load_answers(name: str, runs_dir: Path) -> Answers:
    """The scored answers of a run.

    Raises:
        UserError: no such run, or it has none.
    """
    run = run_folder.open_run(name, runs_dir)
    found = Answers.of(run)
    if found is None:
        raise UserError(
            "this run has no scored answers",
            where=str(run.path),
            why=f"its {run_folder.SAMPLES_FILE} is missing or holds none",
            next_step=f"toasterft eval {name} --data …   and compare the runs it makes",
        )
    return found


def shared(given: Sequence[Answers]) -> list[tuple[dict[str, Any], ...]]:
    """The rows of all runs for every item that all of them answered."""
    found = [run.by_item(by_content=_by_content(given)) for run in given]
    return [tuple(items[key] for items in found) for key in found[0] if all(key in items for items in found)]


def _by_content(given: Sequence[Answers]) -> bool:
    """Whether every answer carries the digest of its item."""
    return all("item" in row for run in given for row in run.rows)


def label(place: int, count: int) -> str:
    """What one of `count` runs is called: A, B, C …"""
    return chr(ord("A") + place) if count <= 26 else str(place + 1)


def compare(
    names: Sequence[str], runs_dir: Path, *, scorer: str = "robust", seed: int = 0, differ: int = 5
) -> dict[str, Any]:
    """`paired` of the runs with these names.

    Raises:
        UserError: as there; no such run, or one without scored answers.
    """
    given = [load_answers(name, runs_dir) for name in names]
    return paired(given, scorer=scorer, seed=seed, differ=differ)


def paired(
    given: Sequence[Answers], *, scorer: str = "robust", seed: int = 0, differ: int = 0
) -> dict[str, Any]:
    """Every pair of runs on the items that all of them answered, JSON-ready.

    Items are the same where question, gold answer, choices and pixels are (`Example.key`); for answers that
    were stored before that key was, where id, question, gold answer and image names are.

    Args:
        scorer: whose verdicts to compare.
        seed: of the bootstrap.
        differ: how many items to list on which the runs disagree.

    Raises:
        UserError: fewer than two different runs, no such verdict, nothing in common.
    """
    if len({run.folder for run in given}) < max(2, len(given)):
        raise UserError(
            "compare takes two or more different runs", next_step="toasterft runs   lists those there are"
        )
    rows = shared(given)
    if not rows:
        raise UserError(
            "these runs have no question in common",
            details=[f"{run.name}: {len(run.rows):,} answers on {run.recipe.get('data')}" for run in given],
            next_step="evaluate them on the same data and split",
        )
    labels = [label(place, len(given)) for place in range(len(given))]
    items = [dict(zip(labels, answers)) for answers in rows]
    right = _verdicts(given, labels, items, scorer)
    pairs = _pairs(right, labels, seed)
    kinds = dict.fromkeys(item[labels[0]].get("kind") for item in items)
    return {
        "scorer": scorer,
        "n": len(items),
        "runs": [
            {
                "label": name,
                "run": run.name,
                "folder": str(run.folder),
                **{key: run.recipe.get(key) for key in ("model", "data", "step", "suffix")},
                "answers": len(run.rows),
                "left_out": len(run.rows) - len(items),
                "score": share(sum(row[name] for row in right), len(items)),
            }
            for name, run in zip(labels, given)
        ],
        "pairs": pairs,
        "by_kind": {
            kind: _of_kind(
                [row for row, item in zip(right, items) if item[labels[0]].get("kind") == kind], seed
            )
            for kind in sorted(kind for kind in kinds if kind is not None)
        },
        "differing": _differing(items, right, labels, differ),
        "notes": _notes(labels, given, len(items)),
        "warnings": [warning for pair in pairs if (warning := _too_few(pair, len(items)))],
    }


Right = list[dict[str, bool]]
"""By item, then by run's label."""


def _verdicts(
    given: Sequence[Answers], labels: Sequence[str], items: Sequence[dict[str, dict[str, Any]]], scorer: str
) -> Right:
    for label, run in zip(labels, given):
        known = set.intersection(*(set(item[label]["correct"]) for item in items))
        if scorer not in known:
            raise UserError(
                f"these answers were not scored by {scorer!r}",
                where=run.name,
                why=f"they have: {', '.join(sorted(known))}",
            )
    return [{label: bool(row["correct"][scorer]) for label, row in item.items()} for item in items]


def _pair(right: Right, first: str, second: str, seed: int) -> dict[str, Any]:
    first_only = sum(row[first] and not row[second] for row in right)
    second_only = sum(row[second] and not row[first] for row in right)
    return {
        "first": first,
        "second": second,
        "difference": difference(first_only, second_only, len(right), seed),
        "only_first_right": first_only,
        "only_second_right": second_only,
    }


def _pairs(right: Right, labels: Sequence[str], seed: int) -> list[dict[str, Any]]:
    pairs = [_pair(right, first, second, seed) for first, second in combinations(labels, 2)]
    for pair in pairs:
        counts = pair["only_first_right"], pair["only_second_right"]
        pair |= {"p": mcnemar(*counts), "items_needed": items_needed(*counts, len(right))}
    if len(pairs) > 1:
        for pair, adjusted in zip(pairs, holm([pair["p"] for pair in pairs])):
            pair["p_holm"] = adjusted
    return pairs


def _of_kind(right: Right, seed: int) -> dict[str, Any]:
    labels = list(right[0])
    return {
        "n": len(right),
        "scores": {label: share(sum(row[label] for row in right), len(right)) for label in labels},
        "pairs": [_pair(right, first, second, seed) for first, second in combinations(labels, 2)],
    }


def _differing(
    items: Sequence[dict[str, dict[str, Any]]], right: Right, labels: Sequence[str], limit: int
) -> dict[str, Any]:
    apart = [(item, row) for item, row in zip(items, right) if len(set(row.values())) > 1]
    return {
        "count": len(apart),
        "items": [
            {
                **{name: item[labels[0]].get(name) for name in ("id", "kind", "images", "question", "gold")},
                "answers": {
                    label: {"answer": item[label]["answer"], "right": row[label]} for label in labels
                },
            }
            for item, row in apart[:limit]
        ],
    }


def _notes(labels: Sequence[str], given: Sequence[Answers], n: int) -> list[str]:
    notes = []
    for label, run in zip(labels, given):
        count = len(run.rows)
        if count > n:
            notes.append(
                f"{label}: {count - n:,} of {count:,} answers left out: not every run answered the question"
            )
        if run.missing:
            notes.append(f"{label}: {run.missing}")
        if run.record["status"] != "done":
            notes.append(f"{label} did not finish ({run.record['status']}): the answers it got to are used")
    if not _by_content(given):
        notes.append(
            "matched by id, question, gold and image names: some answers are older than item digests"
        )
    return notes


def _too_few(pair: dict[str, Any], n: int) -> str | None:
    """A warning where the items are too few for the difference that was measured."""
    needed, points = pair["items_needed"], 100 * abs(pair["difference"]["value"])
    if needed is None or needed <= n:
        return None
    names = f"{pair['second']} − {pair['first']}"
    wanted = (
        f"about {float(f'{needed:.2g}'):,.0f} would show a difference of {points:.1f} points "
        f"(power {POWER}, alpha {ALPHA})"
    )
    if pair.get("p_holm", pair["p"]) >= ALPHA:
        return f"{names}: {n:,} items are too few to tell; {wanted}"
    return f"{names}: so few items show only what happens to look large; {wanted}"

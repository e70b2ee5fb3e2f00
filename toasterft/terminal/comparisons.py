"""Runs against each other, in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toasterft.terminal.output import line, markdown_table, paragraph, table, warn
from toasterft.units import gain, one_line, p_value, percent, share, shorten

Draw = Callable[[Sequence[str], Sequence[Sequence[str]]], None]


def print_comparison(found: dict[str, Any], *, markdown: bool = False) -> None:
    """Scores, pairs, kinds, and the items on which the runs differ."""
    draw: Draw = markdown_table if markdown else table
    say: Callable[[str], None] = paragraph if markdown else line
    say(f"{found['n']:,} questions that all runs answered, by the scorer {found['scorer']}")
    draw(
        ["run", "prompt", ">right (95 %)"],
        [[f"{run['label']}  {run['run']}", _asked(run), percent(run["score"])] for run in found["runs"]],
    )
    holm = len(found["pairs"]) > 1
    draw(
        [
            "pair",
            ">difference (95 %)",
            ">only 1st ✓",
            ">only 2nd ✓",
            ">McNemar p",
            *([">Holm p"] if holm else []),
        ],
        [
            [
                f"{pair['second']} − {pair['first']}",
                gain(pair["difference"]),
                str(pair["only_first_right"]),
                str(pair["only_second_right"]),
                p_value(pair["p"]),
                *([p_value(pair["p_holm"])] if holm else []),
            ]
            for pair in found["pairs"]
        ],
    )
    for note in found["notes"]:
        say(note)
    for warning in found["warnings"]:
        say(f"! {warning}") if markdown else warn(warning)
    if found["by_kind"]:
        _print_kinds(found, draw)
    differing = found["differing"]
    shown = len(differing["items"])
    if shown:
        first = f"; the first {shown}" if shown < differing["count"] else ""
        say(f"{differing['count']:,} questions on which they differ{first}")
        print_items = _print_item_table if markdown else _print_items
        print_items(differing["items"])


def _asked(run: dict[str, Any]) -> str:
    added = [*(["+step"] if run["step"] else []), *([f"+{run['suffix']!r}"] if run["suffix"] else [])]
    return " ".join(added) or "plainly"


def _print_kinds(found: dict[str, Any], draw: Draw) -> None:
    """By kind; the differences too where there is one pair, for more they are in the JSON."""
    labels, one = [run["label"] for run in found["runs"]], len(found["pairs"]) == 1
    pair = found["pairs"][0]
    draw(
        [
            "kind",
            ">n",
            *(f">{label}" for label in labels),
            *([f">{pair['second']} − {pair['first']} (95 %)"] if one else []),
        ],
        [
            [
                kind,
                str(row["n"]),
                *(share(score) for score in row["scores"].values()),
                *([gain(row["pairs"][0]["difference"])] if one else []),
            ]
            for kind, row in found["by_kind"].items()
        ],
    )


def _print_items(items: Sequence[dict[str, Any]]) -> None:
    for item in items:
        kind = f" ({_short(item['kind'])})" if item["kind"] else ""
        line(f"{_short(item['id'])}{kind}  {_short(item['question'])}  {_short(item['gold'])}", "bold")
        for label, answer in item["answers"].items():
            line(f"  {label} {_marked(answer)}")


def _print_item_table(items: Sequence[dict[str, Any]]) -> None:
    markdown_table(
        ["id", "kind", "question", "right answer", *items[0]["answers"]],
        [
            [*(_short(item[name] or "") for name in ("id", "kind", "question", "gold"))]
            + [_marked(answer) for answer in item["answers"].values()]
            for item in items
        ],
    )


def _marked(answer: dict[str, Any]) -> str:
    return f"{'✓' if answer['right'] else '✗'} {_short(answer['answer'])}"


def _short(text: str) -> str:
    return shorten(one_line(text))

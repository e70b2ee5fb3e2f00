"""Data sets in the terminal: what a check found, rows as a model is trained on them, what became of a set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from toasterft import paths
from toasterft.audit.kinds import KINDS, Finding
from toasterft.audit.preview import FormattedRow, visible
from toasterft.terminal.evaluations import print_image
from toasterft.terminal.output import learned_text, line, out, pairs, print_next, table
from toasterft.units import duration, shorten, size

if TYPE_CHECKING:
    from toasterft.audit.check import Report  # it imports numpy, which few commands need

_MARKS = {"error": ("✗", "bold red"), "warning": ("!", "yellow"), "note": ("·", "dim")}
# Characters of one finding: it names the row, and the row can be looked at.
_LONGEST = 160


def print_data_check(report: Report, most: int | None) -> None:
    """Findings by kind, gravest first, each with the rows it is about.

    Args:
        most: rows shown of one kind; all where None.
    """
    splits = ", ".join(f"{split or 'all'} {count:,}" for split, count in report.splits.items())
    line(f"data check  {visible(report.name)}", "bold cyan")
    rows = f"{sum(report.splits.values()):,} ({splits})"
    pairs([("rows", rows), ("images", f"{report.images:,}"), ("took", duration(report.seconds))])
    for kind, findings in report.by_kind().items():
        mark, style = _MARKS[KINDS[kind].severity]
        line()
        _print((f"{mark} {kind}  ", style), (f"{KINDS[kind].about}: {len(findings):,}", ""))
        for reason, alike in _by_reason(findings).items() if kind == "unreadable" else [("", findings)]:
            if reason:
                _print((f"  {reason}: {len(alike):,}", style))
            for finding in alike[:most]:
                place = "  ".join(
                    part for part in dict.fromkeys((finding.id, finding.split, finding.where)) if part
                )
                what = shorten(finding.what, _LONGEST).replace("\n", " ")
                _print(("    ", ""), (place, "bold"), (f"  {what}" if place else what, ""))
            if most is not None and len(alike) > most:
                line(f"    … and {len(alike) - most:,} more", "dim")
    if report.classes:
        _print_classes(report)


# What differs from row to row in a reason: 'a text', a path or file, a number.
_OF_ONE_ROW = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/.]\S+|\d+")


def _by_reason(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Findings whose reason is the same but for what differs from row to row, the most frequent reason first."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        reason = shorten(_OF_ONE_ROW.sub("…", finding.what), _LONGEST).replace("\n", " ")
        found.setdefault(reason, []).append(finding)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _print(*parts: tuple[str, str]) -> None:
    """One line of text and style, broken by the terminal itself; what would steer it is written out."""
    out.print(Text.assemble(*((visible(text), style) for text, style in parts)), soft_wrap=True)


def _print_classes(report: Report) -> None:
    """Rows by label, one column a split."""
    line()
    labels = sorted({label for counts in report.classes.values() for label in counts})
    table(
        ["label", *(f">{split or 'rows'}" for split in report.classes)],
        [
            [visible(label), *(f"{counts.get(label, 0):,}" for counts in report.classes.values())]
            for label in labels
        ],
    )


def print_preview(row: FormattedRow, findings: Sequence[str], max_length: int) -> None:
    """One row: its images, the text that is read, the text that is learned, and the tokens of each."""
    example = row.example
    line()
    facts = [part for part in (row.split, example.kind, example.where) if part]
    _print((example.id, "bold cyan"), ("  " + "  ".join(facts), "dim"))
    for ref, image in zip(example.images, row.images):
        if image.size_px is None:
            _print((f"✗ {image.name}: {image.fault}", "red"))
            continue
        width, height = image.size_px
        _print((f"{image.name}  {width:,} × {height:,} px  {image.tokens:,} tokens", "dim"))
        if ref.path is not None:
            try:
                print_image(str(ref.path))
            except (OSError, SyntaxError, ValueError) as error:
                _print((f"✗ {image.name}: the image is damaged ({error})", "red"))
    if not example.images:
        line("no image", "dim")
    parts = [(visible(part), learned) for part, learned in row.parts]
    out.print(learned_text(parts, plain=not out.is_terminal), soft_wrap=True)
    over = "  too long: training leaves it out" if row.tokens > max_length else ""
    counts = (
        f"{row.tokens:,} tokens of {max_length:,}: {row.image_tokens:,} image, {row.prompt_tokens:,} read, "
        f"{row.completion_tokens:,} learned{over}"
    )
    _print((counts, "red" if over else "dim"))
    for finding in findings:
        _print(("! ", "yellow"), (finding, ""))


def print_verdict(report: Report, name: str, fixed: Path | None, card: dict[str, Any] | None) -> None:
    """How many findings of each severity, and the cleaned copy or how to make one."""
    counts = {severity: report.count(severity) for severity in ("error", "warning", "note")}
    found = ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
    line()
    line(found, "bold red" if counts["error"] else "bold green")
    if card is not None:
        done = ", ".join(f"{count:,} {kind}" for kind, count in card["fixes"].items()) or "nothing to mend"
        line(f"wrote {fixed}: {sum(card['splits'].values()):,} rows; mended {done}", "bold green")
    elif counts["error"]:
        print_next(f"toasterft data check {name} --fix NEW_FOLDER")


def print_imported(card: dict[str, Any], name: str) -> None:
    """What came in, what did not, and how to check it."""
    rows = ", ".join(f"{split} {count:,}" for split, count in card["splits"].items())
    line(f"wrote {card['folder']}: {sum(card['splits'].values()):,} rows ({rows})", "bold green")
    left = [*card["left_out"].items()]
    if card["unreadable"]:
        left.append(("cannot be read (card.json lists them)", len(card["unreadable"])))
    if left:
        table(["left out", ">rows"], [[visible(reason), f"{count:,}"] for reason, count in left])
    facts = [
        ("read as", card["layout"]),
        ("task", card["task"]),
        ("licence", card.get("licence", "not stated")),
    ]
    if card["unread_files"]:
        facts.append(("not read", visible(", ".join(card["unread_files"][:8]))))
    if "unread_columns" in card:
        facts.append(("columns that nothing reads", visible(", ".join(sorted(card["unread_columns"])))))
    if "changes" in card:
        changes = (f"{change} ({count:,})" for change, count in sorted(card["changes"].items()))
        facts.append(("changed", visible("; ".join(changes))))
    pairs(facts)
    _next(name, card["folder"])


def print_drawn(folder: Path, n: int) -> None:
    """Charts that were drawn, and a training on them."""
    line(f"wrote {folder}: {n:,} charts, train/validation/test")
    print_next(f"toasterft sft --model toast-tiny --data {folder}")


def print_split(card: dict[str, Any], name: str) -> None:
    """Rows of each split."""
    counts = ", ".join(f"{split} {count:,}" for split, count in card["splits"].items())
    line(f"wrote {card['folder']}: {counts}", "bold green")
    _next(name, card["folder"])


def print_push(result: dict[str, Any], *, uploaded: bool, public: bool) -> None:
    """Rows and bytes that were packed, and where they are."""
    seen = (", public" if public else ", private") if uploaded else ""
    packed = f"{sum(result['rows'].values()):,} rows, {size(result['size_bytes'])}"
    line(f"{'pushed' if uploaded else 'wrote'} {result['address']}: {packed}{seen}", "bold green")


def _next(name: str, folder: str) -> None:
    print_next(f"toasterft data check {name if Path(folder) == paths.data_dir() / name else folder}")

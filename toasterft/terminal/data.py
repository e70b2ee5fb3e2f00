"""Data sets in the terminal: what a check found, and rows as a model is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from toasterft.audit.kinds import KINDS
from toasterft.audit.preview import FormattedRow, visible
from toasterft.terminal.evaluations import print_image
from toasterft.terminal.output import line, out, pairs, table
from toasterft.units import duration, shorten

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
        out.print()
        out.print(Text(f"{mark} {kind}  ", style=style) + Text(f"{KINDS[kind].about}: {len(findings):,}"))
        for finding in findings[:most]:
            place = "  ".join(part for part in (finding.id, finding.split, finding.where) if part)
            what = shorten(finding.what, _LONGEST)
            text = Text("    ") + Text(visible(place), style="bold")
            out.print(text + Text(visible(f"  {what}" if place else what).replace("\n", " ")), soft_wrap=True)
        if most is not None and len(findings) > most:
            out.print(Text(f"    … and {len(findings) - most:,} more", style="dim"))
    if report.classes:
        _balance(report)


def _balance(report: Report) -> None:
    """Rows by label, one column a split."""
    out.print()
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
    out.print()
    facts = [part for part in (row.split, example.kind, example.where) if part]
    out.print(
        Text(visible(example.id), style="bold cyan") + Text(visible("  " + "  ".join(facts)), style="dim"),
        soft_wrap=True,
    )
    for ref, image in zip(example.images, row.images):
        if image.size_px is None:
            out.print(Text(visible(f"✗ {image.name}: {image.fault}"), style="red"), soft_wrap=True)
            continue
        width, height = image.size_px
        facts_of_it = f"{image.name}  {width:,} × {height:,} px  {image.tokens:,} tokens"
        out.print(Text(visible(facts_of_it), style="dim"), soft_wrap=True)
        if ref.path is not None:
            try:
                print_image(str(ref.path))
            except (OSError, SyntaxError, ValueError) as error:
                out.print(Text(visible(f"✗ {image.name}: the image is damaged ({error})"), style="red"))
    if not example.images:
        line("no image", "dim")
    plain = not out.is_terminal
    text = Text()
    for part, learned in row.parts:
        shown = visible(part)
        text.append(f"⟦{shown}⟧" if plain and learned else shown, style="bold green" if learned else "dim")
    out.print(text, soft_wrap=True)
    over = "  too long: training leaves it out" if row.tokens > max_length else ""
    out.print(
        Text(
            f"{row.tokens:,} tokens of {max_length:,}: {row.image_tokens:,} image, {row.prompt_tokens:,} read, "
            f"{row.completion_tokens:,} learned{over}",
            style="red" if over else "dim",
        ),
        soft_wrap=True,
    )
    for finding in findings:
        out.print(Text("! ", style="yellow") + Text(visible(finding)), soft_wrap=True)


def print_import(card: dict[str, Any], folder: str) -> None:
    """What came in, and what did not."""
    rows = ", ".join(f"{split} {count:,}" for split, count in card["splits"].items())
    line(f"wrote {folder}: {sum(card['splits'].values()):,} rows ({rows})", "bold green")
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
    pairs(facts)

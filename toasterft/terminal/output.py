"""Building blocks of the output: the two consoles, tables, lines, JSON, errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from toasterft import units
from toasterft.errors import ToasterError

# Results go to stdout, everything about the way there to stderr, so that `--json` can be piped.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextmanager
def results_alone(*, quiet: bool) -> Iterator[None]:
    """Keep stdout for results: what libraries and child processes print there goes to stderr, with `quiet` nowhere.

    Where stdout is this process's own, and no notebook's or test's, its file descriptor is moved away as well: compiled
    code and child processes write to that.
    """
    before = kept = sys.stdout
    own = before is sys.__stdout__
    before.flush()
    with ExitStack() as opened:
        elsewhere = sys.stderr
        if quiet or elsewhere is None:
            elsewhere = opened.enter_context(open(os.devnull, "w", encoding="utf-8"))
        if own:
            number = os.dup(before.fileno())
            kept = opened.enter_context(open(number, "w", encoding=before.encoding, errors=before.errors))
            os.dup2(elsewhere.fileno(), before.fileno())
        sys.stdout, out.file = elsewhere, kept
        try:
            yield
        finally:
            for stream in (elsewhere, before, kept):
                stream.flush()
            if own:
                os.dup2(kept.fileno(), before.fileno())
            sys.stdout, out.file = before, None  # type: ignore[assignment]  # rich takes sys.stdout then


@contextmanager
def results_into(page: IO[str]) -> Iterator[None]:
    """Write results to a page instead."""
    before = None if out.file is sys.stdout else out.file
    out.file = page
    try:
        yield
    finally:
        out.file = before  # type: ignore[assignment]  # rich takes sys.stdout for None


def as_json(value: Any) -> None:
    """One JSON object on stdout."""
    encoding = getattr(out.file, "encoding", None) or "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not encoding.lower().startswith("utf"), default=str)
    print(text, file=out.file, flush=True)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    styles: Iterable[str] = (),
    total: bool = False,
) -> None:
    """A plain table; columns that start with `>` are right-aligned.

    Args:
        styles: one a row.
        total: the last row sums up the others, below a line.
    """
    grid = Table(box=box.SIMPLE, title=title, title_justify="left", pad_edge=False)
    # Figures are broken only where no column of text can give way.
    yields = any(not column.startswith(">") for column in columns[1:])
    for place, column in enumerate(columns):
        right = column.startswith(">")
        # The first column is what people copy into the next command: it is never broken.
        grid.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=place == 0 or (right and yields),
        )
    found = list(rows)
    for place, (row, style) in enumerate(zip_longest(found, styles, fillvalue="")):
        if total and place == len(found) - 1:
            grid.add_section()
        grid.add_row(*(escape(cell) for cell in row), style=style)
    out.print(grid)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The same table in Markdown."""
    paragraph(units.markdown_table(columns, rows))


def paragraph(text: str) -> None:
    """One line of Markdown, with the blank line that ends a paragraph."""
    print(text + "\n", file=out.file)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Name and value, one pair a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(f"[bold]{escape(name)}[/]", escape(value))
    out.print(grid)


def heading(command: str, model: str, rest: str) -> None:
    """What the following figures are about."""
    out.print()
    out.print(Text(f"{command}  ", style="bold cyan") + Text(model, style="bold") + Text(f" {rest}"))


def learned_text(parts: Iterable[tuple[str, bool]], *, plain: bool) -> Text:
    """A training text: what is learned stands out, bracketed where there are no colours."""
    return Text.assemble(
        *(
            (f"⟦{part}⟧" if plain and learned else part, "bold green" if learned else "dim")
            for part, learned in parts
        )
    )


def line(text: str = "", style: str = "") -> None:
    out.print(Text(text, style=style))


def print_next(command: str) -> None:
    """What to type next."""
    out.print(Text("next  ", style="dim") + Text(command))


def warn(text: str) -> None:
    out.print(Text(f"! {text}", style="yellow"))


def error(problem: ToasterError, *, json_output: bool) -> None:
    """Where, what, why, and the next step; on stdout too where a program is listening."""
    first, *rest = problem.lines()
    err.print(Text("✗ ", style="bold red") + Text(first, style="bold"), soft_wrap=True)
    for text in rest:
        err.print(Text(text), soft_wrap=True)
    if json_output:
        as_json(
            {
                "error": {
                    "kind": type(problem).__name__,
                    "where": problem.where,
                    "what": problem.what,
                    "why": problem.why,
                    "next_step": problem.next_step,
                    "details": list(problem.details),
                    "exit_code": problem.exit_code,
                }
            }
        )

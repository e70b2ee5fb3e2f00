"""A matrix of evaluations as one table, in a terminal of any width and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toasterft.evaluation.matrix import CHART_FILE
from toasterft.terminal.output import line, markdown_table, out, paragraph, table, warn
from toasterft.units import NOTHING, dollars, duration, interval, shorten

LONGEST_PROMPT = 20  # characters of a prompt condition's name in a terminal
CELL_PADDING = 3  # characters between two columns
Column = tuple[str, Callable[[dict[str, Any]], str]]
"""A heading, and what stands below it for a cell of the matrix; `>` aligns right."""


def print_matrix(found: dict[str, Any], *, markdown: bool = False) -> None:
    """Every cell's accuracy, form, length and price, then by kind; what is missing, and what to do about it."""
    say: Callable[[str], None] = paragraph if markdown else line
    cells, done = found["cells"], [cell for cell in found["cells"] if cell["status"] == "done"]
    result = done[0]["eval"] if done else None
    split = f" ({found['split']})" if found["split"] else ""
    if markdown:
        say(f"# {found['name']}")
    say(f"{len(cells)} cells, {found['n']:,} questions of {found['data']}{split}; % with 95 % intervals")
    named: list[Column] = [
        ("model", lambda cell: cell["model"]),
        ("prompt", lambda cell: cell["prompt"] if markdown else shorten(cell["prompt"], LONGEST_PROMPT)),
    ]
    if any(cell["load_in_4bit"] is not None for cell in cells):
        named.append(("bits", lambda cell: "4" if cell["load_in_4bit"] else "16"))
    _draw(named, _figures(result, runs=markdown), cells, markdown=markdown)
    # Kinds of a classification are its labels, and have recalls instead.
    if result is not None and "per_class" not in result and len(result["by_kind"]) > 1:
        say("by kind, robust")
        kinds = [_of_kind(kind, row["n"]) for kind, row in result["by_kind"].items()]
        _draw(named, kinds, done, markdown=markdown)
    say("seconds and dollars are of answering alone: images are encoded once, and kept")
    spent = [duration(found["seconds"]), *([dollars(found["usd"])] if found["usd"] else [])]
    say(f"all cells that are done, with loading and encoding: {', '.join(spent)}")
    _absent(cells, say if markdown else warn, say)
    if markdown:
        say(f"![accuracy]({CHART_FILE})")
    else:
        line(f"table and chart in {found['folder']}; each cell is a run, for `compare` and `arena`", "dim")


def _figures(result: dict[str, Any] | None, *, runs: bool) -> list[Column]:
    """The columns of a matrix's main table, those that its task has."""
    if result is None:
        return [("status", lambda cell: cell["status"])]
    names = list(result["scores"])

    def score(name: str) -> Column:
        def text(cell: dict[str, Any]) -> str:
            if cell["status"] != "done":
                return cell["status"] if name == names[0] else NOTHING
            return _rate(cell["eval"]["scores"][name])

        return f">{name}", text

    def part(key: str) -> Callable[[dict[str, Any]], str]:
        return _of(lambda found: _rate(found[key]["robust"]))

    columns = [score(name) for name in names]
    for name, key in (("yes or no", "closed"), ("open", "open")):
        if key in result:
            columns.append((f">{name}", part(key)))
    if "macro_recall" in result:
        columns.append((">macro recall", _of(lambda found: f"{100 * found['macro_recall']:.1f}")))
    if "parse_failures" in result:
        columns.append((">no option", _of(lambda found: _rate(found["parse_failures"]))))
    columns += [
        (">format kept", _of(lambda found: _rate(found["format_rate"]))),
        (">tokens", _of(lambda found: f"{found['mean_completion_tokens']:.0f}")),
        (">s / 1,000", lambda cell: _figure(cell.get("seconds_per_1000_answers"), "{:,.0f}")),
        (">$ / 1,000", lambda cell: _figure(cell.get("usd_per_1000_answers"), "{:.3f}")),
    ]
    return [*columns, *([("run", lambda cell: cell.get("run", NOTHING))] if runs else [])]


def _of(text: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """A figure of the evaluation, for a cell that has one."""
    return lambda cell: text(cell["eval"]) if cell["status"] == "done" else NOTHING


def _of_kind(kind: str, n: int) -> Column:
    def text(cell: dict[str, Any]) -> str:
        row = cell["eval"]["by_kind"].get(kind) if cell["status"] == "done" else None
        return NOTHING if row is None else _rate(row["robust"], 0)

    return f">{kind} ({n:,})", text


def _rate(rate: dict[str, float], decimals: int = 1) -> str:
    """A rate with its interval, in %, without the sign: a table's heading has it."""
    return f"{100 * rate['value']:.{decimals}f} ({interval(rate, decimals)})"


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _draw(
    named: Sequence[Column], figures: Sequence[Column], cells: Sequence[dict[str, Any]], *, markdown: bool
) -> None:
    columns = [*named, *figures]
    headings = [heading for heading, _ in columns]
    rows = [[text(cell) for _, text in columns] for cell in cells]
    if markdown:
        markdown_table(headings, rows)
        return
    for block in _blocks(headings, rows, len(named)):
        shown = [*range(len(named)), *block]
        # What is missing says so in the first block.
        there = [row for row in rows if any(row[place] != NOTHING for place in block)]
        table([headings[place] for place in shown], [[row[place] for place in shown] for row in there])


def _blocks(headings: Sequence[str], rows: Sequence[Sequence[str]], named: int) -> list[list[int]]:
    """The columns that fit a terminal's width beside those that name the rows, block by block."""
    widths = [
        CELL_PADDING + max(len(text) for text in (heading.removeprefix(">"), *(row[place] for row in rows)))
        for place, heading in enumerate(headings)
    ]
    room = out.width - sum(widths[:named])
    blocks: list[list[int]] = [[]]
    for place in range(named, len(headings)):
        if blocks[-1] and sum(widths[each] for each in [*blocks[-1], place]) > room:
            blocks.append([])
        blocks[-1].append(place)
    return blocks


def _absent(
    cells: Sequence[dict[str, Any]], what: Callable[[str], None], then: Callable[[str], None]
) -> None:
    """Cells that are not there, those of a model with the same reason together."""
    reasons: dict[tuple[str, str, str, str], list[str]] = {}
    for cell in cells:
        if problem := cell.get("problem"):
            key = (cell["model"], *(str(problem.get(name) or "") for name in ("what", "why", "next_step")))
            reasons.setdefault(key, []).append(cell["prompt"])
    for (model, problem_text, why, step), prompts in reasons.items():
        whole = len(prompts) == sum(cell["model"] == model for cell in cells)
        which = model if whole else f"{model} ({', '.join(prompts)})"
        what(f"{which}: {problem_text}" + (f" ({why})" if why else ""))
        if step:
            then(f"  next  {step}")

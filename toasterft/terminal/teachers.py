"""`cot` in the terminal: what a job of teachers will do and cost, and what it wrote."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from toasterft.teachers.api import Service
from toasterft.teachers.plan import Expected, FactsPlan, TracesPlan
from toasterft.terminal.output import line, pairs, print_next, table
from toasterft.units import dollars, ranged_usd


def print_teacher_plan(plan: TracesPlan | FactsPlan, expected: Expected, today: datetime.date) -> None:
    """Rows, teachers with their prices, and the likely bill."""
    of_facts = isinstance(plan, FactsPlan)
    line(f"cot {'facts' if of_facts else 'build'}  {plan.name}", "bold cyan")
    rows = f"{len(plan.data):,} rows of {plan.data.name}"
    if isinstance(plan, FactsPlan):
        facts = [("for", f"{plan.n:,} of {len(plan.images):,} pictures in {rows}")]
        services = [("teacher", plan.teacher)]
    else:
        facts = [
            ("for", f"{plan.n:,} {plan.style.name} traces from {rows}"),
            ("style", f"up to {plan.style.max_trace_tokens} tokens a trace"),
        ]
        if not plan.teachers:
            facts.append(("teacher", "rules, from each row's table; no network, no cost"))
        services = [("teacher", each) for each in plan.teachers] + [("judge", each) for each in plan.judges]
    facts += [(role, _priced(service, today)) for role, service in services]
    if expected.usd is not None:
        budget = "" if plan.budget_usd is None else f"; budget {dollars(plan.budget_usd)}"
        facts.append(("dollars", f"{ranged_usd(expected.usd)} for {expected.requests:,} requests{budget}"))
        facts.append(("at most", f"{expected.most_requests:,} requests, where no answer can be used"))
    pairs(facts)


def _priced(service: Service, today: datetime.date) -> str:
    """A teacher's name, address and price."""
    price = service.price
    flag = None if price.status == "given" else price.flag(today)
    return (
        f"{service.name} at {service.shown_url}, ${price.input_usd_per_mtok:g} / "
        f"${price.output_usd_per_mtok:g} per M tokens in / out"
        + (f", {price.as_of}" if price.as_of else "")
        + (f" ({flag})" if flag else "")
    )


def print_traces(card: dict[str, Any], plan: TracesPlan) -> None:
    """Traces that were kept, rows that were left out, and what to type next."""
    usd = f" for {dollars(card['spent']['usd'])}" if plan.teachers else ""
    _written(card, plan.folder, f"{card['counts']['kept']:,} traces{usd}", "rows")
    _next("sft", plan.folder, plan.name, own=plan.folder.name != plan.name)


def print_facts(card: dict[str, Any], plan: FactsPlan, *, own: bool) -> None:
    """Rows that have facts now; `own` where the folder is not NAME's."""
    counts = card["counts"]
    usd = dollars(card["spent"]["usd"])
    _written(card, plan.folder, f"facts for {counts['got_facts']:,} rows for {usd}", "pictures")
    if counts["had_facts"]:
        line(f"{counts['had_facts']:,} rows had facts before, and keep them")
    _next("dyme", plan.folder, plan.name, own=own)


def print_pairs(card: dict[str, Any], folder: Path, name: str, model: str, *, own: bool) -> None:
    """Pairs for dpo, and how often the model was right."""
    counts = card["counts"]
    right = f"{100 * counts['right'] / max(1, counts['samples']):.0f} % of {counts['samples']:,} samples were right"
    _written(card, folder, f"{counts['kept']:,} pairs; {right}", "rows")
    _next(f"dpo --model {model}", folder, name, own=own)


def _written(card: dict[str, Any], folder: Path, what: str, things: str) -> None:
    line(f"wrote {folder}: {what}", "bold green")
    if card["rejects"]:
        table(
            ["left out", f">{things}"], [[reason, f"{count:,}"] for reason, count in card["rejects"].items()]
        )


def _next(command: str, folder: Path, name: str, *, own: bool) -> None:
    print_next(f"toasterft {command} --data {folder if own else name}")

"""A reference trace rewritten from the facts, by rules; `checker` has the last word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from toasterft.data.charts.phrases import NEEDS, RECHECKS, STEPS
from toasterft.scoring import traces
from toasterft.scoring.traces import Table, number, same_result
from toasterft.teachers.refine.asked import gold_number
from toasterft.teachers.refine.plans import Plan, plans
from toasterft.teachers.refine.template import PARTS, Template

# A trace that lists more rows than this is no short one: about 150 tokens of names and values.
MOST_ROWS = 16

# Steps that the chart generator has no sentence for. {a}, {x}: a row and its value.
_STEPS = STEPS | {
    "find": "{a} is {x}, so {answer}.",
    "average": "({terms}) / {n} = {answer}.",
    "count_below": "Below {t}: {names}. So {answer}.",
}
_RECHECKS = RECHECKS | {
    "find": "{a} = {x}.",
    "average": "({reversed_terms}) / {n} = {answer}.",
    "count_below": "Not below {t}: {others}.",
}
_NEEDS = NEEDS | {
    "find": "Find the value and read its label.",
    "average": "Read the values, add them and divide by their number.",
    "count_below": "Read every value and count the smaller ones.",
}


def refine(facts: Any, question: str, answer: str, reference: str | None, template: Template) -> str | None:
    """The reference trace rewritten in the template's shape from the facts.

    The reference's own calculation is kept where it checks out and gives the answer; else the step is
    worked out from the facts.

    Returns:
        The trace, or None where the facts do not lead to the answer in a way that is understood: the
        caller then keeps the reference as it is.
    """
    table = traces.table_of(facts)
    if not table.numbers:
        return None
    gold = answer.strip()
    if transcribed := _transcription(table, gold):
        return sound(_write(transcribed, "", template, table, question, gold), facts, question, answer)
    own_step = _own_step(reference or "", facts, question, gold)
    for plan in plans(question, table, gold):
        written = sound(_write(plan, own_step, template, table, question, gold), facts, question, answer)
        if written is not None:
            return written
    if own_step and (own := _plan_of(own_step, table, gold)):
        return sound(_write(own, own_step, template, table, question, gold), facts, question, answer)
    return None


def _transcription(table: Table, gold: str) -> Plan | None:
    """The plan for an answer that is the table itself."""
    rows = tuple(range(len(table.cells)))
    if len(rows) > 1 and traces.name_key(_listed(table, rows)) == traces.name_key(gold):
        return Plan("transcribe", rows, (gold,), {"table": gold, "n": str(len(rows))})
    return None


def _own_step(reference: str, facts: Any, question: str, gold: str) -> str:
    """The reference's last calculation that holds and gives the answer, without its conclusion; or ""."""
    for sentence in reversed(traces.sentences(reference)):
        for found in _EQUATION.finditer(sentence.text):
            result, wanted = number(found["result"]), gold_number(gold)
            if wanted is None or not same_result(wanted, result.value):
                continue
            said = found[0].strip()
            checked = traces.check(f"{said}.", facts, question, gold)
            if not checked.faults and checked.arithmetic == 1.0:
                return said
    return ""


_EQUATION = re.compile(
    rf"\(*{traces.NUM}\)*(?:\s*[-+*/]\s*\(*{traces.NUM}\)*)+\s*=\s*(?P<result>{traces.NUM})", re.IGNORECASE
)


def _plan_of(step: str, table: Table, gold: str) -> Plan | None:
    """A plan around the reference's own calculation: each of its numbers is read off one row of its own."""
    rows: list[int] = []
    for found in re.findall(traces.NUM, step.rpartition("=")[0]):
        holders = [at for at, row in enumerate(table.cells) if row.number == number(found).value]
        if len(holders) == 1:
            rows += holders
        elif holders or number(found).value not in (100, len(rows)):
            return None  # two rows could be meant, or the number comes from nowhere
    wanted = gold_number(gold)
    if not rows or wanted is None:
        return None
    return Plan("own", tuple(sorted(set(rows))), wanted.value)


def _listed(table: Table, rows: Iterable[int]) -> str:
    return ", ".join(f"{table.cells[row].name} = {table.cells[row].shown}" for row in rows)


def _write(plan: Plan, own_step: str, template: Template, table: Table, question: str, gold: str) -> str:
    """The trace in the template's shape, or "" where it would be too long."""
    series = {table.cells[row].series for row in plan.rows}
    every = [at for at, row in enumerate(table.cells) if row.number is not None and row.series in series]
    rows = every if template.whole_table and len(every) <= MOST_ROWS else list(plan.rows)
    if len(rows) > MOST_ROWS:
        return ""
    calculated = plan.kind in ("difference", "sum", "ratio", "average", "own")
    step = f"{own_step}." if own_step and calculated else _STEPS.get(plan.kind, "")
    words = {"table": _listed(table, plan.rows), **plan.words, "answer": gold}
    if plan.kind in ("lookup", "count", "transcribe"):
        # The sentence ends in what was read: there the gold's own writing of the number.
        words |= {"lookup": {"x": gold}, "count": {"n": gold}, "transcribe": {}}[plan.kind]
    said = {
        "goal": question,
        "needs": _NEEDS.get(plan.kind, "Read the values and calculate."),
        "facts": f"{_listed(table, rows)}.",
        "step": step.format(**words),
        "recheck": _RECHECKS.get(plan.kind, "").format(**words),
        "conclusion": gold if template.headings else f"So {gold}.",
    }
    parts = [part for part in template.parts if said[part]]
    if plan.kind == "transcribe" and not template.headings:
        parts = ["step"]  # the table is the answer: once is enough
    if template.headings:
        return "\n".join(f"{PARTS[part]}: {said[part]}" for part in parts)
    return " ".join(said[part] for part in parts)


def sound(trace: str, facts: Any, question: str, answer: str) -> str | None:
    """The trace, if it holds and ends in the gold answer."""
    if not trace:
        return None
    checked = traces.check(trace, facts, question, answer)
    return trace if checked.conclusion == 1.0 and not checked.faults else None

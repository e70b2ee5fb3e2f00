"""A reference trace rewritten by rules: the question's derivation from the facts, in the template's shape."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from toasterft.scoring import tables, traces
from toasterft.scoring.numbers import NUM, fraction, number, same_result
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.refine.template import PARTS, Template
from toasterft.teachers.rules.choose import choose
from toasterft.teachers.rules.claims import TRANSCRIBES
from toasterft.teachers.rules.terms import Term, readings
from toasterft.teachers.rules.write import ending_in, needs, steps_to

# A trace that lists more cells than this is no short one: about 150 tokens of names and values.
MOST_READINGS = 16
CALCULATIONS = frozenset({"sum", "difference", "mean", "product", "ratio"})
# "12 + 7 = 19", "(7 + 3) / 2 = 5" inside a sentence
_EQUATION = re.compile(rf"\(*{NUM}\)*(?:\s*[-+*/]\s*\(*{NUM}\)*)+\s*=\s*(?P<result>{NUM})", re.IGNORECASE)


def refine(facts: Any, question: str, answer: str, reference: str | None, template: Template) -> str | None:
    """The reference trace rewritten in the template's shape from the facts.

    The reference's own calculation is kept where it checks out and gives the answer; else the step is
    worked out from the facts.

    Returns:
        The trace, or None where the facts do not lead to the answer in a way that is understood: the
        caller then keeps the reference as it is.
    """
    table, gold = tables.numeric(facts), answer.strip()
    if table is None:
        return None
    term, step = (
        choose(table, question, gold, careful=True),
        _own_step(reference or "", facts, question, gold),
    )
    if term is None and step:
        term = _around(step, table)
    if term is None:
        return None
    own = step and term.used <= CALCULATIONS and not term.picks and len(term.readings) > 1
    steps = f"{step}." if own else ending_in(steps_to(term, gold), term, gold)
    return sound(_shaped(term, steps, template, table, question, gold), facts, question, answer)


def _own_step(reference: str, facts: Any, question: str, gold: str) -> str:
    """The reference's last calculation that holds and gives the answer, without its conclusion; or ""."""
    wanted = fraction(gold)
    for sentence in reversed(traces.sentences(reference)):
        for found in _EQUATION.finditer(sentence.text):
            if wanted is not None and same_result(number(found["result"]), wanted):
                checked = traces.check(f"{found[0].strip()}.", facts, question, gold)
                if not checked.faults and checked.arithmetic == 1.0:
                    return found[0].strip()
    return ""


def _around(step: str, table: Table) -> Term | None:
    """A term around the reference's own calculation: each of its numbers is read off one cell of its own."""
    cells: list[Cell] = []
    left, _, result = step.rpartition("=")
    for found in re.findall(NUM, left):
        holders = [cell for cell in table.cells if cell.value == number(found).value]
        if len(holders) == 1:
            cells += holders
        elif holders or number(found).value not in (100, len(cells)):
            return None  # two cells could be meant, or the number comes from nowhere
    return Term(number(result).value, tuple(dict.fromkeys(cells))) if len(cells) > 1 else None


def _shaped(term: Term, steps: str, template: Template, table: Table, question: str, gold: str) -> str:
    """The trace in the template's shape, or "" where it would be too long."""
    series = {cell.series for cell in term.readings}
    every = [cell for cell in table.cells if cell.series in series]
    whole = template.whole_table and len(every) <= MOST_READINGS
    read = [cell for cell in table.cells if cell in (every if whole else term.readings)]
    if len(read) > MOST_READINGS:
        return ""
    texts = {
        "goal": question,
        "needs": needs(term),
        "facts": readings(read),
        "step": steps,
        "recheck": " ".join(term.rechecks),
        "conclusion": gold if template.headings else f"So {gold}.",
    }
    parts: Iterable[str] = [part for part in template.parts if texts[part]]
    if term.used == TRANSCRIBES and not template.headings:
        parts = ["step"]  # the table is the answer: once is enough
    if template.headings:
        return "\n".join(f"{PARTS[part]}: {texts[part]}" for part in parts)
    return " ".join(texts[part] for part in parts)


def sound(trace: str, facts: Any, question: str, answer: str) -> str | None:
    """The trace, if it holds and ends in the gold answer."""
    if not trace:
        return None
    checked = traces.check(trace, facts, question, answer)
    return trace if checked.conclusion == 1.0 and not checked.faults else None

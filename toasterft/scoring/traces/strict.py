"""The strict mode: traces in our own sentences (`data.charts.phrases`, `teachers.rules`), every word accounted for.

`check` forgives what it does not understand, as it must with anybody's words. Here that is a fault, and so is a
number that was not read or worked out before, a largest of values that were not all read, a list with one name too
few. A trace is read from left to right and held against the table alone, apart from the code that wrote it.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from toasterft.data.charts.phrases import HEADINGS, NONE
from toasterft.scoring.answers.values import robust
from toasterft.scoring.numbers import format_number, fraction, number_alone, same_result
from toasterft.scoring.tables import Table, numeric
from toasterft.scoring.traces.statements import Statements


def strict_faults(trace: str, facts: Any, question: str, answer: str) -> list[str]:
    """The first thing that is wrong with a trace, simplified or structured; nothing where it holds and ends in `answer`."""
    statements = Statements(numeric(facts) or Table(), question)
    lines = [line.partition(": ") for line in trace.splitlines()]
    if not any(heading in HEADINGS for heading, _, _ in lines):
        statements.read(trace)
        _conclude(statements, answer)
        return statements.faults
    if [heading for heading, _, _ in lines] != list(HEADINGS):
        return ["the headings are not the six, each once and in order"]
    parts = {heading: text for heading, _, text in lines}
    if parts["Observations"] != f"{NONE}.":
        statements.read(parts["Observations"])
    statements.read(parts["Conclusion"])
    _conclude(statements, answer)
    statements.read(parts["Recheck"])
    if parts["Final Answer"] != answer:
        statements.faults.append(f"the final answer is {parts['Final Answer']!r}, not {answer!r}")
    return statements.faults


def _conclude(statements: Statements, answer: str) -> None:
    """Hold what the trace has got to against the answer."""
    end, goal = statements.reached, number_alone(answer)
    if isinstance(end, Fraction) and goal is not None:
        rounded = goal.unit < 1 and same_result(goal, end)
        right = rounded or goal.value in (end, Fraction(format_number(end)))
    elif answer.startswith("[") and not isinstance(end, str):
        numbers = [fraction(part) for part in answer.strip("[]").split(",")]
        right = numbers == [statements.cells[at].value for at in statements.cells_read][-len(numbers) :]
    elif " = " in answer:
        # The whole chart read out: every reading, and no other.
        pairs = [part.rpartition(" = ") for part in answer.split(", ")]
        wanted = [(name, fraction(value)) for name, _, value in pairs]
        read = [(statements.cells[at].name, statements.cells[at].number) for at in statements.cells_read]
        right = sorted(wanted, key=str) == sorted(read, key=str) and len(read) == len(statements.cells)
    else:
        right = end is not None and robust(str(end), answer)
    if not right and not statements.faults:
        statements.faults.append(f"ends in {end}, not {answer}")

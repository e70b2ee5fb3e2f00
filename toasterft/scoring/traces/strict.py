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
from toasterft.scoring.numbers import fraction, number_alone, same_result, shown
from toasterft.scoring.tables import Table, numeric
from toasterft.scoring.traces.statements import Statements


def strict_faults(trace: str, facts: Any, question: str, answer: str) -> list[str]:
    """The first thing that is wrong with a trace, simplified or structured; nothing where it holds and ends in `answer`."""
    said = Statements(numeric(facts) or Table(), question)
    lines = [line.partition(": ") for line in trace.splitlines()]
    if not any(heading in HEADINGS for heading, _, _ in lines):
        said.read(trace)
        _conclude(said, answer)
        return said.faults
    if [heading for heading, _, _ in lines] != list(HEADINGS):
        return ["the headings are not the six, each once and in order"]
    parts = {heading: text for heading, _, text in lines}
    if parts["Observations"] != f"{NONE}.":
        said.read(parts["Observations"])
    said.read(parts["Conclusion"])
    _conclude(said, answer)
    said.read(parts["Recheck"])
    if parts["Final Answer"] != answer:
        said.faults.append(f"the final answer is {parts['Final Answer']!r}, not {answer!r}")
    return said.faults


def _conclude(said: Statements, answer: str) -> None:
    """Hold what the trace has got to against the answer."""
    end, goal = said.reached, number_alone(answer)
    if isinstance(end, Fraction) and goal is not None:
        rounded = goal.unit < 1 and same_result(goal, end)
        right = rounded or goal.value in (end, Fraction(shown(end)))
    elif answer.startswith("[") and not isinstance(end, str):
        numbers = [fraction(part) for part in answer.strip("[]").split(",")]
        right = numbers == [said.cells[at].value for at in said.stated][-len(numbers) :]
    elif " = " in answer:
        # The whole chart read out: every reading, and no other.
        pairs = [part.rpartition(" = ") for part in answer.split(", ")]
        wanted = [(name, fraction(value)) for name, _, value in pairs]
        read = [(said.cells[at].name, said.cells[at].number) for at in said.stated]
        right = sorted(wanted, key=str) == sorted(read, key=str) and len(read) == len(said.cells)
    else:
        right = end is not None and robust(str(end), answer)
    if not right and not said.faults:
        said.faults.append(f"ends in {end}, not {answer}")

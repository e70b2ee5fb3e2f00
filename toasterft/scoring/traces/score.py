"""What a trace is worth, in [0, 1], and the rewards that say so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from toasterft import scoring
from toasterft.scoring.numbers import HEDGED, NUM, cleaned, decimal, number, same_reading, same_result
from toasterft.scoring.traces.conclusion import conclude, gold_pairs, is_number
from toasterft.scoring.traces.lemmas import lemma_f1
from toasterft.scoring.traces.names import MUST_REASON, table_of_json
from toasterft.scoring.traces.reading import read
from toasterft.scoring.traces.sentences import UNCHECKED, sentences
from toasterft.scoring.traces.state import TraceState

if TYPE_CHECKING:
    from toasterft.data.example import Example
    from toasterft.scoring.rewards import Completion

# What the parts are worth. Reading right counts most: it is what small models get wrong (DyME's facts).
COVERAGE, ARITHMETIC, CONCLUSION = 0.4, 0.3, 0.3
# One fault takes a fifth off, four take half: no trace with a fault reaches 0.9.
FAULTS_TO_HALVE = 4
# Reading this many needed rows is full coverage: nobody should recite a table of fifty.
ENOUGH_ROWS = 12


@dataclass(frozen=True)
class Checked:
    """A trace's worth.

    Attributes:
        score: in [0, 1]; see `check`.
        coverage: share of the needed facts read, times the share of readings that are right; None
            without facts.
        arithmetic: share of the steps that are right; half of it where none leads to the answer.
        conclusion: 1 where the trace ends in the gold answer (a table's share of right pairs), else 0.
        faults: a line for each wrong thing.
    """

    score: float
    coverage: float | None
    arithmetic: float
    conclusion: float
    faults: tuple[str, ...] = ()


def check(trace: str, facts: list[dict[str, Any]] | None, question: str, answer: str) -> Checked:
    """How well `trace` reasons from `facts` to `answer`.

    The score is the weighted sum of the parts, divided by 1 + faults / 4. A conclusion that neither a
    reading nor a step supports counts half; without facts the other two parts share the weight. Nothing
    is earned by repeating, nor by a list of readings without a step and a conclusion (0.4 at most).

    Args:
        facts: in any form that `tables.read` takes, or None where the data has none.
        answer: the gold answer, compared by the `robust` scorer.
    """
    return _check(trace or "", json.dumps(facts or [], default=str), question, answer)


# The same trace is asked about for the reward and for its parts, and a group says many things twice.
@lru_cache(maxsize=4096)
def _check(trace: str, facts: str, question: str, answer: str) -> Checked:
    account = TraceState(table_of_json(facts), question)
    spoken = [each for each in sentences(trace) if each.heading not in UNCHECKED]
    spoken = [each for each in spoken if not each.text.endswith("?") and each.text != question.strip(" .")]
    for sentence in spoken:
        # "Final Answer: 7" and "so yes" are conclusions; what they rest on stands before them.
        if not sentence.heading.endswith("answer"):
            read(account, sentence.text)
    conclusion = conclude(spoken, account, answer)
    faults = list(account.faults)
    if conclusion.differs:
        faults.append(f"the conclusion is {conclusion.said!r}, not {answer!r}")
    elif conclusion.agrees and (loose := _loose(conclusion.said, account, answer)):
        faults.append(f"the conclusion {loose} follows from no fact or step")
    coverage = _coverage(account, answer) if account.table.cells else None
    return _scored(account, coverage, answer, conclusion.agrees, tuple(faults))


def wrong_steps(text: str) -> list[str]:
    """The calculations in a text that do not hold, whatever it is about."""
    account = TraceState(table_of_json("[]"), "")
    for sentence in sentences(text):
        read(account, sentence.text)
    return account.faults


def _loose(clause: str, account: TraceState, gold: str) -> str:
    """A conclusion's number that is near the gold answer but comes from nothing that was said."""
    found = [each for each in re.finditer(NUM, clause)]
    if len(found) != 1 or not account.has_facts or not is_number(gold, account.table):
        return ""
    said = number(found[0][0], bool(HEDGED.search(clause[: found[0].start()])))
    wanted = number(cleaned(gold).strip()).value
    near = said.hedged or same_result(said, wanted) or same_reading(said, wanted)
    # Another number than a known answer, or one from nowhere.
    return "" if near or (wanted not in account.known and account.is_known(said)) else found[0][0]


def _scored(
    account: TraceState, coverage: float | None, answer: str, agrees: float, faults: tuple[str, ...]
) -> Checked:
    """The parts put together, as `check` says."""
    steps = account.steps_right + account.steps_wrong
    if steps:
        leads = any(
            result is not None and scoring.robust(decimal(result), answer) for result in account.results
        )
        leads = leads or (agrees > 0 and not is_number(answer, account.table))
        arithmetic = account.steps_right / steps * (1.0 if leads else 0.5)
    elif coverage is None:
        arithmetic = 0.0
    else:
        # A look-up needs no step; anything else without one is half shown at best.
        must_reason = MUST_REASON.search(account.asked.text) and not gold_pairs(answer)
        arithmetic = (0.5 if must_reason else 1.0) * coverage * agrees
    supported = bool(coverage) or account.steps_right > 0
    ended = agrees * (1.0 if supported else 0.5)
    if coverage is None:
        score = (ARITHMETIC * arithmetic + CONCLUSION * ended) / (ARITHMETIC + CONCLUSION)
    else:
        score = COVERAGE * coverage + ARITHMETIC * arithmetic + CONCLUSION * ended
    return Checked(score / (1 + len(faults) / FAULTS_TO_HALVE), coverage, arithmetic, agrees, faults)


def _coverage(account: TraceState, answer: str) -> float:
    """Share of the needed rows that were read, times the share of readings that are right."""
    needed = account.needed
    labels = {account.table.cells[row].label for row in needed}
    # "The red line" names no series: reading any one of them through may be all that is needed.
    vague = not gold_pairs(answer) and not any(mention.series for mention in account.asked.mentions)
    enough = min(len(labels if vague else needed), ENOUGH_ROWS)
    told_of = min(1.0, sum(account.credit.get(row, 0.0) for row in needed) / enough)
    right = sum(1 for credit in account.credit.values() if credit == 1.0)
    told = right + account.pairs_wrong
    return told_of * (right / told if told else 1.0)


def thinking(completion: Completion, example: Example) -> float:
    """How well the completion reasons: against the facts, else the reference trace, else on its own."""
    trace = completion.parsed.reasoning or ""
    if not example.facts and example.reasoning:
        return lemma_f1(trace, example.reasoning)
    return check(trace, example.facts, example.question, example.answer).score


def thinking_lemma(completion: Completion, example: Example) -> float:
    """`lemma_f1` against the reference trace, the reward of "Pure DyME"; 0 where there is none."""
    return lemma_f1(completion.parsed.reasoning or "", example.reasoning or "")

"""Score a reasoning trace in [0, 1]: sentence by sentence, then its conclusion."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from toasterft.scoring.answers.values import robust
from toasterft.scoring.numbers import HEDGE, HEDGED, NUM, cleaned, decimal, number, same_reading, same_result
from toasterft.scoring.tables import Table, name_key
from toasterft.scoring.traces import arithmetic, claims, readings
from toasterft.scoring.traces.arithmetic import STEP
from toasterft.scoring.traces.sentences import (
    ASSIGNED,
    MUST_REASON,
    UNCHECKED,
    Sentence,
    TraceState,
    premises,
    sentences,
)

# Weights of the parts. Reading right counts most: it is what small models get wrong (DyME's facts).
COVERAGE, ARITHMETIC, CONCLUSION = 0.4, 0.3, 0.3
# One fault takes a fifth off, four take half: no trace with a fault reaches 0.9.
FAULTS_TO_HALVE = 4
# Reading this many needed rows is full coverage: nobody should recite a table of fifty.
ENOUGH_ROWS = 12


@dataclass(frozen=True)
class Checked:
    """The verdict on a trace.

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
    """Score how well `trace` reasons from `facts` to `answer`.

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
    state = TraceState(premises(facts, question))
    statements = [each for each in sentences(trace) if each.heading not in UNCHECKED]
    statements = [
        each for each in statements if not each.text.endswith("?") and each.text != question.strip(" .")
    ]
    for sentence in statements:
        # "Final Answer: 7" and "so yes" are conclusions; what they rest on stands before them.
        if not sentence.heading.endswith("answer"):
            _read(state, sentence.text)
    conclusion = conclude(statements, state, answer)
    faults = list(state.faults)
    if conclusion.differs:
        faults.append(f"the conclusion is {conclusion.clause!r}, not {answer!r}")
    elif conclusion.agrees and (loose := _loose(conclusion.clause, state, answer)):
        faults.append(f"the conclusion {loose} follows from no fact or step")
    coverage = _coverage(state, answer) if state.table.cells else None
    return _scored(state, coverage, answer, conclusion.agrees, tuple(faults))


def wrong_steps(text: str) -> list[str]:
    """The calculations in a text that do not hold, whatever it is about."""
    state = TraceState(premises("[]", ""))
    for sentence in sentences(text):
        _read(state, sentence.text)
    return state.faults


def _loose(clause: str, state: TraceState, gold: str) -> str:
    """A conclusion's number that is near the gold answer but comes from nothing before it."""
    found = [each for each in re.finditer(NUM, clause)]
    if len(found) != 1 or not state.has_facts or not is_number(gold, state.table):
        return ""
    reading = number(found[0][0], bool(HEDGED.search(clause[: found[0].start()])))
    wanted = number(cleaned(gold).strip()).value
    near = reading.hedged or same_result(reading, wanted) or same_reading(reading, wanted)
    # Another number than a known answer, or one from nowhere.
    return "" if near or (wanted not in state.known and state.is_known(reading)) else found[0][0]


def _scored(
    state: TraceState, coverage: float | None, answer: str, agrees: float, faults: tuple[str, ...]
) -> Checked:
    """Weigh the parts, as `check` says."""
    steps = state.steps_right + state.steps_wrong
    if steps:
        leads = any(result is not None and robust(decimal(result), answer) for result in state.results)
        leads = leads or (agrees > 0 and not is_number(answer, state.table))
        arithmetic = state.steps_right / steps * (1.0 if leads else 0.5)
    elif coverage is None:
        arithmetic = 0.0
    else:
        # A look-up needs no step; anything else without one is half shown at best.
        must_reason = MUST_REASON.search(state.question.text) and not gold_pairs(answer)
        arithmetic = (0.5 if must_reason else 1.0) * coverage * agrees
    supported = bool(coverage) or state.steps_right > 0
    ended = agrees * (1.0 if supported else 0.5)
    if coverage is None:
        score = (ARITHMETIC * arithmetic + CONCLUSION * ended) / (ARITHMETIC + CONCLUSION)
    else:
        score = COVERAGE * coverage + ARITHMETIC * arithmetic + CONCLUSION * ended
    return Checked(score / (1 + len(faults) / FAULTS_TO_HALVE), coverage, arithmetic, agrees, faults)


def _coverage(state: TraceState, answer: str) -> float:
    """Share of the needed rows that were read, times the share of readings that are right."""
    needed = state.needed
    labels = {state.table.cells[row].label for row in needed}
    # "The red line" names no series: reading any one of them through may be all that is needed.
    vague = not gold_pairs(answer) and not any(mention.series for mention in state.question.mentions)
    enough = min(len(labels if vague else needed), ENOUGH_ROWS)
    covered = min(1.0, sum(state.credit.get(row, 0.0) for row in needed) / enough)
    right = sum(1 for credit in state.credit.values() if credit == 1.0)
    judged = right + state.pairs_wrong
    return covered * (right / judged if judged else 1.0)


# --- sentence by sentence --------------------------------------------------------------------

# "7 plus 3"
_OPERATORS = tuple(
    (re.compile(rf"(?<=[\d%)\ue000-\uf8ff])\s+(?:{words})\s+(?=[-\d(.\ue000-\uf8ff])", re.IGNORECASE), sign)
    for words, sign in (
        ("plus", " + "),
        ("minus", " - "),
        ("times|multiplied by", " * "),
        ("divided by", " / "),
    )
)
# "5% of 20"
_PERCENT_OF = re.compile(r"(?<=%)\s+of\s+(?=\d)", re.IGNORECASE)


def _read(state: TraceState, sentence: str) -> None:
    """Judge every statement of one sentence."""
    for pattern, sign in _OPERATORS:
        sentence = pattern.sub(sign, sentence)
    folded = readings.fold_values_beside(state, state.table.fold(_PERCENT_OF.sub(" * ", sentence)))
    for pattern, sign in _OPERATORS:  # again, for names are now single characters
        folded = replace(folded, text=pattern.sub(sign, folded.text))
    text = folded.text
    for read in (*arithmetic.READERS, *claims.READERS):
        text = read(state, text, folded)
    readings.read_pairs(state, text, folded)
    readings.flag_unknown_names(state, text, folded)
    readings.credit_glimpses(state, folded)


# --- the end of the trace --------------------------------------------------------------------

# "The answer is", "Answer:"
_ANSWER_IS = re.compile(r"\banswers?\b\s*(?:is|are|would be|:|=)+\s*", re.IGNORECASE)
# "So", "which means that"
_SO = re.compile(
    r"(?:^|,\s*|\band\s+)(?:so|therefore|thus|hence|consequently|which means|this means|that means|in conclusion|"
    r"we conclude|that makes|this gives)\b[,:]?\s*(?:that\s+)?(?!that\b|far\b|the question\b)(?=\S)",
    re.IGNORECASE,
)
# "is about", `=`: "the value for red is 7" says 7
_COPULA = re.compile(rf"\s*(?:=|≈|:)\s*|\s+(?:is|are|was|were|equals)\s+(?:{HEDGE}\s+)?", re.IGNORECASE)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
# `red = 7`
_GOLD_PAIR = re.compile(rf"\s*([^=,]+?)\s*=\s*({NUM})\s*")


def gold_pairs(gold: str) -> set[tuple[str, Fraction]] | None:
    """A transcription's pairs, where the gold answer is a table."""
    parts = [_GOLD_PAIR.fullmatch(part) for part in cleaned(gold).strip(" .").split(",")]
    if len(parts) < 2 or not all(parts):
        return None
    return {(name_key(found[1]), number(found[2]).value) for found in parts if found}


@dataclass(frozen=True)
class Conclusion:
    """What the trace ends in: how far it agrees with the gold answer, and whether it contradicts it."""

    agrees: float
    clause: str = ""
    differs: bool = False


def conclude(statements: list[Sentence], state: TraceState, gold: str) -> Conclusion:
    """Compare the trace's conclusion with the gold answer."""
    if not statements or not gold.strip():
        return Conclusion(0.0)
    if wanted := gold_pairs(gold):
        return _table_conclusion(statements, wanted)
    given = {each.split()[0] for each in re.findall(NUM, state.question.text)}
    clause, outright = _last_word(statements)
    verdict = _agrees(clause, gold, state.table, given, outright)
    if verdict is None and outright and clause.count(" ") < 4:
        verdict = False  # a short answer that is something else altogether
    if verdict is False and _agrees(statements[-1].text, gold, state.table, given, False):
        verdict = True  # the last sentence says it plainly
    if not outright:
        # A remark after the conclusion takes nothing back.
        for sentence in statements[-2:-4:-1] if verdict is None else ():
            if _agrees(sentence.text, gold, state.table, given, False):
                clause, verdict = sentence.text, True
        # A trace that ends in a calculation or reading has given its answer.
        outright = state.last != "" and clause.endswith(state.last.strip()[-8:])
    stray = _YES_NO.match(gold.strip()) and any(
        word[0].lower() != gold.strip().lower()
        for sentence in statements
        if (found := _SO.search(sentence.text)) and (word := _YES_NO.fullmatch(sentence.text[found.end() :]))
    )
    differs = bool(stray) or (verdict is False and outright)
    return Conclusion(float(bool(verdict) and not stray), clause, differs)


def _table_conclusion(statements: list[Sentence], wanted: set[tuple[str, Fraction]]) -> Conclusion:
    pairs = {
        (name_key(found[1]), number(found[2]).value)
        for sentence in statements
        for part in sentence.text.split(",")
        if (found := _GOLD_PAIR.fullmatch(part))
    }
    return Conclusion(len(pairs & wanted) / len(pairs | wanted), statements[-1].text, bool(pairs - wanted))


def _last_word(statements: list[Sentence]) -> tuple[str, bool]:
    """The clause that concludes, and whether it is marked as a conclusion."""
    for sentence in reversed(statements):
        if sentence.heading.endswith("answer"):
            return _ANSWER_IS.split(sentence.text)[-1], True
        if found := _ANSWER_IS.search(sentence.text):
            return sentence.text[found.end() :], True
    body = [sentence for sentence in statements if not sentence.heading.endswith("check")]
    for sentence in reversed(body[-2:]):
        if marks := list(_SO.finditer(sentence.text)):
            return sentence.text[marks[-1].end() :], True
    return (body or statements)[-1].text, False


def _agrees(clause: str, gold: str, table: Table, given: set[str], outright: bool) -> bool | None:
    """Whether a clause states the gold answer; None where it states nothing of its kind.

    `given` are the question's own numbers; a clause that is not `outright` a conclusion may be a list of
    readings, which concludes nothing.
    """
    clause = clause.strip(" .")
    if not outright and sum(bool(ASSIGNED.fullmatch(part.strip())) for part in clause.split(",")) > 1:
        return None
    if robust(clause, gold) or robust(_COPULA.split(clause)[-1], gold):
        return True
    if re.fullmatch(r"(?i)yes|no", gold.strip()):
        verdicts = {word.lower() for word in _YES_NO.findall(clause)}
        return robust(verdicts.pop(), gold) if len(verdicts) == 1 else None
    folded = table.fold(clause)
    names = [mention for _, mention in folded.placed]
    numbers = re.findall(NUM, folded.text) or re.findall(NUM, clause)
    if is_number(gold, table):
        if not numbers:
            return None
        calculated = "=" in clause or STEP.search(clause)
        candidates = numbers[-1:] if calculated or len(numbers) > 3 else numbers
        own = [each for each in numbers if each.split()[0] not in given]
        if not outright and not calculated and len(own) > 1:
            return None
        # "35 million" is the 35 of a chart in millions; a number of the question is no answer to it.
        if any(
            robust(each, gold) for far in (candidates[0], candidates[-1]) for each in (far, far.split()[0])
        ):
            return True
        return False if calculated or len(own) == 1 else None
    if names:
        key = name_key(gold)
        # A bare list of names picks none of them.
        several = len({each.rows for each in names}) > 2
        picks = not several or re.search(r"\b(?:is|has|was|had)\b", clause)
        near = names[: 1 if several else None] if picks else []
        if any(key in (name_key(each.text), each.label, each.series) for each in near):
            return True
        if several:
            return None
        return False if key in table.by_label or key in table.by_series else None
    words = rf"(?<!\w){re.escape(name_key(gold))}(?!\w)"
    return True if re.search(words, name_key(clause)) else None


def is_number(gold: str, table: Table) -> bool:
    """Whether the answer is an amount: the label 2015 is none."""
    return bool(re.fullmatch(NUM, cleaned(gold).strip())) and name_key(gold) not in table.by_label

"""What a trace ends in: the last of "so X" or "the answer is X", or its last statement, against the gold answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from toasterft import scoring
from toasterft.scoring.numbers import HEDGE, NUM, cleaned, number
from toasterft.scoring.tables import NAME, Table, name_key
from toasterft.scoring.traces.arithmetic import STEP
from toasterft.scoring.traces.grammar import ASSIGNED
from toasterft.scoring.traces.sentences import Sentence
from toasterft.scoring.traces.state import TraceState

_ANSWER_IS = re.compile(r"\banswers?\b\s*(?:is|are|would be|:|=)+\s*", re.IGNORECASE)
_SO = re.compile(
    r"(?:^|,\s*|\band\s+)(?:so|therefore|thus|hence|consequently|which means|this means|that means|in conclusion|"
    r"we conclude|that makes|this gives)\b[,:]?\s*(?:that\s+)?(?!that\b|far\b|the question\b)(?=\S)",
    re.IGNORECASE,
)
_COPULA = re.compile(rf"\s*(?:=|≈|:)\s*|\s+(?:is|are|was|were|equals)\s+(?:{HEDGE}\s+)?", re.IGNORECASE)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_GOLD_PAIR = re.compile(rf"\s*([^=,]+?)\s*=\s*({NUM})\s*")


def gold_pairs(gold: str) -> set[tuple[str, Fraction]] | None:
    """A transcription's pairs, where the gold answer is a table."""
    parts = [_GOLD_PAIR.fullmatch(part) for part in cleaned(gold).strip(" .").split(",")]
    if len(parts) < 2 or not all(parts):
        return None
    return {(name_key(found[1]), number(found[2]).value) for found in parts if found}


@dataclass(frozen=True)
class Conclusion:
    """What the trace ends in: how far it agrees, and whether it says something else outright."""

    agrees: float
    said: str = ""
    differs: bool = False


def conclude(spoken: list[Sentence], account: TraceState, gold: str) -> Conclusion:
    """The trace's last word against the gold answer."""
    if not spoken or not gold.strip():
        return Conclusion(0.0)
    if wanted := gold_pairs(gold):
        return _table_conclusion(spoken, wanted)
    asked = {each.split()[0] for each in re.findall(NUM, account.asked.text)}
    clause, outright = _last_word(spoken)
    verdict = _agrees(clause, gold, account.table, asked, outright)
    if verdict is None and outright and clause.count(" ") < 4:
        verdict = False  # a short answer that is something else altogether
    if verdict is False and _agrees(spoken[-1].text, gold, account.table, asked, False):
        verdict = True  # the last sentence says it plainly
    if not outright:
        # A remark after the conclusion takes nothing back.
        for sentence in spoken[-2:-4:-1] if verdict is None else ():
            if _agrees(sentence.text, gold, account.table, asked, False):
                clause, verdict = sentence.text, True
        # A trace that ends in a calculation or reading has said its answer.
        outright = account.last != "" and clause.endswith(account.last.strip()[-8:])
    stray = _YES_NO.match(gold.strip()) and any(
        said[0].lower() != gold.strip().lower()
        for sentence in spoken
        if (found := _SO.search(sentence.text)) and (said := _YES_NO.fullmatch(sentence.text[found.end() :]))
    )
    return Conclusion(
        float(bool(verdict) and not stray), clause, bool(stray) or (verdict is False and outright)
    )


def _table_conclusion(spoken: list[Sentence], wanted: set[tuple[str, Fraction]]) -> Conclusion:
    said = {
        (name_key(found[1]), number(found[2]).value)
        for sentence in spoken
        for part in sentence.text.split(",")
        if (found := _GOLD_PAIR.fullmatch(part))
    }
    return Conclusion(len(said & wanted) / len(said | wanted), spoken[-1].text, bool(said - wanted))


def _last_word(spoken: list[Sentence]) -> tuple[str, bool]:
    """The clause that concludes, and whether it is marked as a conclusion."""
    for sentence in reversed(spoken):
        if sentence.heading.endswith("answer"):
            return _ANSWER_IS.split(sentence.text)[-1], True
        if found := _ANSWER_IS.search(sentence.text):
            return sentence.text[found.end() :], True
    told = [sentence for sentence in spoken if not sentence.heading.endswith("check")]
    for sentence in reversed(told[-2:]):
        if marks := list(_SO.finditer(sentence.text)):
            return sentence.text[marks[-1].end() :], True
    return (told or spoken)[-1].text, False


def _agrees(clause: str, gold: str, table: Table, asked: set[str], outright: bool) -> bool | None:
    """Whether a clause states the gold answer; None where it states nothing of its kind.

    `asked` are the question's own numbers; a clause that is not `outright` a conclusion may be a list of
    readings, which concludes nothing.
    """
    clause = clause.strip(" .")
    if not outright and sum(bool(ASSIGNED.fullmatch(part.strip())) for part in clause.split(",")) > 1:
        return None
    if scoring.robust(clause, gold) or scoring.robust(_after_copula(clause), gold):
        return True
    if re.fullmatch(r"(?i)yes|no", gold.strip()):
        said = {word.lower() for word in _YES_NO.findall(clause)}
        return scoring.robust(said.pop(), gold) if len(said) == 1 else None
    folded = table.fold(clause)
    names = [folded[found] for found in re.findall(NAME, folded.text)]
    numbers = re.findall(NUM, folded.text) or re.findall(NUM, clause)
    if is_number(gold, table):
        if not numbers:
            return None
        calculated = "=" in clause or STEP.search(clause)
        told = numbers[-1:] if calculated or len(numbers) > 3 else numbers
        own = [each for each in numbers if each.split()[0] not in asked]
        if not outright and not calculated and len(own) > 1:
            return None
        # "35 million" is the 35 of a chart in millions; a number of the question is no answer to it.
        if any(scoring.robust(each, gold) for far in (told[0], told[-1]) for each in (far, far.split()[0])):
            return True
        return False if calculated or len(own) == 1 else None
    if names:
        key = name_key(gold)
        # A bare list of names picks none of them.
        several = len({each.rows for each in names}) > 2
        near = (
            names[:1]
            if several and re.search(r"\b(?:is|has|was|had)\b", clause)
            else names[:0]
            if several
            else names
        )
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


def _after_copula(clause: str) -> str:
    """What follows the last "is" or "=": "the value for red is 7" says 7."""
    return _COPULA.split(clause)[-1]

"""The derivation that a question means, among all that its words allow; comparisons are answered here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from toasterft.scoring import lexicon, robust
from toasterft.scoring.numbers import fraction
from toasterft.scoring.tables import Table, name_key
from toasterft.teachers.rules import claims, derive
from toasterft.teachers.rules.question import Question, words
from toasterft.teachers.rules.terms import NAMED, Term, conclude, order, rounding_to

YES_NO = ("yes", "no")
# What makes a way more or less likely to be the one that was meant; set by looking at 100 traces.
REQUIRED, USED, UNUSED, GUESSED, STEP, ROUNDED = 0.5, 0.1, 0.1, 0.2, 0.05, 0.005
ABOUT_AS_GOOD = 0.1
# A calculation that the words only may ask for needs its cells well named.
CALCULATIONS = frozenset({"sum", "difference", "ratio"})
WELL_NAMED, HARDLY_NAMED = 0.6, 0.3
# What an answer is in the table: 56 for 0.56, 0.15 for 15 %, 64 for 64000 where the axis says thousands.
SCALES = (Fraction(1), Fraction(1, 100), Fraction(100), Fraction(1000))
NOT_WORKED_OUT = (
    r"twice|double|half|missing|intersect\w*|growth|grew|if|except|excluding|other than|"
    "next|previous|consecutive"
)


def choose(table: Table, text: str, answer: str | None, *, careful: bool = False) -> Term | None:
    """The way that fits a question best, among those that end in `answer` where it is given.

    Args:
        careful: leave alone what could end in the answer by luck: a mark that is named only by what the picture
            shows ("the green line"), and wording that no operation here works out ("twice the sum").
    """
    question = Question(text, (*table.labels, *table.series))
    if careful and question.has(NOT_WORKED_OUT):
        return None
    compared = comparisons(table, question)
    if answer is None:
        return _best(compared or derive.terms(table, question), question)
    if answer.strip().lower() in YES_NO:
        # Half of all comparisons end in the answer by chance, so it must be one of the best.
        least = max((_score(term, question) for term in compared), default=0.0) - ABOUT_AS_GOOD
        right = [term for term in compared if term.picks == answer.strip().lower()]
        return _best((term for term in right if _score(term, question) >= least), question)
    several = _numbers(answer)
    if several:
        found = list(claims.lists(table, question, several))
    else:
        wanted = _wanted(answer)
        every = list(derive.terms(table, question, wanted))
        reached = rounding_to((term.value for term in every if not term.only_name), wanted)
        ending = [_ending(term, answer, wanted, reached) for term in every]
        found = [term for term in ending if term is not None]
    best = _best((term for term in found if _plausible(term, found, question)), question)
    if careful:
        return best if best and (best.used or best.only_name or best.fit >= NAMED) else None
    return best or _by_looks(table, question, answer, found)


def _best(found: Iterable[Term], question: Question) -> Term | None:
    return max(found, key=lambda term: _score(term, question), default=None)


def _by_looks(table: Table, question: Question, answer: str, found: Sequence[Term]) -> Term | None:
    """What only the picture can tell, "the largest bar", "the green line", where one mark bears the answer."""
    lone = [term for term in found if len(term.readings) == 1 and not term.used and not term.only_name]
    # "The median income in 2014" is read off at 2014, whatever the curve is called.
    best = max(lone, key=lambda term: (term.fit, len(term.readings[0].label)), default=None)
    only_the_picture = question.required <= {"largest", "smallest"}
    # Names that were read off in two pieces carry their value twice: the longer piece is taken.
    of_one_series = len({term.readings[0].series for term in lone}) == 1
    if best is not None and of_one_series and (only_the_picture or best.fit >= NAMED):
        return best
    if only_the_picture:
        return next(iter(claims.legends(table, question, answer.strip())), None)
    return None


def _numbers(answer: str) -> list[Fraction]:
    """The numbers of an answer such as `[47, 43]`; none where it is no such list."""
    inner = re.fullmatch(r"\[(.+,.+)\]", answer.strip())
    values = [fraction(part) for part in inner[1].split(",")] if inner else []
    return [value for value in values if value is not None] if None not in values else []


def _wanted(answer: str) -> frozenset[Fraction]:
    """The numbers in the table's own units that an answer may be."""
    value = fraction(answer)
    if value is None:
        return frozenset()
    return frozenset(value / scale for scale in SCALES if _is_scaled(value, scale))


def _is_scaled(value: Fraction, scale: Fraction) -> bool:
    """Whether a table may be so much smaller than an answer."""
    if scale < 1:
        return value.denominator != 1 and abs(value) <= 1
    return scale == 1 or (value.denominator == 1 and value >= (1000 if scale == 1000 else 1))


def _ending(term: Term, answer: str, wanted: frozenset[Fraction], reached: set[Fraction]) -> Term | None:
    """The way as one that ends in the answer, by its name or its number; None where neither is.

    Args:
        reached: values that round to a wanted one.
    """
    if term.picks:
        same_number = fraction(answer) == fraction(term.picks)
        if name_key(term.picks) == name_key(answer) or (same_number and robust(term.picks, answer)):
            return term
    if term.only_name or term.value not in reached:
        return None
    return replace(term, picks="", fit=term.fit if term.value in wanted else term.fit - ROUNDED)


def _score(term: Term, question: Question) -> float:
    return (
        term.fit
        + REQUIRED * len(term.used & question.required)
        + USED * len(term.used & question.operations)
        - UNUSED * len(question.operations - term.used)
        - GUESSED * len(term.used & CALCULATIONS - question.required)
        - STEP * len(term.steps)
    )


def _plausible(term: Term, found: Sequence[Term], question: Question) -> bool:
    """Nothing the question surely asks for is left out, and the way is named or the only one of its kind."""
    if not _is_meant(term, question):
        return False
    if term.fit >= NAMED:
        return True
    alike = {
        # Zeros that may be gaps make no other way of it.
        other.picks or (tuple(cell for cell in other.readings if cell.value), other.steps)
        for other in found
        if other.used == term.used and other.fit >= term.fit - 0.01
    }
    return len(alike) == 1 and (not term.free or term.fit >= HARDLY_NAMED)


def _is_meant(term: Term, question: Question) -> bool:
    """Every required operation is carried out, and no more than one that the words only may mean."""
    if question.required - term.used:
        return False
    perhaps = term.used & CALCULATIONS - question.required
    return not perhaps or term.only_name or (len(perhaps) == 1 and (term.fit >= WELL_NAMED or not term.free))


# --- yes and no ------------------------------------------------------------------------------

# "Is red …", "…, and are there …"
_YES_NO_QUESTION = re.compile(
    r"(?:^|[,.]|\band\b)\W*(?:is|are|was|were|do|does|did|has|have|can|will)\b", re.IGNORECASE
)
_ONLY_ASKS = re.compile(r"\W*(?:is|are|was|were|do|does|did)\W+(?:there\W*)?", re.IGNORECASE)  # "Are there "
_AMOUNT = re.compile(r"\b(?!(?:19|20)\d\d\b)\d[\d.,]*%?")  # 5.5%, no year
_LITERAL = re.compile(r"\W*(\d[\d,.]*?)\W*")  # "than 40?"
_THAN = words("tha?[en]")
# "greater than", "the same as"
_BETWEEN = re.compile(
    rf"\b(?:(?P<greater>{lexicon.MORE}|exceeds?|ahead)|(?P<smaller>{lexicon.FEWER})|"
    r"(?P<equal>equals?(?: to)?|same|similar|exactly))\b(?:\s+(?:than|then|to|as))?",
    re.IGNORECASE,
)


def comparisons(table: Table, question: Question) -> list[Term]:
    """Comparisons of what stands before and after "greater than", or of one number with the question's."""
    if not _YES_NO_QUESTION.search(question.text):
        return []
    whole: list[Term] = []
    if len(table.series) >= 2 and question.has("always"):
        whole += claims.always(table, question)
    if question.has("there (?:any|an?|two)"):
        whole += claims.existing(table, question)
    if whole:
        return whole
    out = []
    for found in _BETWEEN.finditer(question.text):
        left, right = (_side(table, replace(question, text=text)) for text in _halves(question.text, found))
        sign = next(name for name in ("greater", "smaller", "equal") if found[name])
        out += [_verdict(first, second, sign) for first in left for second in right]
    if not any(out) and question.numbers:
        number = Term(question.numbers[-1], (), fit=0.5)
        rest = replace(question, text=_AMOUNT.sub("", question.text))
        out += [_verdict(first, number, "equal") for first in _side(table, rest)]
    return [verdict for verdict in out if verdict is not None]


def _halves(text: str, found: re.Match[str]) -> tuple[str, str]:
    """What is compared with what: the text before and after the comparing word, as a rule."""
    before, after = text[: found.start()], text[found.end() :]
    than = _THAN.search(after)
    if than and _ONLY_ASKS.fullmatch(before):
        # "Are there more A than B"
        return after[: than.start()], after[than.end() :]
    if found["equal"] and not re.search(r"\w", after):
        # "Are A and B equal"
        first, _, second = before.partition(" and ")
        return first, second
    return before, after


def _side(table: Table, question: Question) -> list[Term]:
    """The best readings of one side of a comparison: what it names, or a number as it stands."""
    literal = _LITERAL.fullmatch(question.text)
    value = fraction(literal[1]) if literal else None
    if value is not None:
        return [Term(value, (), fit=0.5)]
    found = [term for term in derive.terms(table, question) if _is_meant(term, question)]
    ranked = sorted(found, key=lambda term: -_score(term, question))[:2]
    return [term for term in ranked if term.fit >= NAMED or term.used]


def _verdict(first: Term, second: Term, sign: str) -> Term | None:
    """Two numbers compared; None where both are the same figure."""
    a, b = first.value, second.value
    if first.readings == second.readings and first.steps == second.steps:
        return None
    answer = YES_NO[not {"greater": a > b, "smaller": a < b, "equal": a == b}[sign]]
    lead = [step for term in (first, second) if term.used for step in term.steps]
    return Term(
        a,
        tuple(dict.fromkeys((*first.readings, *second.readings))),
        (*dict.fromkeys(lead), conclude(order((a, b)), answer)),
        (*dict.fromkeys((*first.rechecks, *second.rechecks)), f"{order((b, a))}."),
        (first.fit + second.fit) / 2,
        first.used | second.used | CALCULATIONS,
        picks=answer,
        only_name=True,
    )

"""Statements about several rows at once: counts, lists, order, extremes and trends."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import islice, pairwise, product

from toasterft.data.charts.phrases import trend
from toasterft.scoring import lexicon
from toasterft.scoring.numbers import HEDGE, NUM, WORD_NUMBERS, Number, number, numbers_in, same_reading
from toasterft.scoring.tables import MARK_NOUN, NAME, Folded, name_key
from toasterft.scoring.traces.sentences import BOUND, FEWER, GENERIC, MORE, OPERAND, POINTS, USED, TraceState

# `3 < 5 > 4`
_CHAIN = re.compile(rf"{OPERAND}(?:\s*[<>]\s*{OPERAND})+")
# "red is not much higher than the value of blue"
_COMPARED = re.compile(
    rf"(?P<a>{OPERAND})\s+(?:(?:is|are|was|were|has|have|had|lies|stands|reaches)\s+)?(?P<not>not\s+)?"
    rf"(?:(?:a|an|much|slightly|also|clearly|still|far|well|only)\s+)*(?:(?P<more>{MORE}|exceeds)|(?P<fewer>{FEWER}))"
    rf"(?:\s+(?:values?|share|percentage|number|bar))?(?:\s+than)?(?:\s+that\s+(?:of|for))?\s+(?P<b>{OPERAND})",
    re.IGNORECASE,
)
# "Above 5: red, blue", "the bars over 5 are red and blue"
_LISTED = re.compile(
    rf"(?:^|(?P<lead>\b\w{{3,}}s|\b{MARK_NOUN}|\bthose|\bonly|\bthat\s+are)\s+)(?P<not>not\s+)?{BOUND}{POINTS}"
    rf"(?:\s+for\s+{NAME})?\s*(?::|are|is|include)\s*:?\s*"
    rf"(?P<names>none\b|no\s+\w+|{NAME}(?:\s*(?:,\s*and|,|and|&)\s*{NAME})*|[^.;]*$)",
    re.IGNORECASE,
)
_COUNT = rf"(?P<count>{NUM}|{'|'.join(WORD_NUMBERS)})"
# "two of the bars are above 5"
_SO_MANY_ARE = re.compile(
    rf"(?<![\w-]){_COUNT}\s+(?:of\s+(?:them|these|(?:the|these)\s+(?:\w+\s+)?{MARK_NOUN})|(?:\w+\s+)?{MARK_NOUN}|"
    rf"\w{{3,}}s)\s*(?:that\s+)?(?:are|is|have|has|lie|lies|were|with|stand)?\s*(?:a\s+)?(?:values?\s+)?"
    rf"(?P<not>not\s+)?{BOUND}",
    re.IGNORECASE,
)
# "There are 3 bars, so 3"
_THERE_ARE = re.compile(
    rf"there\s+(?:are|is)\s+{_COUNT}\s+(?P<noun>{MARK_NOUN}|series)(?:\s*,\s*so\s+(?P<again>{NUM}))?",
    re.IGNORECASE,
)
# "Counted: red, blue"
_COUNTED = re.compile(r"counted:\s*(?P<names>.+)", re.IGNORECASE)
# "The labels are red, blue and green"
_NAMES_ARE = re.compile(
    rf"(?:the\s+)?\w{{3,}}s\s+are:?\s+(?P<names>{NAME}(?:(?:\s*,\s*and|\s*,|\s+and)\s+{NAME})+)",
    re.IGNORECASE,
)
# "So there are 3 bars in total"
_SO_MANY = re.compile(
    rf"(?:so|thus|therefore|hence|that\s+makes|that\s+is|making|in\s+total)\s*,?\s+(?:there\s+(?:are|is)\s+|that\s+is\s+|"
    rf"it\s+is\s+|the\s+(?:count|number|total|answer)\s+is\s+)?{_COUNT}(?:\s+{MARK_NOUN})?(?:\s+in\s+(?:all|total))?",
    re.IGNORECASE,
)

_LARGEST = rf"(?:{lexicon.LARGEST}|peak|top)"
_SMALLEST = f"(?:{lexicon.SMALLEST}|{lexicon.SMALLEST_LOOSE})"
_WORST = rf"(?:(?P<large>(?:the\s+)?(?:{_LARGEST}|(?<=the\s)most))|(?P<small>(?:the\s+)?{_SMALLEST}))\b"
_EXTREME_NOUN = (
    rf"(?:\s+(?:{MARK_NOUN}|one|number|share|percentage|amount|figure|rate|count|reading|"
    r"of\s+(?:all|them|these)|(?:on|in|of)\s+(?:the|this)\s+(?:line|chart|graph|table|bars|values)))*"
)
# "The largest value is 18, so pink", "the lowest bar is red at 3"
_EXTREME = re.compile(
    rf"(?<!second\s)(?<!third\s)(?<!second-)(?<!not\s)(?<!not\sthe\s)(?<!than\s)(?<!than\sthe\s)\b{_WORST}{_EXTREME_NOUN}"
    rf"(?:\s+for\s+(?P<scope>{NAME}))?\s*"
    rf"(?:(?:is|was|:|=|belongs\s+to|goes\s+to|at|of|,|\(|with|by|are|the\s+one\s+(?:of|for))\s*)*(?:{HEDGE}\s*)?"
    rf"(?:(?P<value>{NUM})|(?P<name>{NAME}))?"
    rf"(?:\s*,?\s*(?:(?:so|for|at|with|in|which\s+is|and\s+it\s+is|reached\s+by|that\s+is|belonging\s+to|from|it\s+is|"
    rf"the\s+\w+\s+is|its\s+\w+\s+is)\s+)+"
    rf"(?:a\s+value\s+of\s+)?(?:(?P<value2>{NUM})|(?P<name2>{NAME})|(?P<other>\w+)$))?",
    re.IGNORECASE,
)
# "green has the" before "largest value"
_HAS_EXTREME = re.compile(
    rf"({OPERAND})\s*,?\s*(?:(?:is|has|was|had|shows?|reaches|with|being|at|as|of)\s+)*$", re.I
)
_SUMMED = re.compile(r"\b(?:sum|total|combined|together|average|mean|difference|gap|change|increase)\b", re.I)

_CHAIN_VERDICT = re.compile(r"\bso\s+(rising|falling|neither)\b", re.IGNORECASE)
# "The values keep rising"
_TREND = re.compile(
    r"\b(?:trend|values?|numbers?|line|it|they)\s+(?:is|are|keeps?|always|steadily|\s)+(rising|falling|increasing|"
    r"decreasing|rises?|falls?|increases?|decreases?|neither)\b",
    re.IGNORECASE,
)


def read_counts(state: TraceState, text: str, folded: Folded) -> str:
    """Lists of what is above or below a bound, and how many there are."""
    if not state.has_facts:
        return text
    if found := _THERE_ARE.fullmatch(text):
        count = int(number(found["count"]).value)
        noun, sizes = found["noun"].lower(), {len(state.table.cells), len(state.table.by_label)}
        if noun.startswith("series"):
            sizes = {len(state.table.by_series) or 1}
        elif noun.startswith("label") or noun.startswith("categor"):
            sizes = {len(state.table.by_label)}
        right = count in sizes and (found["again"] is None or number(found["again"]).value == count)
        state.add_step(right, folded.plain(found[0]), Fraction(count))
        return USED
    if found := _COUNTED.fullmatch(text):
        names = [folded.plain(each).strip().lower() for each in found["names"].split(",")]
        state.listed = len(names)
        groups = ([row.name for row in state.table.cells], state.table.by_label, state.table.by_series)
        right = any(sorted(names) == sorted(name_key(name) for name in group) for group in groups)
        state.add_step(right, folded.plain(found[0]))
        return USED
    if state.listed is not None and (found := _SO_MANY.fullmatch(text)):
        total = number(found["count"]).value
        # Either the last list is counted, or one before it that has been counted already.
        right = total == state.listed or total in state.results
        state.add_step(right, f"{state.listed} listed, but {folded.plain(text)}", total)
        return USED
    if found := _NAMES_ARE.fullmatch(text):
        state.listed = len(re.findall(NAME, found["names"]))
        return text
    text = _LISTED.sub(lambda found: _list(state, found, folded), text)
    return _SO_MANY_ARE.sub(lambda found: _so_many(state, found, folded), text)


def _beyond(state: TraceState, found: re.Match[str], scope: frozenset[int]) -> frozenset[int]:
    bound, above = number(found["bound"]).value, bool(found["above"]) != bool(found["not"])
    values = ((row, state.value(row)) for row in scope)
    return frozenset(
        row for row, value in values if value is not None and (value > bound if above else value < bound)
    )


def _list(state: TraceState, found: re.Match[str], folded: Folded) -> str:
    names = re.sub(r"^(?:none|no\s+\w+)$", "", found["names"].strip(), flags=re.I)
    mentions = re.findall(NAME, names)
    if not mentions and names:
        if found["lead"] is None and found["names"] and ":" in found[0]:
            state.add_step(False, folded.plain(found[0]))  # a list of names that the facts do not have
            return USED
        return found[0]
    unknown = re.sub(rf"{NAME}|\band\b|[,&\s]", "", names)
    state.listed = len(mentions)
    right = not unknown and any(
        len(mentions) == len(rows := _beyond(state, found, scope))
        and all(folded[each].rows & rows for each in mentions)
        and len({folded[each].rows for each in mentions}) == len(mentions)
        for scope in state.scopes(folded)
    )
    state.add_step(right, folded.plain(found[0]), Fraction(len(mentions)))
    return USED


def _so_many(state: TraceState, found: re.Match[str], folded: Folded) -> str:
    count = number(found["count"]).value
    if count > len(state.table.cells):
        return found[0]  # an amount, not a count
    right = any(len(_beyond(state, found, scope)) == count for scope in state.scopes(folded))
    state.add_step(right, folded.plain(found[0]), count)
    return USED


def read_order(state: TraceState, text: str, folded: Folded) -> str:
    """Comparisons: `15 > 8`, `3 < 5 > 4`, "red is higher than blue"."""

    def chain(found: re.Match[str]) -> str:
        operands = re.findall(OPERAND, found[0])
        values = [next(iter(state.options(each, folded)), None) for each in operands]
        signs = re.findall("[<>]", found[0])
        if any(value is None for value in values):
            return USED
        numbers = [value for value in values if value is not None]
        holds = all(
            a.value < b.value if sign == "<" else a.value > b.value
            for sign, (a, b) in zip(signs, pairwise(numbers))
        )
        stray = [operand for operand, value in zip(operands, numbers) if not state.is_known(value)]
        state.add_step(holds and not stray, folded.plain(found[0]))
        return USED

    def compared(found: re.Match[str]) -> str:
        pairs = list(islice(product(*(state.options(found[each], folded) for each in "ab")), 16))
        verdicts = {(a.value > b.value if found["more"] else a.value < b.value) for a, b in pairs}
        right = None if len(verdicts) != 1 else verdicts.pop() != bool(found["not"])
        right = right and all(map(state.is_known, numbers_in(found[0])))
        state.add_step(right, folded.plain(found[0]))
        return USED

    return _COMPARED.sub(compared, _CHAIN.sub(chain, text))


def read_extremes(state: TraceState, text: str, folded: Folded) -> str:
    """ "The largest is 18, so pink", "pink has the highest value", "the lowest bar is red at 3"."""
    if not state.has_facts or _SUMMED.search(text):
        return text
    pieces, end = [], 0
    for found in _EXTREME.finditer(text):
        names = [name for name in (found["name"], found["name2"]) if name]
        values = [value for value in (found["value"], found["value2"]) if value]
        start = found.start()
        if not (names and values) and (owner := _HAS_EXTREME.search(text[end:start])):
            (names if re.fullmatch(NAME, owner[1]) else values).append(owner[1])
            start = end + owner.start()
        if not (names or values):
            continue
        stranger = bool(values and not names and found["other"]) and not GENERIC.search(found["other"])
        right = not stranger and _is_extreme(
            state, bool(found["large"]), names, [number(value) for value in values], folded, found["scope"]
        )
        step = folded.plain(text[start : found.end()])
        state.add_step(right, step, number(values[0]).value if values else None)
        if right and names and values:
            at = [folded[name].rows for name in names]
            held = state.rows_with((row for rows in at for row in rows), number(values[0]))
            state.credit |= {row: 1.0 for row in held if len(held) == 1}
        state.last = step
        pieces += [text[end:start], USED]
        end = found.end()
    return "".join([*pieces, text[end:]])


def _is_extreme(
    state: TraceState,
    large: bool,
    names: list[str],
    values: list[Number],
    folded: Folded,
    scoped: str | None,
) -> bool:
    """Whether some group of rows has this extreme value at this name."""
    for scope in [folded[scoped].rows] if scoped else state.scopes(folded):
        numbers = [value for row in scope if (value := state.value(row)) is not None]
        if not numbers:
            continue
        best = max(numbers) if large else min(numbers)
        holders = {row for row in scope if state.value(row) == best}
        if all(same_reading(value, best) for value in values) and all(
            folded[name].rows & holders for name in names
        ):
            return True
    return False


def read_trends(state: TraceState, text: str, folded: Folded) -> str:
    """ "The values keep rising", where the question asks for a trend."""
    found = _CHAIN_VERDICT.search(text) or _TREND.search(text)
    if not (found and state.has_facts and state.asks_trend):
        return text
    scopes = state.scopes(folded)
    if len(scopes) > 1 and len(state.table.by_series) > 1 and len(scopes[0]) == len(state.table.cells):
        return text  # several series and none named: which one is meant cannot be told
    values = [value for row in sorted(scopes[0]) if (value := state.value(row)) is not None]
    state.add_step(trend(values) == _verdict(found[1]), folded.plain(found[0]))
    return text


def _verdict(word: str) -> str:
    word = word.lower()
    return "neither" if word == "neither" else "rising" if word[:3] in ("ris", "inc") else "falling"


READERS = (read_counts, read_order, read_extremes, read_trends)

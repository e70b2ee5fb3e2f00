"""Readings: a name and a value beside each other, in the forms that people write them in."""

from __future__ import annotations

import re
from dataclasses import replace

from toasterft.scoring.numbers import HEDGE, HEDGED, NUM, Number, number, numbers_in
from toasterft.scoring.tables import FIRST_NAME, NAME, Folded, Mention
from toasterft.scoring.traces.sentences import ASSIGNED, GENERIC, USED, TraceState, lemmas

# Words that may stand between a name and its value.
_FILL = (
    "is|was|are|were|be|being|has|had|have|having|shows?|showing|showed|stands?|at|of|the|a|an|values?|reads?|reading|"
    "reaches|reached|equals?|equal|with|it|its|which|exactly|only|just|also|bar|bars|slice|point|percentage|share|"
    "number|figure|height|count|labell?ed|recorded|chart|data|as|indicated|by|displays?|"
    "displayed|there|this|measured|marked|sits|scored|scores|got|gets|gives?|amount|year|that|says|we|see|can|"
    r"(?:corresponds|corresponding|comes|amounts|extends|equal|up|close)\s+to|"
    "about|approximately|around|roughly|nearly|almost|≈"
)
_LINK = rf"(?P<sure>\s*[=:]\s*|\s*,?(?:\s+(?:{_FILL}))+,?\s+)|(?P<loose>,?\s+)"
_NOT_A_VALUE = (
    r"(?!\s*[-+*/<>]\s*[\d(\ue000-\uf8ff]|\s+(?:times|more|less|fewer|higher|lower|larger|smaller|greater|bigger|"
    r"out\s+of|of\s+the|of\s+these|of\s+them|others?|bars|labels|series|rows|categories|(?:percentage\s+)?points?\s+\w+er|"
    r"(?:percentage\s+)?points?\s+more|years?)\b)"
)
# `red = 7`, "red, which is at 7"
_NAME_VALUE = re.compile(rf"(?P<name>{NAME})(?:{_LINK})(?P<value>{NUM}){_NOT_A_VALUE}", re.IGNORECASE)
# "7 for red", "7 in 2019"
_VALUE_NAME = re.compile(
    rf"(?P<value>{NUM})\s*(?:\s(?P<sure>for|is\s+(?:the\s+value\s+)?(?:of|for)|belongs\s+to|represents|corresponds\s+to|"
    rf"goes\s+to)|\s(?P<loose>in|at|by|from))\s+(?:the\s+)?(?:year\s+)?(?P<name>{NAME})",
    re.IGNORECASE,
)
# "red (7)", "red at 7", "7 (red)"
_BESIDE = re.compile(
    rf"(?P<name>{NAME})\s*(?:\(\s*(?:{_FILL}|\s)*(?P<in>{NUM})[^()\d]*\)|,?\s+(?:at|with)\s+(?:a\s+value\s+of\s+)?"
    rf"(?:{HEDGE}\s*)?(?P<at>{NUM}){_NOT_A_VALUE})|(?P<before>{NUM})\s*\(\s*(?:for\s+)?(?P<after>{NAME})\s*\)",
    re.IGNORECASE,
)
# "red and blue are 7 and 3"
_RESPECTIVELY = re.compile(
    rf"(?P<names>{NAME}(?:\s*(?:,\s*and|,|and|&)\s*{NAME})+)\s+(?:are|have|were|had|show)\s+"
    rf"(?P<values>{NUM}(?:\s*(?:,\s*and|,|and|&)\s*{NUM})+)",
    re.IGNORECASE,
)
# After one of these a name belongs to a group, or a number to a calculation: too unsure to call wrong.
_GROUPED = re.compile(
    r"\b(?:sum|total|difference|ratio|average|mean|median|gap|combined|together|product|quotient|change|increase|"
    r"decrease|drop|growth|between|number|counts?|how\s+many|than|half|twice|double|not|both|if)\b|n't\b",
    re.IGNORECASE,
)
# "red and" before another name
_JOINED = re.compile(rf"({NAME})\s*(?:,\s*and|,|and|or|&|plus|to)\s+(?:the\s+)?$", re.IGNORECASE)
# "rod is 7"
_PLAIN_IS = re.compile(rf"(?P<name>\w+(?:\s+\w+)?)\s+is\s+(?P<value>{NUM})", re.IGNORECASE)


def _pair(
    state: TraceState, mention: Mention, reading: Number, at: int, folded: Folded, sure: bool, text: str
) -> None:
    """One claim that a name has a value."""
    if not state.has_facts or all(state.table.cells[row].number is None for row in mention.rows):
        return
    rows = state.context(mention, at, folded)
    right = state.rows_with(rows, reading)
    if right:
        for row in right if len(rows) == 1 else right[:1]:
            state.credit[row] = 1.0
        state.known.add(reading.value)
        state.last = text
        return
    elsewhere = bool(state.rows_with(mention.rows, reading))
    if sure and not elsewhere and (mention.label or len(rows) == 1):
        state.add_wrong_reading(text)
        state.known.add(reading.value)  # what follows from it is not a second fault
    elif sure and elsewhere and len(rows) < len(mention.rows) and _is_unambiguous(state, mention, at, folded):
        state.add_wrong_reading(text)


def _is_unambiguous(state: TraceState, mention: Mention, at: int, folded: Folded) -> bool:
    """Whether the sentence leaves no doubt which series (or label) goes with a name: one before it, or only one."""
    others = folded.beside(mention)
    return any(place < at for place, _ in others) or len({other.rows for _, other in others}) == 1


def fold_values_beside(state: TraceState, folded: Folded) -> Folded:
    """`red (7)`, `red at 7`, `7 (red)`: judge the reading, and leave one name that knows its value."""
    mentions = list(folded.mentions)

    def put(found: re.Match[str]) -> str:
        mention = folded[found["name"] or found["after"]]
        value = found["in"] or found["at"] or found["before"]
        reading = number(value, bool(HEDGED.search(found[0][: found[0].find(value)])))
        rows = state.context(mention, found.start(), folded)
        here = frozenset(state.rows_with(rows, reading)) or rows
        _pair(state, mention, reading, found.start(), folded, True, folded.plain(found[0]))
        mentions.append(replace(mention, rows=here, value=reading))
        return chr(FIRST_NAME + len(mentions) - 1)

    text = _BESIDE.sub(put, folded.text)
    return Folded(text, tuple(mentions))


def read_pairs(state: TraceState, text: str, folded: Folded) -> None:
    """`red = 7`, "red has 7", "7 for red", "red and blue are 7 and 3"."""

    def respectively(found: re.Match[str]) -> str:
        names, values = re.findall(NAME, found["names"]), re.findall(NUM, found["values"])
        if len(names) != len(values):
            return USED
        for name, value in zip(names, values):
            claim = f"{folded[name].text} = {value}"
            _pair(state, folded[name], number(value), found.start(), folded, True, claim)
        return USED

    text = _RESPECTIVELY.sub(respectively, text)
    for pattern in (_NAME_VALUE, _VALUE_NAME):
        for found in pattern.finditer(text):
            before = re.split(r"[,:;]", text[: found.start()])[-1]
            joined = _JOINED.search(text[: found.start()])
            grouped = bool(_GROUPED.search(before)) or (
                pattern is _NAME_VALUE
                and joined is not None
                and (folded[joined[1]].label is None) == (folded[found["name"]].label is None)
            )
            sure = bool(found["sure"]) and not grouped
            reading = number(found["value"], bool(HEDGED.search(text[: found.start("value")])))
            at = found.start("name")
            _pair(state, folded[found["name"]], reading, at, folded, sure, folded.plain(found[0]))


def flag_unknown_names(state: TraceState, text: str, folded: Folded) -> None:
    """`rod = 7`, "rod is 7": a value given to a label that the facts do not have."""
    parts = [(ASSIGNED.fullmatch(part.strip()), True) for part in text.split(",")]
    parts.append((_PLAIN_IS.fullmatch(text), False))
    for found, _ in parts:
        if found is None:
            continue
        name, value = found["name"].strip(), number(found["value"])
        if re.fullmatch(NUM, name):
            state.add_step(number(name).value == value.value, found[0])
            continue
        bare = re.sub(NAME, "", name).strip()
        if not state.has_facts or GENERIC.search(bare) or not re.search(r"[^\W_]", bare):
            continue
        near = re.findall(NAME, name)
        plain = state.rows_with((row for each in near for row in folded[each].rows), value)
        if not (plain and not state.table.by_series) and len(bare) > 1:
            state.add_wrong_reading(folded.plain(found[0]))


def credit_glimpses(state: TraceState, folded: Folded) -> None:
    """Half the credit where a row's name and value stand together in no form that is understood."""
    left = [
        (at, mention)
        for at, mention in folded.placed
        if any(state.credit.get(row) != 1.0 for row in mention.rows)
    ]
    if not left:
        return
    places = [found.start() for found in re.finditer(NUM, folded.text)]
    numbers = list(zip(places, numbers_in(folded.text)))
    words = None
    for at, mention in left:
        rows = state.context(mention, at, folded)
        for row in rows if len(rows) == 1 else ():
            fact = state.table.cells[row]
            if fact.number is None:
                words = lemmas(folded.plain(folded.text)) if words is None else words
                earned = (
                    1.0 if not (known := lemmas(fact.text)) or known & (words - lemmas(fact.label)) else 0.5
                )
                state.credit[row] = max(state.credit.get(row, 0.0), earned)
        if numbers:
            _, nearest = min(numbers, key=lambda each: abs(each[0] - at))
            fits = state.rows_with(rows, nearest)
            if len(fits) == 1:
                state.credit[fits[0]] = max(state.credit.get(fits[0], 0.0), 0.5)

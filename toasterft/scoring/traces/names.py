"""The facts as a table that finds its own names in a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toasterft.scoring.numbers import NUM, Number, number
from toasterft.scoring.traces.facts import Row, rows_of
from toasterft.scoring.traces.sentences import cleaned


@dataclass(frozen=True)
class Mention:
    """A name in a sentence: the rows it can mean, and the value that stands beside it in brackets."""

    text: str
    rows: frozenset[int]
    label: str | None = None
    series: str | None = None
    said: Number | None = None


@dataclass(frozen=True)
class Folded:
    """A sentence with each name as one character, so that patterns need not know the names."""

    text: str
    mentions: tuple[Mention, ...]

    def __getitem__(self, character: str) -> Mention:
        return self.mentions[ord(character) - FIRST_NAME]

    def plain(self, text: str) -> str:
        """`text` with the names back in."""
        return re.sub(NAME, lambda found: self[found[0]].text, text)


FIRST_NAME = 0xE000
NAME = "[\ue000-\uf8ff]"
MARK_NOUN = r"(?:bars?|slices?|segments?|sections?|points?|dots?|columns?|lines?|values?|labels?|categor(?:y|ies)|graphs?)"
_VALUE_OF = re.compile(
    rf"(?:\b(?:the|a|an)\s+)?\b(?:values?|numbers?|percentages?|shares?|figures?|amounts?|{MARK_NOUN})\s+"
    rf"(?:of|for|in|labell?ed|called)\s+(?:the\s+)?(?={NAME})",
    re.IGNORECASE,
)
_ARTICLE = re.compile(rf"\b(?:the|a|an)\s+(?={NAME})", re.IGNORECASE)
_OWN_NOUN = re.compile(rf"({NAME})(?:'s)?\s+{MARK_NOUN}\b", re.IGNORECASE)
_JOINT = re.compile(
    rf"({NAME})(?:'s)?(?:\s+(?:in|for|of|at|on|during|from|among|with)(?:\s+the)?(?:\s+year)?)?\s+({NAME})",
    re.IGNORECASE,
)
# Names that are everyday words in a trace: they only count where a value is given to them.
_SHY = frozenset(
    re.findall(r"\w+", "yes no none other others total value values all a i the more less average sum so is")
)


class Table:
    """Rows, and how to find their names in a sentence."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = tuple(rows)
        self.labels = self._by_name(row.label for row in rows)
        self.series = self._by_name(row.series for row in rows)
        self.series.pop("", None)
        self.values = frozenset(row.value for row in rows if row.value is not None)
        names = {name: row for row in rows for name in (row.label, row.series) if name_key(name)}
        ordered = sorted(names, key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(map(_name_pattern, ordered)) or r"(?!)", re.IGNORECASE)

    @staticmethod
    def _by_name(names: Iterable[str]) -> dict[str, frozenset[int]]:
        found: dict[str, set[int]] = {}
        for position, name in enumerate(names):
            found.setdefault(name_key(name), set()).add(position)
        return {name: frozenset(rows) for name, rows in found.items()}

    def fold(self, text: str) -> Folded:
        """`text` (cleaned) with names as characters; `shop tennis` and `tennis for shop` as one."""
        mentions: list[Mention] = []

        def put(mention: Mention) -> str:
            mentions.append(mention)
            return chr(FIRST_NAME + len(mentions) - 1)

        def name(found: re.Match[str]) -> str:
            key = name_key(found[0])
            if key not in self.labels and key not in self.series:
                key = key.removesuffix("s").removesuffix("'")
            if key in self.labels:
                return put(Mention(found[0], self.labels[key], label=key))
            return put(Mention(found[0], self.series[key], series=key)) if key in self.series else found[0]

        def joint(found: re.Match[str]) -> str:
            first, second = (mentions[ord(each) - FIRST_NAME] for each in found.groups())
            both = first.rows & second.rows
            if (first.label is None) == (second.label is None) or not both:
                return found[0]
            label, series = first.label or second.label, first.series or second.series
            return put(Mention(f"{first.text} {second.text}", both, label, series))

        text = self._pattern.sub(name, text)
        for pattern, replacement in ((_VALUE_OF, ""), (_ARTICLE, ""), (_OWN_NOUN, r"\1")):
            text = pattern.sub(replacement, text)
        return Folded(_JOINT.sub(joint, text), tuple(mentions))


def name_key(name: str) -> str:
    """A name made comparable."""
    return " ".join(cleaned(name).lower().split()).strip(" .,:*").removesuffix("'s")


def _name_pattern(name: str) -> str:
    key = name_key(name)
    written = " ".join(cleaned(name).split()).strip(" .,:*")
    body = re.sub(r"(?:\\ )+", r"\\s+", re.escape(written))
    if len(key) <= 3 and not written.islower():
        body = f"(?-i:{body})"  # the label May is no "may"
    year = re.fullmatch(r"(?:19|20)\d\d", key)
    shy = key in _SHY or (re.fullmatch(r"-?[\d.,]+%?", key) and not year)
    after = r"(?=\s*[=:(])" if shy else r"(?![.,]\d|%)" if year else ""
    plural = "" if key[-1:].isdigit() else "s?"
    return rf"(?<![\w.])(?:{body}){plural}(?!\w)(?:\*+(?=\s*[=:(,]))?{after}"


@lru_cache(maxsize=1024)
def table_of_json(facts: str) -> Table:
    """The table of facts as JSON."""
    return Table(rows_of(json.loads(facts)))


def table_of(facts: Any) -> Table:
    """The table of an example's facts; made once per image, not once per completion."""
    return table_of_json(json.dumps(facts, default=str))


MUST_REASON = re.compile(
    r"\b(?:differences?|sum|total|add|together|combined|ratio|times|divided?|average|mean|median|how many|count|"
    r"(?:larg|high|great|bigg|tall|long|small|low|short|few)est|most|least|peak|maximum|minimum|max|min|higher|lower|larger|smaller|greater|bigger|more|less|fewer|exceeds?|"
    r"below|above|than|trend|rising|falling|compare|gap|deduct|subtract|product|twice|double|all)\b",
    re.IGNORECASE,
)


def needed_rows(table: Table, question: str) -> list[int]:
    """The rows that an answer rests on: those named in the question, else a named series, else all."""
    asked = table.fold(cleaned(question))
    whole = [mention.rows for mention in asked.mentions if mention.label and mention.series]
    labels = [mention.rows for mention in asked.mentions if mention.label and not mention.series]
    series = [mention.rows for mention in asked.mentions if mention.series and not mention.label]
    if whole:
        return sorted(frozenset().union(*whole))
    given = {number(found).value for found in re.findall(NUM, asked.text)}
    holders = [row for row, each in enumerate(table.rows) if each.value in given]
    if holders and not labels and not MUST_REASON.search(asked.text):
        return holders  # "which bar has a value of 6?"
    some = frozenset().union(*labels) if labels else frozenset(range(len(table.rows)))
    return sorted((some & frozenset().union(*series) if series else some) or range(len(table.rows)))

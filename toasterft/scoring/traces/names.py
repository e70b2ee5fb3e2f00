"""Which rows of a table a question is about."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from toasterft.scoring.numbers import NUM, cleaned, number
from toasterft.scoring.tables import Table, read


@lru_cache(maxsize=1024)
def table_of_json(facts: str) -> Table:
    """The table of facts as JSON."""
    return read(json.loads(facts)).without_gaps()


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
    holders = [row for row, each in enumerate(table.cells) if each.number in given]
    if holders and not labels and not MUST_REASON.search(asked.text):
        return holders  # "which bar has a value of 6?"
    some = frozenset().union(*labels) if labels else frozenset(range(len(table.cells)))
    return sorted((some & frozenset().union(*series) if series else some) or range(len(table.cells)))

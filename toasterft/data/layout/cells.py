"""Cells of a row as text, lists and objects, whichever way a table or a file keeps them."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass
class Notes:
    """What reading a row did: the columns it read, and the kinds of things it changed or left out."""

    used: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, an empty text or object, or an object of empty cells."""
    if value is None or isinstance(value, str | bytes | list | tuple):
        return not value
    if isinstance(value, Mapping):
        return all(is_empty(each) for each in value.values())
    return isinstance(value, float) and math.isnan(value)


def as_list(value: Any) -> list[Any]:
    """The items of a list, of nothing none, of anything else itself."""
    return list(value) if isinstance(value, list | tuple) else [value]


def text_of(value: Any) -> str | None:
    """A cell as people write it: 2010.0 is 2010; None for nothing and for what is no text or number."""
    if is_empty(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, str | int | float | bool) else None


def texts_of(value: Any) -> list[str]:
    """Every text in a cell: itself, those of a list, of an object with `answer` or `text`, of a list of objects."""
    if isinstance(value, Mapping):
        keys = ("answer", "text", "value", "label", "content")
        return texts_of(next((value[key] for key in keys if key in value), None))
    if isinstance(value, list | tuple):
        return [text for each in value for text in texts_of(each)]
    text = text_of(value)
    return [] if text is None or not text.strip() else [text]


def parsed(value: Any) -> Any:
    """A list or object that a cell keeps as text, as JSON, Python or numpy write it; any other cell as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{", "('", '("')):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    # numpy leaves the commas out: `['red' 'blue']`, which Python would join to one word.
    listed = re.sub(r"""(?<=['"])\s+(?=['"])""", ", ", value.strip())
    try:
        return ast.literal_eval(listed)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value

"""Everything a person sees: the only package that knows rich."""

from __future__ import annotations

from toasterft.terminal.output import as_json, err, error, line, table
from toasterft.terminal.progress import reporter

__all__ = ["as_json", "err", "error", "line", "reporter", "table"]

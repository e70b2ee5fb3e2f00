"""Everything a person sees: the only package that knows rich."""

from __future__ import annotations

from toasterft.terminal.output import as_json, err, error, line, out, results_alone, table
from toasterft.terminal.progress import reporter

__all__ = ["as_json", "err", "error", "line", "out", "reporter", "results_alone", "table"]

"""Everything a person sees: the only package that knows rich."""

from __future__ import annotations

from toasterft.terminal.comparisons import comparison
from toasterft.terminal.data import checked, imported, previewed
from toasterft.terminal.estimates import asked, caveat, compared, estimated, rehearsed, taught
from toasterft.terminal.evaluations import handed_over, picture, scores, story
from toasterft.terminal.matrices import matrix
from toasterft.terminal.output import (
    as_json,
    err,
    error,
    line,
    markdown_table,
    out,
    pairs,
    table,
    version_line,
)
from toasterft.terminal.plans import other_sizes, plan, rungs, simulated, within_budget
from toasterft.terminal.progress import LiveReporter, PlainReporter, print_sample, reporter
from toasterft.terminal.runs import accuracy, stages, summary
from toasterft.units import dollars, duration, percent, points, ranged_time, ranged_usd, size, spread

__all__ = [
    "LiveReporter",
    "PlainReporter",
    "accuracy",
    "as_json",
    "asked",
    "caveat",
    "checked",
    "compared",
    "comparison",
    "dollars",
    "duration",
    "err",
    "error",
    "estimated",
    "handed_over",
    "imported",
    "line",
    "markdown_table",
    "matrix",
    "other_sizes",
    "out",
    "pairs",
    "percent",
    "picture",
    "plan",
    "points",
    "previewed",
    "print_sample",
    "ranged_time",
    "ranged_usd",
    "rehearsed",
    "reporter",
    "rungs",
    "scores",
    "simulated",
    "size",
    "spread",
    "stages",
    "story",
    "summary",
    "table",
    "taught",
    "version_line",
    "within_budget",
]

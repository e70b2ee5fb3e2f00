"""Everything a person sees: the only package that knows rich."""

from __future__ import annotations

from toasterft.show.comparisons import comparison
from toasterft.show.estimates import asked, caveat, compared, estimated, rehearsed, taught
from toasterft.show.evaluations import handed_over, picture, scores, story
from toasterft.show.matrices import matrix
from toasterft.show.output import as_json, err, error, line, markdown_table, out, pairs, table, version_line
from toasterft.show.plans import other_sizes, plan, rungs, simulated, within_budget
from toasterft.show.progress import LiveReporter, PlainReporter, print_sample, reporter
from toasterft.show.runs import accuracy, stages, summary
from toasterft.show.sets import checked, imported, previewed
from toasterft.show.units import dollars, duration, percent, points, ranged_time, ranged_usd, size, spread

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

"""Everything a person sees: the only package that knows rich."""

from __future__ import annotations

from toasterft.terminal.comparisons import print_comparison
from toasterft.terminal.data import print_data_check, print_preview
from toasterft.terminal.estimates import (
    print_calibration,
    print_caveat,
    print_estimate,
    print_gpu_table,
    print_plan,
    print_teacher_costs,
    print_workload,
)
from toasterft.terminal.evaluations import print_demo, print_image, print_reasoner, print_scores
from toasterft.terminal.matrices import print_matrix
from toasterft.terminal.output import as_json, err, error, line, out, pairs, table, warn
from toasterft.terminal.plans import (
    print_budget,
    print_changes,
    print_other_sizes,
    print_simulation,
)
from toasterft.terminal.progress import reporter
from toasterft.terminal.runs import print_accuracy, print_run, print_runs, print_stages
from toasterft.units import dollars, duration, percent, ranged_usd, size

__all__ = [
    "as_json",
    "dollars",
    "duration",
    "err",
    "error",
    "line",
    "out",
    "pairs",
    "percent",
    "print_accuracy",
    "print_budget",
    "print_calibration",
    "print_caveat",
    "print_changes",
    "print_comparison",
    "print_data_check",
    "print_demo",
    "print_estimate",
    "print_gpu_table",
    "print_image",
    "print_matrix",
    "print_other_sizes",
    "print_plan",
    "print_preview",
    "print_reasoner",
    "print_run",
    "print_runs",
    "print_scores",
    "print_simulation",
    "print_stages",
    "print_teacher_costs",
    "print_workload",
    "ranged_usd",
    "reporter",
    "size",
    "table",
    "warn",
]

"""Fine-tune small vision-language models on one cheap GPU, with the bill known before the start.

    from toasterft import Recipe, charts, estimate, evaluate, train

are the commands as functions (`toasterft.api`), and the charts that can be drawn here. They are imported when they are
first asked for: `toasterft --help` waits for none of what they need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toasterft.api import Recipe, estimate, evaluate, train
    from toasterft.data import charts

__version__ = "0.1.0"
__all__ = ["Recipe", "charts", "estimate", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name == "charts":
        return importlib.import_module("toasterft.data.charts")
    if name in __all__:
        return getattr(importlib.import_module("toasterft.api"), name)
    raise AttributeError(f"module 'toasterft' has no attribute {name!r}")

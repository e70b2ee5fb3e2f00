"""Fine-tune small vision-language models on one cheap GPU, with the bill known before the start.

    from toasterft import Recipe, estimate, evaluate, train

are the commands as functions (`toasterft.api`). They are imported when they are first asked for: `toasterft --help`
waits for none of what they need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toasterft.api import Recipe, estimate, evaluate, train

__version__ = "0.1.0"
# `estimate` is the package of that name, which can be called.
__all__ = ["Recipe", "estimate", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name == "estimate":
        return importlib.import_module("toasterft.estimate")
    if name in __all__:
        return getattr(importlib.import_module("toasterft.api"), name)
    raise AttributeError(f"module 'toasterft' has no attribute {name!r}")

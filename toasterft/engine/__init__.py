"""Load a model: two engines behind one small protocol.

`unsloth` where CUDA is present and the package is installed, `plain` (transformers + peft +
bitsandbytes) elsewhere. *Choosing* one is light; *opening* one is heavy and happens when a run is executed,
before any method is imported: Unsloth patches transformers, trl and peft, and must therefore be imported
before them. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from toasterft import paths
from toasterft.errors import needed_by
from toasterft.models.architectures import Architecture
from toasterft.recipe import Lora

if TYPE_CHECKING:
    from toasterft.engine.loaded import LoadedModel


@dataclass(frozen=True)
class Request:
    """What to load, and which of its parts train.

    Attributes:
        base: folder or hub id of the full weights.
        adapter: folder of a PEFT adapter to start from, or None.
        lora: settings of a new adapter where `adapter` is None; None leaves the model bare.
        train: gradients are needed; False loads for inference.
        full: train the language model itself (weights in float32, autocast does the rest).
    """

    base: str
    family: Architecture
    adapter: Path | None = None
    lora: Lora | None = None
    train: bool = False
    full: bool = False
    load_in_4bit: bool = False
    dtype: str = "auto"
    train_connector: bool = False
    train_vision: bool = False
    gradient_checkpointing: bool = False
    image_longest_edge: int | None = None
    max_length: int = 2048
    seed: int = 42


# The recipe's `engine`, and the module that implements it.
ENGINES = {"plain": "toasterft.engine.transformers_engine", "unsloth": "toasterft.engine.unsloth_engine"}


class Engine(Protocol):
    """The one verb in which the engines differ; generating and saving is the same code for both."""

    NAME: str

    def load(self, request: Request) -> LoadedModel:
        """Weights, processor and adapter on the device, ready for `request.train`.

        Raises:
            ModelError: the model cannot be found, read, or does not fit its adapter.
        """
        ...


def open_engine(name: str) -> Engine:
    """Import an engine. Called before anything imports transformers, trl or peft."""
    # It advises on import to install a package that would fetch binaries from a hub at run time.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Unsloth writes compiled code into the working folder unless told otherwise.
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(paths.cache_dir() / "unsloth_compiled"))
    with needed_by(name):
        return cast(Engine, importlib.import_module(ENGINES[name]))

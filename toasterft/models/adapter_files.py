"""The files of a LoRA adapter, checked by their headers before anything is loaded.

Which layers it adapts, and at what rank, is read off its tensors: `target_modules` of a stranger's configuration may be
a pattern that takes years to match, and its rank any number. Whatever else PEFT can do and we do not is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from toasterft import paths
from toasterft.errors import ModelError
from toasterft.models import weight_files
from toasterft.models.weight_files import PICKLES, SAFETENSORS_ONLY, Tensor
from toasterft.paths import Typed

CONFIG = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# The connector's factor A of `engine/adapters.py`.
FACTOR_FILE = "connector_factor.safetensors"
# base_model.model.model.text_model.layers.0.self_attn.q_proj.lora_A.weight
TENSOR = re.compile(r"base_model\.model\.([\w.]+)\.lora_([AB])\.weight")
# Settings that change what an adapter computes, and that we neither write nor read (PEFT 0.21).
UNREAD = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "layer_replication", "alpha_pattern",
    "rank_pattern", "megatron_config", "target_parameters", "trainable_token_indices", "alora_invocation_tokens",
    "arrow_config", "fan_in_fan_out",
)  # fmt: skip


class Adapter(Typed):
    """What is read of an adapter's configuration."""

    peft_type: Literal["LORA"]
    base_model_name_or_path: Annotated[str, Field(max_length=4096)] | None = None
    r: Annotated[int, Field(ge=1, le=65_536)]
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    target_modules: str | list[str] | None = None


def read_config(folder: Path) -> dict[str, Any] | None:
    """An adapter's configuration; None where the folder is no adapter.

    Raises:
        UserError: it is damaged.
        ModelError: it asks for what we do not do.
    """
    found: dict[str, Any] | None = paths.read_json(folder / CONFIG, Adapter)
    for key in UNREAD if found else ():
        if value := (found or {}).get(key):
            raise ModelError(
                f"this adapter has {key}: {str(value)[:200]}, which is not supported",
                where=str(folder / CONFIG),
                next_step="merge it into its base with PEFT, and name the merged folder",
            )
    return found


def files(folder: Path) -> list[Path]:
    """The files that an adapter's weights are loaded from, in the order of their names."""
    return [folder / name for name in (WEIGHTS_FILE, FACTOR_FILE) if (folder / name).is_file()]


def check(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors (A, B) of every layer that an adapter changes, by the layer's name.

    Raises:
        ModelError: its weights are missing, damaged, of another kind, or not of the rank that is written.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        raise ModelError(
            "this adapter has no weights",
            where=str(folder),
            why=f"it holds {pickles[0]}; {SAFETENSORS_ONLY}" if pickles else f"there is no {WEIGHTS_FILE}",
        )
    rank = (read_config(folder) or {}).get("r")
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weight_files.header(folder / WEIGHTS_FILE).items():
        place = TENSOR.fullmatch(name)
        if place is None or len(tensor.shape) != 2:
            raise _unusable(folder, f"{name!r} of shape {list(tensor.shape)} is no factor of a LoRA")
        sides.setdefault(place[1], {})[place[2]] = tensor
    if not sides:
        raise _unusable(folder, "it holds no tensors")
    for layer, pair in sides.items():
        if len(pair) < 2:
            raise _unusable(folder, f"{layer} has but one of its two factors")
        found = pair["A"].shape[0], pair["B"].shape[1]
        if found != (rank, rank):
            raise _unusable(folder, f"{layer} has rank {found[0]} and {found[1]}, {CONFIG} says {rank}")
    if (folder / FACTOR_FILE).is_file():
        factor = weight_files.header(folder / FACTOR_FILE)
        if list(factor) != ["A"] or factor["A"].shape[:1] != (rank,):
            raise _unusable(folder, f"{FACTOR_FILE} does not hold one factor of rank {rank}")
    return {layer: (pair["A"], pair["B"]) for layer, pair in sides.items()}


def _unusable(folder: Path, why: str) -> ModelError:
    return ModelError(
        "these adapter weights cannot be used",
        where=str(folder / WEIGHTS_FILE),
        why=why,
        next_step="copy the adapter anew, or train it again",
    )

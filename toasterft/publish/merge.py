"""An adapter's update added to the weights it was trained on: W + s·B·A for every adapted layer.

Always into 16-bit (or 32-bit) weights: a merge into 4-bit ones would round every weight to a grid of 16 values
and lose most of what was learned. The sum is formed in float32 and rounded once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft.tuners.lora import LoraLayer

from toasterft.engine import Request, adapters, pretrained, processors
from toasterft.engine.loaded import LoadedModel
from toasterft.engine.transformers_engine import quiet
from toasterft.models import weight_files
from toasterft.models.architectures import Architecture

STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def stored_dtype(folder: Path) -> torch.dtype:
    """What most weights of a model folder are stored in."""
    sizes: Counter[str] = Counter()
    for tensor in weight_files.tensors(folder).values():
        sizes[tensor.dtype] += tensor.numel
    return next((STORED[name] for name, _ in sizes.most_common() if name in STORED), torch.float32)


def load(
    folder: Path,
    family: Architecture,
    adapter: Path | None,
    dtype: torch.dtype,
    image_longest_edge: int | None,
) -> LoadedModel:
    """Full weights, and an adapter on them, through pixels alone, to compare before and after a merge.

    An adapted connector stands here as the LoRA on its own linear that plain PEFT sees, not as the factor
    behind cached features.

    Args:
        dtype: what a GPU holds the weights and computes in; a CPU does both in float32.

    Raises:
        ModelError: the folder cannot be read, or the adapter belongs to another base.
    """
    quiet()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    held = dtype if cuda else torch.float32
    model = pretrained.model(
        transformers.AutoModelForImageTextToText, folder, dtype=held, device_map={"": device}
    )
    processor = processors.load(str(folder), family, image_longest_edge)
    if adapter is not None:
        pixels_only = replace(family, takes_features=False)
        model = adapters.load(model, adapter, Request(base=str(folder), family=pixels_only, adapter=adapter))
    model.eval()
    return LoadedModel(
        model=model,
        processor=processor,
        family=family,
        dtype=held,
        device=device,
        engine="plain",
        base=str(folder),
        image_longest_edge=image_longest_edge,
    )


def merge(loaded: LoadedModel, dtype: torch.dtype) -> Any:
    """The model without adapters, their updates in its weights, all of it in `dtype`.

    Changes `loaded.model`, which is of no use afterwards.
    """
    model = loaded.model
    if loaded.has_adapter:
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, LoraLayer):
                    weight = layer.get_base_layer().weight
                    update = layer.get_delta_weight("default").float()
                    weight.data = (weight.float() + update).to(dtype)
        model = model.unload()
    return model.to(dtype)

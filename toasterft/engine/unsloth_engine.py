"""Unsloth on CUDA: its loader, its checkpointing, its kernels. The only module that imports it."""

import unsloth  # noqa: I001  # first: it patches transformers, trl and peft as they are imported

import os
from pathlib import Path
from typing import Any

import torch
import transformers

from toasterft.engine import Request, adapters, pretrained
from toasterft.engine.loaded import LoadedModel
from toasterft.engine.transformers_engine import compute_dtype, four_bit, quiet, with_processor

NAME = "unsloth"


def load(request: Request) -> LoadedModel:
    quiet()
    # Its own generation turns checkpointing off in every layer for good, and forces a static cache beside ours, on which
    # text-only rows fail in most families. It is read where a model is loaded.
    os.environ["UNSLOTH_DISABLE_FAST_GENERATION"] = "1"
    device = torch.device("cuda", torch.cuda.current_device())
    dtype = compute_dtype(request.dtype, device)
    checkpointing = "unsloth" if request.gradient_checkpointing else False
    model, _ = pretrained.model(
        unsloth.FastVisionModel,
        Path(request.base),
        max_seq_length=request.max_length,
        dtype=torch.float32 if request.full else dtype,
        # An explicit configuration carries the request for 4 bits, so that the tower and the
        # connector stay in 16 bits as on the plain engine; Unsloth's own would quantise the tower.
        load_in_4bit=False,
        quantization_config=four_bit(request, dtype) if request.load_in_4bit else None,
        full_finetuning=request.full,
        device_map={"": device},
        use_gradient_checkpointing=checkpointing,
        random_state=request.seed,
        # Never a pre-quantised mirror from the hub in place of the weights that were named.
        use_exact_model_name=True,
    )
    loaded = with_processor(model, request, dtype, device, NAME)

    def wrap(bare: transformers.PreTrainedModel, config: Any) -> Any:
        """Attach new adapters the way Unsloth's fused kernels expect them."""
        return unsloth.FastVisionModel.get_peft_model(
            bare,
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=config.target_modules,
            bias="none",
            use_gradient_checkpointing=checkpointing,
            random_state=request.seed,  # it seeds everything anew, by default always alike
        )

    adapters.prepare(loaded, request, wrap=wrap)
    if request.adapter is not None:
        loaded.model = unsloth.FastVisionModel.post_patch_model(
            loaded.model, use_gradient_checkpointing=checkpointing
        )
    if checkpointing:
        _ask_gradients_of_inputs(loaded.part(request.family.text))
    toggle = unsloth.FastVisionModel.for_training if request.train else unsloth.FastVisionModel.for_inference
    toggle(loaded.model)
    return loaded


def _ask_gradients_of_inputs(decoder: torch.nn.Module) -> None:
    """Make the first decoder layer's input require a gradient where there are gradients at all.

    Unsloth checkpoints reentrantly, whatever it is told: of a layer whose input needs none, no weight gets any.
    """

    def ask(_module: torch.nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        embedded = kwargs["inputs_embeds"]
        if torch.is_grad_enabled() and not embedded.requires_grad:
            embedded.requires_grad_()

    decoder.register_forward_pre_hook(ask, with_kwargs=True)

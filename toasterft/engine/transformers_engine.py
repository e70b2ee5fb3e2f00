"""transformers + peft + bitsandbytes, on a CPU or any CUDA GPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from toasterft.engine import Request, adapters, pretrained, processors
from toasterft.engine.loaded import LoadedModel
from toasterft.models import model_files

NAME = "plain"


def load(request: Request) -> LoadedModel:
    quiet()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    dtype = compute_dtype(request.dtype, device)
    model = pretrained.model(
        transformers.AutoModelForImageTextToText,
        Path(request.base),
        # Full tuning keeps float32 weights: at these learning rates an update is often smaller
        # than bfloat16's spacing (2^-8 relative) and would round away.
        dtype=torch.float32 if request.full else dtype,
        quantization_config=four_bit(request, dtype) if request.load_in_4bit else None,
        device_map={"": device},
    )
    loaded = with_processor(model, request, dtype, device, NAME)
    if request.load_in_4bit and device.type == "cpu":
        _keep_weights_as_trained(model)
    adapters.prepare(loaded, request)
    return loaded


def with_processor(
    model: Any, request: Request, dtype: torch.dtype, device: torch.device, engine: str
) -> LoadedModel:
    """A model that is in memory, and its processor."""
    processor = processors.load(request.base, request.family, request.image_longest_edge)
    return LoadedModel(
        model,
        processor,
        request.family,
        dtype,
        device,
        engine,
        request.base,
        request.image_longest_edge,
        notes=model_files.check_settings(Path(request.base)),
    )


def four_bit(request: Request, dtype: torch.dtype) -> Any:
    """NF4 with double quantisation, for the language model's linear layers alone."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=request.family.not_quantised,
    )


def _keep_weights_as_trained(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights on the first forward pass without gradients.

    On CPUs with AVX512-BF16 it rewrites them for a faster kernel, rounds their scales to bfloat16, and
    never rounds them back: an evaluation in the middle of a run would change the model being trained,
    and two machines would disagree. It also asserts on layers whose width is no multiple of 32.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the GPU computes in it, float16 on older GPUs, float32 on a CPU."""
    if name != "auto":
        found: torch.dtype = getattr(torch, name)
        return found
    if device.type != "cuda":
        return torch.float32
    # Without `including_emulation=False` a T4 claims bfloat16 and then emulates it, slowly.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def quiet() -> None:
    """Progress bars and advice of the libraries would tear our own live line apart."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # An embedded base is named by its name in the adapter and by its folder while loading.
    warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path` was renamed")
    # Said once per parameter on a CPU, where paging has no meaning.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")

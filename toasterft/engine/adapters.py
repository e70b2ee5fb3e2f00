"""Make parts of a loaded model trainable: a new or earlier LoRA, the connector, the tower, or all of it.

The connector can learn although its output is cached. On Idefics3 and SmolVLM it is one bias-free
linear W, so for cached features h = W x a low-rank factor behind them, h + B(A h), equals a LoRA on W
itself with lora_A = A W and lora_B = B. In memory the factor is an ordinary PEFT LoRA on a zero linear
named `feature_adapter`; on disk it is the LoRA on W, so plain PEFT loads it. A itself is stored beside
it, because it cannot be read back from A W without a pseudo-inverse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch

from toasterft.engine import Request, processors
from toasterft.engine.forward import FACTOR, adapted
from toasterft.engine.loaded import LoadedModel
from toasterft.errors import ModelError
from toasterft.models import adapter_files
from toasterft.models.adapter_files import FACTOR_FILE, WEIGHTS_FILE
from toasterft.models.architectures import Architecture
from toasterft.recipe import Lora


def prepare(loaded: LoadedModel, request: Request, wrap: Callable[..., Any] = peft.get_peft_model) -> None:
    """Freeze everything, then attach or load what trains.

    Args:
        wrap: attaches a new adapter to a model, given a LoraConfig.
    """
    model = loaded.inner
    model.requires_grad_(False)
    leave_inputs_alone(model)
    if wants_factor(request):
        add_factor(loaded)
    if request.adapter is not None:
        loaded.model = load(model, request.adapter, request)
    elif request.lora is not None:
        torch.manual_seed(request.seed)
        loaded.model = wrap(model, lora_config(loaded, request.lora, request))
    elif request.full:
        loaded.part(request.family.text).requires_grad_(True)
        model.get_output_embeddings().requires_grad_(True)
        if request.train_connector:
            loaded.part(request.family.connector).requires_grad_(True)
    if request.train and request.train_vision:
        # The tower trains in float32 for the same reason as a fully tuned language model.
        loaded.part(request.family.vision).to(torch.float32).requires_grad_(True)
    if request.train:
        # LoRA factors in float32: TRL casts them to bfloat16 for 4-bit models, where an update of
        # 3e-5 is below the spacing of most weights.
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32)
    loaded.model.train(request.train)


def leave_inputs_alone(model: Any) -> None:
    """Let nothing make embeddings require a gradient, now or later.

    Non-reentrant checkpointing does not need that, and on the tower's embeddings it makes a frozen tower run backward.
    PEFT, TRL, the Trainer and Unsloth each ask for it; an engine that needs it does it itself.
    """
    model.disable_input_require_grads()
    model.enable_input_require_grads = lambda: None


def wants_factor(request: Request) -> bool:
    """Whether the connector trains as a factor behind cached features."""
    possible = request.family.takes_features and request.family.connector_linear is not None
    if request.adapter is not None:
        return possible and (request.adapter / FACTOR_FILE).is_file()
    return possible and request.train_connector and not request.train_vision and not request.full


def vision_side_learns(loaded: LoadedModel) -> bool:
    """Whether an image's features change as the model trains; a factor behind them leaves them as they are."""
    parts = [loaded.part(path) for path in (loaded.family.vision, loaded.family.connector)]
    return any(
        value.requires_grad and f".{FACTOR}." not in f".{name}"
        for part in parts
        for name, value in part.named_parameters()
    )


def add_factor(loaded: LoadedModel) -> None:
    """Put the zero linear into the connector, and add its output to what comes through pixels.

    `forward.placed` adds it to cached features.
    """
    proj = loaded.part(loaded.family.connector_linear or "")
    hidden = proj.weight.shape[0]
    zero = torch.nn.Linear(hidden, hidden, bias=False, device=loaded.device, dtype=proj.weight.dtype)
    torch.nn.init.zeros_(zero.weight)
    zero.requires_grad_(False)
    connector = loaded.part(loaded.family.connector)
    setattr(connector, FACTOR, zero)

    # Only what enters the language model is adapted: features that are being encoded for the cache stay as they are.
    in_forward = False

    def enter(*_: Any) -> None:
        nonlocal in_forward
        in_forward = True

    def leave(*_: Any) -> None:
        nonlocal in_forward
        in_forward = False

    def adapt(_module: torch.nn.Module, _args: Any, features: torch.Tensor) -> torch.Tensor:
        return adapted(connector, features) if in_forward else features

    loaded.inner.model.register_forward_pre_hook(enter)
    loaded.inner.model.register_forward_hook(leave, always_call=True)
    connector.register_forward_hook(adapt)


def lora_config(loaded: LoadedModel, lora: Lora, request: Request) -> peft.LoraConfig:
    """PEFT settings for the language model's linear layers, and the connector's under `train_connector`."""
    family, names = request.family, lora.target_modules
    # Such as model\.text_model\..*\.(q_proj|v_proj): these linears at any depth of the language model.
    targets = _linears(loaded, family.text) if names == "all-linear" else names
    pattern = rf"{re.escape(family.text)}\..*\.({'|'.join(map(re.escape, targets))})"
    if request.train_connector and wants_factor(request):
        pattern = f"({pattern}|{re.escape(_factor_path(family))})"
    elif request.train_connector:
        # A connector of several layers (no factor) is adapted where it stands, through pixels.
        linears = "|".join(_linears(loaded, family.connector))
        pattern = rf"({pattern}|{re.escape(family.connector)}\..*({linears}))"
    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=pattern,
        task_type="CAUSAL_LM",
    )


def _linears(loaded: LoadedModel, path: str) -> list[str]:
    """Last names of the linear layers below `path`, such as q_proj and down_proj."""
    part = loaded.part(path)
    return sorted(
        {name.split(".")[-1] for name, module in part.named_modules() if isinstance(module, torch.nn.Linear)}
    )


def load(model: Any, folder: Path, request: Request) -> Any:
    """A PeftModel from an adapter folder, its connector LoRA turned back into the factor.

    Raises:
        ModelError: the adapter was trained on another base, or is damaged.
    """
    saved = adapter_files.read_config(folder)
    if saved is None:
        raise ModelError(
            "this folder is no adapter", where=str(folder), why=f"no {adapter_files.CONFIG} in it"
        )
    layers = adapter_files.check(folder)
    linear, factor = request.family.connector_linear or "", _factor_path(request.family)
    swapped = wants_factor(request)
    config = peft.LoraConfig(
        **{name: saved[name] for name in ("r", "lora_alpha", "lora_dropout", "use_rslora") if name in saved},
        # Full names of the layers that it holds tensors for.
        target_modules=[factor if swapped and layer == linear else layer for layer in layers],
        task_type="CAUSAL_LM",
        inference_mode=not request.train,
    )
    try:
        state = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        if poisoned := non_finite(state):
            raise ValueError(
                f"{len(poisoned)} of its {len(state)} tensors are not finite, {poisoned[0]} first"
            )
        wrapped = peft.get_peft_model(model, config)
        result = peft.set_peft_model_state_dict(wrapped, _into_memory(state, folder, request))
    except (RuntimeError, ValueError, OSError, safetensors.SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            "this adapter cannot be used on its base model", where=str(folder), why=reason
        ) from error
    named = saved.get("target_modules")
    if isinstance(named, str):  # as it was written, for whoever reads the folder we save
        named = named.replace(re.escape(linear), re.escape(factor)) if swapped else named
        wrapped.peft_config["default"].target_modules = named
    if result.unexpected_keys or [key for key in result.missing_keys if "lora_" in key]:
        raise ModelError(
            "this adapter was trained on another base model",
            where=str(folder),
            why=f"{len(result.unexpected_keys)} of its tensors have no place in {request.base}",
            next_step="name the model it was trained on",
        )
    return wrapped


def non_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity."""
    return [
        name
        for name, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]


def save(loaded: LoadedModel, folder: Path, base: str) -> None:
    """The adapter in PEFT's standard layout (or the full weights), with the processor beside it.

    Args:
        base: folder or hub id that the adapter names as its base.
    """
    model = loaded.model
    if not loaded.has_adapter:
        model.save_pretrained(folder)
    else:
        config = model.peft_config["default"]
        state = peft.get_peft_model_state_dict(model)
        state, factor = _onto_disk(state, loaded)
        if factor is not None:
            safetensors.torch.save_file({"A": factor}, folder / FACTOR_FILE)
        saved = peft.LoraConfig(
            **{**config.to_dict(), "inference_mode": True, "base_model_name_or_path": base}
        )
        if factor is not None:
            linear, place = loaded.family.connector_linear or "", _factor_path(loaded.family)
            named = saved.target_modules or ()
            saved.target_modules = (
                named.replace(re.escape(place), re.escape(linear))
                if isinstance(named, str)
                else {linear if each == place else each for each in named}
            )
        safetensors.torch.save_file(
            {key: value.contiguous() for key, value in state.items()},
            folder / WEIGHTS_FILE,
            metadata={"format": "pt"},
        )
        saved.save_pretrained(folder)
    processors.save(loaded.processor, folder)


def _factor_path(family: Architecture) -> str:
    """Where the factor stands in memory."""
    return f"{family.connector}.{FACTOR}"


def _onto_disk(state: dict[str, Any], loaded: LoadedModel) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Rename the factor's tensors to the connector's linear, with lora_A = A W."""
    found: dict[str, Any] = {}
    factor = None
    linear = loaded.family.connector_linear or ""
    for key, value in state.items():
        if f".{FACTOR}." not in key:
            found[key] = value
            continue
        target = key.replace(_factor_path(loaded.family), linear)
        if ".lora_A." in key:
            factor = value.detach().float().cpu().contiguous()
            weight = loaded.part(linear).weight.detach().float().cpu()
            found[target] = factor @ weight
        else:
            found[target] = value
    return found, factor


def _into_memory(state: dict[str, Any], folder: Path, request: Request) -> dict[str, Any]:
    """The inverse of `_onto_disk`, with A read from its own file."""
    if not wants_factor(request):
        return state
    factor = safetensors.torch.load_file(folder / FACTOR_FILE)["A"]
    linear, place = request.family.connector_linear or "", _factor_path(request.family)
    return {
        key.replace(linear, place): (factor if ".lora_A." in key else value) if linear in key else value
        for key, value in state.items()
    }

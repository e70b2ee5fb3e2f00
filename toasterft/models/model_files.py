"""What the JSON files of a model folder may ask for; everything is checked before transformers reads any of it.

A configuration can name code to run, a kernel to fetch from the hub, a quantiser, or sizes that no machine holds. Here
each is refused with its value, or has no effect and is noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from toasterft import paths
from toasterft.errors import ModelError, ToasterError
from toasterft.models import weight_files
from toasterft.models.architectures import shape_from_config
from toasterft.paths import Typed

CONFIG = "config.json"
GENERATION = "generation_config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
# We load with sdpa whatever is written; any other word is the name of a kernel to fetch (transformers 5.17).
ATTENTION = {"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "paged_attention"}
DTYPES = {"auto", "float32", "float16", "bfloat16"}
# Of a generation: other code, other models, or many times the memory. The rest is numbers that we set ourselves.
GENERATION_DEFAULTS: dict[str, Any] = {
    "custom_generate": None, "num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1, "penalty_alpha": None,
    "dola_layers": None, "constraints": None, "force_words_ids": None, "guidance_scale": None, "stop_strings": None,
    "prompt_lookup_num_tokens": None, "assistant_early_exit": None, "cache_implementation": None, "cache_config": None,
    "compile_config": None, "watermarking_config": None, "return_dict_in_generate": False, "token_healing": False,
    "low_memory": None, "output_scores": False, "output_logits": False, "output_attentions": False,
    "output_hidden_states": False, "use_cache": True,
}  # fmt: skip
# Words in which the libraries say that a machine is too small, not that a file is bad.
MEMORY = ("OutOfMemoryError", "AcceleratorError")
# Weights may lack a little of what we count for a configuration (a buffer, a head that is not saved).
COUNTED = 1.05


class Image(Typed):
    """Settings of an image processor."""

    do_resize: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_pad: bool | None = None
    do_convert_rgb: bool | None = None
    do_image_splitting: bool | None = None
    image_mean: list[float] | float | None = None
    image_std: list[float] | float | None = None
    rescale_factor: float | None = None
    resample: int | None = None
    size: dict[str, int | None] | int | None = None
    max_image_size: dict[str, int | None] | None = None
    crop_size: dict[str, int | None] | int | None = None


class Processor(Typed):
    """Settings of a processor, those of its image processor among them or beside them."""

    image_processor: Image | None = None
    image_seq_len: Annotated[int, Field(ge=1, le=65_536)] | None = None
    chat_template: str | dict[str, str] | list[dict[str, str]] | None = None


class Generation(Typed):
    """Settings of a generation."""

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None


class Tokens(Typed):
    """Settings of a tokenizer."""

    tokenizer_class: str | None = None
    chat_template: str | dict[str, str] | list[dict[str, str]] | None = None
    model_max_length: float | None = None
    added_tokens_decoder: dict[str, dict[str, Any]] | None = None


TYPES: dict[str, type[Typed]] = {
    CONFIG: Typed, GENERATION: Generation, PREPROCESSOR: Image, PROCESSOR: Processor, "tokenizer_config.json": Tokens,
    "tokenizer.json": Typed, "chat_template.json": Tokens, "special_tokens_map.json": Typed,
}  # fmt: skip


def check(folder: Path) -> list[str]:
    """Check a model folder, its weights included; returns what has no effect here, as notes.

    Raises:
        ModelError: something in it is refused.
        UserError: a file is damaged.
    """
    notes = check_settings(folder)
    config = paths.read_json(folder / CONFIG)
    if config is None:
        raise ModelError("this folder is no model", where=str(folder), why=f"it holds no {CONFIG}")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            "a base model with an adapter in its folder",
            where=str(folder),
            why="which of the two is meant is not clear",
        )
    described = shape_from_config(config, image_settings(folder)).total_params
    held = sum(tensor.numel for tensor in weight_files.tensors(folder).values())
    packed = config.get("quantization_config")  # their count says nothing
    if described > COUNTED * held and not packed:
        raise ModelError(
            f"{CONFIG} describes {described:,} parameters, the weights hold {held:,}",
            where=str(folder),
            why="the rest would be random numbers",
            next_step="put the configuration and the weights of one model together",
        )
    return notes


def check_settings(folder: Path) -> list[str]:
    """The same for what a tokenizer or a processor is loaded from."""
    notes = []
    for name, types in TYPES.items():
        found = paths.read_json(folder / name, types)
        if found is not None and name != "tokenizer.json":
            for key, value, where in _entries(found, name):
                _check_entry(key, value, f"{folder / name}: {where}")
            if any(key == "auto_map" for key, _, _ in _entries(found, name)):
                notes.append(f"{name} names code of its own (auto_map): it is not run")
    for key, default in GENERATION_DEFAULTS.items():
        if (value := (paths.read_json(folder / GENERATION) or {}).get(key, default)) not in (default, None):
            raise ModelError(f"{key}: {value!r} is not for a model to decide", where=str(folder / GENERATION))
    return notes


def _entries(value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """(key, value, dotted path) of every entry, nested ones too."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in rows:
        yield str(key), each, f"{path}.{key}"
        yield from _entries(each, f"{path}.{key}")


def _check_entry(key: str, value: Any, where: str) -> None:
    why = None
    if key.strip("_").removesuffix("_internal") in ("attn_implementation", "experts_implementation"):
        words = value.values() if isinstance(value, dict) else [value]
        if not all(
            word is None or word in ATTENTION for word in words if isinstance(word, (str, type(None)))
        ):
            why = "it is the name of a kernel that would be fetched and run"
    elif key == "quantization_config" and value:
        if not isinstance(value, dict) or not _is_bitsandbytes(value):
            why = "bitsandbytes is the only quantiser that is loaded here"
    elif key in ("dtype", "torch_dtype"):
        if not (value is None or (isinstance(value, str) and value.removeprefix("torch.") in DTYPES)):
            why = f"weights are {', '.join(sorted(DTYPES - {'auto'}))}"
    elif key == "custom_generate":
        why = "it names code to run"
    elif isinstance(value, float) and not math.isfinite(value):
        why = "it is not finite"
    if why is not None:
        raise ModelError(f"{key}: {str(value)[:200]!r} is refused", where=where, why=why)


def _is_bitsandbytes(quantiser: dict[str, Any]) -> bool:
    flags = [quantiser.get("load_in_4bit"), quantiser.get("load_in_8bit")]
    dtypes = [value for key, value in quantiser.items() if key.endswith("dtype")]
    return (
        quantiser.get("quant_method", "bitsandbytes") == "bitsandbytes"
        and any(flag is True for flag in flags)
        and all(word is None or word in (*DTYPES, "uint8") for word in dtypes)
    )


def image_settings(folder: Path) -> dict[str, Any] | None:
    """Image-processor settings: a file of their own, or a part of processor_config.json (transformers 5)."""
    own = paths.read_json(folder / PREPROCESSOR, Image)
    whole = paths.read_json(folder / PROCESSOR, Processor) or {}
    settings = own if own is not None else whole.get("image_processor")
    return None if settings is None else {**whole, **settings}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn whatever the libraries raise on files they cannot use into one error.

    Their own Rust parts panic with a class that is no `Exception`.
    """
    try:
        yield
    except BaseException as error:
        name = type(error).__name__
        if isinstance(error, ToasterError) or name in MEMORY:
            raise
        if not isinstance(error, Exception) and name != "PanicException":
            raise
        reason = str(error).strip().split("\n")[0][:500]
        raise ModelError(
            "the model in this folder cannot be loaded",
            where=str(folder),
            why=f"{name}: {reason}" if reason else name,
        ) from error

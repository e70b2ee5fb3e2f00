"""A dict becomes a recipe, or one error that names every mistake and the key that was meant."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from toasterft.errors import RecipeError, did_you_mean
from toasterft.recipe.base import Section

# What people type when they mean a Hugging Face name.
SYNONYMS = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "gradient_accumulation": "gradient_accumulation_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "max_seq_length": "max_length",
    "max_new_tokens": "max_completion_length",
    "image_size": "image_longest_edge",
    "load_in_4_bit": "load_in_4bit",
    "rank": "lora.r",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "alpha": "lora.lora_alpha",
    "lora.rank": "lora.r",
    "lora.alpha": "lora.lora_alpha",
    "lora.dropout": "lora.lora_dropout",
    "system_prompt": "prompt.system",
}


def validate(schema: type[Section], data: dict[str, Any], where: str) -> Any:
    """The frozen recipe, or one error that names every mistake."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        mistakes = _mistakes(schema, error)
    plural = "1 problem" if len(mistakes) == 1 else f"{len(mistakes)} problems"
    raise RecipeError(
        f"{plural}; nothing was run",
        where=where,
        details=mistakes,
        next_step=f"toasterft recipes fields {data['method']}   lists every key with its default",
    )


def _mistakes(schema: type[Section], error: ValidationError) -> list[str]:
    # A union field reports once per branch, with the branch's own name in the path: one line is enough.
    by_path: dict[str, list[Any]] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        named = [
            part
            for part in parts
            if not part.startswith(("literal[", "tuple[", "constrained-", "bool", "int"))
        ]
        by_path.setdefault(".".join(named) or "(all)", []).append(item)
    return [_mistake(schema, path, items) for path, items in by_path.items()]


def _mistake(schema: type[Section], path: str, items: list[Any]) -> str:
    item = items[0]
    if item["type"] == "extra_forbidden":
        known = fields(schema)
        if path in SYNONYMS and SYNONYMS[path] in known:
            return f"{path}: unknown key — did you mean {SYNONYMS[path]}?"
        return f"{path}: unknown key{did_you_mean(path, list(known))}"
    message = " or ".join(dict.fromkeys(str(each["msg"]).removeprefix("Value error, ") for each in items))
    if item["type"] == "value_error":
        return message if path == "(all)" else f"{path}: {message}"
    given = item["input"]
    shown = "" if isinstance(given, dict) else f", got {given!r}"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def fields(schema: type[BaseModel], prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Every key of a recipe, nested ones dotted, with its default and what it does."""
    found: dict[str, tuple[Any, str]] = {}
    for name, info in schema.model_fields.items():
        default = info.get_default(call_default_factory=False)
        nested = default if isinstance(default, BaseModel) else None
        found[prefix + name] = ("{…}" if nested is not None else default, info.description or "")
        section = _section_of(info.annotation)
        if section is not None:
            found |= fields(section, f"{prefix}{name}.")
    return found


def _section_of(annotation: Any) -> type[Section] | None:
    options = getattr(annotation, "__args__", (annotation,))
    for option in options:
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None

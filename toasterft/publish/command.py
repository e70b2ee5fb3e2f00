"""The command line that repeats a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from toasterft import recipe
from toasterft.publish.run_view import shortened

# Keys of a recipe that are dashed flags on the command line.
FLAGS = ("data", "images", "reasoner", "step", "suffix", "seed", "limit", "gpu", "price")


def command(settings: dict[str, Any]) -> str:
    """The command for a resolved recipe: the settings that differ from the defaults of today, paths shortened."""
    if not settings:
        return ""
    method, settings = str(settings.get("method")), shortened(settings)
    schema = recipe.RECIPES.get(method)
    if schema is None or method == "train":
        return f"toasterft {method} recipe.yaml"
    words = ["toasterft", method, *([] if method == "eval" else ["--model"]), str(settings.get("model"))]
    changed = dict(
        _changed(settings, {name: info.get_default() for name, info in schema.model_fields.items()})
    )
    changed.setdefault("data", settings.get("data"))
    for key in FLAGS:
        value = changed.pop(key, None)
        if value is not None:
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    words += [f"{key}={_typed(value)}" for key, value in changed.items() if key not in ("method", "model")]
    return shlex.join(words)


def _changed(settings: dict[str, Any], plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What differs from the defaults, keys of nested sections dotted as the command line has them."""
    for key, value in settings.items():
        default = plain.get(key)
        if isinstance(default, recipe.Section) and isinstance(value, dict):
            yield from _changed(value, default.model_dump(mode="json"), f"{prefix}{key}.")
        elif (list(default) if isinstance(default, tuple) else default) != value or key not in plain:
            yield prefix + key, value


def _typed(value: Any) -> str:
    """A value as the command line reads it: YAML, of which JSON is a part."""
    bare = isinstance(value, str) and value and "\n" not in value and _read(value) == value
    return value if bare else json.dumps(value, ensure_ascii=False)


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None

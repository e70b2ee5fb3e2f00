"""The supported architectures, one module per family.

To add a family, add a module here with its `ARCHITECTURES`, a tuple of `Architecture`: nothing else in the package
names a family. Keys that a configuration file leaves out get the default of the configuration class that transformers
5.17 builds for that `model_type`; `tests/unit/test_shapes.py` holds every count against the real model classes on the
meta device, `tests/unit/test_geometry.py` every image size against the real processors.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Iterator

from toasterft.errors import ModelError, did_you_mean
from toasterft.models.architectures.common import Architecture, Config
from toasterft.models.shape import ModelShape, TextShape, VisionShape

__all__ = [
    "Architecture",
    "Config",
    "ModelShape",
    "TextShape",
    "VisionShape",
    "architecture",
    "shape_from_config",
    "supported",
]

# Far above the largest model there is; a machine that is asked for more hangs before it can say so.
MOST = {
    "layers": 1_000, "heads": 1_024, "kv_heads": 1_024, "head_dim": 65_536, "hidden": 262_144, "intermediate": 4_194_304,
    "vocab": 16_777_216, "image_px": 16_384, "tile_px": 16_384, "patch_px": 1_024, "merge": 64, "min_tiles": 1_000,
    "max_tiles": 1_000, "budget_tiles": 10_000, "longest_edge_px": 65_536, "canvases_px": 16_384,
}  # fmt: skip
MOST_OF_ANY = 10**13
MOST_IMAGE_TOKENS = 65_536


@functools.cache
def supported() -> dict[str, Architecture]:
    """Every architecture by its `model_type`, from the modules of this folder."""
    modules = [
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    ]
    return {row.model_type: row for module in modules for row in getattr(module, "ARCHITECTURES", ())}


def architecture(model_type: str, *, where: str | None = None) -> Architecture:
    """The architecture of a `model_type`.

    Raises:
        ModelError: naming the supported ones.
    """
    known = supported()
    if model_type not in known:
        raise ModelError(
            f"model type {model_type!r} is not supported{did_you_mean(model_type, sorted(known))}",
            where=where,
            why=f"known types: {', '.join(sorted(known))}",
        )
    return known[model_type]


def shape_from_config(config: Config, preprocessor: Config | None = None) -> ModelShape:
    """The shape of the model that a `config.json` describes.

    Args:
        config: the content of `config.json`.
        preprocessor: the content of `preprocessor_config.json`, or of `processor_config.json` (its
            `image_processor` part is taken). Without it the tile size is the vision tower's, and the
            limits are those the family is published with.

    Raises:
        ModelError: a `model_type`, language model or vision tower that is not known here, or a value
            that no such model can have.
    """
    model_type = str(config.get("model_type"))
    known = architecture(model_type, where="config.json")
    if preprocessor is not None:
        preprocessor = preprocessor.get("image_processor", preprocessor)
    try:
        shape = known.read_shape(config, preprocessor)
        for part in (shape.text, shape.vision, shape.geometry):
            for each in dataclasses.fields(part):
                if each.type != "bool":
                    _require_possible(each.name, getattr(part, each.name))
        if (tokens := shape.geometry.image_tokens(64, 64)) > MOST_IMAGE_TOKENS:
            raise ValueError(f"a picture of 64 × 64 px would take {tokens:,} tokens")
        return shape
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError, IndexError) as error:
        raise ModelError(f"not a usable {model_type} configuration ({error})", where="config.json") from error


def _require_possible(name: str, value: object) -> None:
    """
    Raises:
        ValueError: a count that is no count, or beyond what any model has; each part is built one by one.
    """
    for each in _flat(value):
        if type(each) is not int or not 0 <= each <= MOST.get(name, MOST_OF_ANY):
            raise ValueError(f"{name} is {each!r}, not a count up to {MOST.get(name, MOST_OF_ANY):,}")
        if each == 0 and name in (
            "hidden",
            "heads",
            "kv_heads",
            "head_dim",
            "vocab",
            "patch_px",
            "tile_px",
            "merge",
        ):
            raise ValueError(f"{name} is 0")


def _flat(value: object) -> Iterator[object]:
    if isinstance(value, tuple):
        if len(value) > MOST["canvases_px"]:
            raise ValueError(f"{len(value):,} canvases")
        for each in value:
            yield from _flat(each)
    elif value is not None:
        yield value

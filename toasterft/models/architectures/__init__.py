"""The supported architectures, one module per family.

To add a family, add a module here with its `ARCHITECTURES`, a tuple of `Architecture`: nothing else in the package
names a family. Keys that a configuration file leaves out get the default of the configuration class that transformers
5.17 builds for that `model_type`; `tests/unit/test_shapes.py` holds every count against the real model classes on the
meta device, `tests/unit/test_geometry.py` every image size against the real processors.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

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
        return known.read_shape(config, preprocessor)
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"not a usable {model_type} configuration ({error})", where="config.json") from error

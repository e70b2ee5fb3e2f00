"""The processor of a model folder or hub id, with or without torchvision.

transformers 5.17 refuses `AutoProcessor` for these models where torchvision is missing (a CPU
install: the registry's torchvision does not work with the CPU torch build), although each has a
Pillow image processor. There the pair is put together by hand from the same files.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import transformers
from transformers import processing_utils
from transformers.utils import PushToHubMixin, is_torchvision_available

from toasterft import paths
from toasterft.engine import pretrained
from toasterft.models import model_files
from toasterft.models.architectures import Architecture


def load(source: str, family: Architecture, image_longest_edge: int | None) -> Any:
    """A transformers processor whose image processor honours `image_longest_edge`.

    Args:
        source: model folder.
        image_longest_edge: px, or None for the model's own setting.

    Raises:
        ModelError: files are missing or refused.
    """
    folder = Path(source)
    if is_torchvision_available():
        processor = pretrained.part(transformers.AutoProcessor, folder)
    else:
        processor = _by_hand(folder, family)
    if image_longest_edge is not None and resizes_itself(processor):
        processor.image_processor.size = {"longest_edge": image_longest_edge}
    return processor


def save(processor: Any, folder: Path) -> None:
    """Write tokenizer, template and image settings beside an adapter, as `from_pretrained` expects them."""
    processor.save_pretrained(folder)
    path = folder / "processor_config.json"
    settings = paths.read_json(path) or {}
    if settings.get("video_processor") == {}:
        del settings["video_processor"]
        paths.write_json(path, settings)


def resizes_itself(processor: Any) -> bool:
    """Whether the image processor scales to a longest edge (Idefics3, SmolVLM).

    Qwen's has a `longest_edge` too, but means a pixel count by it, together with `shortest_edge`.
    """
    size = {
        name: value for name, value in dict(processor.image_processor.size or {}).items() if value is not None
    }
    return set(size) == {"longest_edge"}


def _by_hand(folder: Path, family: Architecture) -> Any:
    image_processor = pretrained.part(_class(family.pil_processor), folder)
    tokenizer = pretrained.tokenizer(folder)
    processor_class = _class(family.processor)
    settings = dict(paths.read_json(folder / model_files.PROCESSOR, model_files.Processor) or {})
    # Parts that are loaded above, and names that are not settings.
    for part in ("image_processor", "video_processor", "tokenizer", "processor_class", "auto_map"):
        settings.pop(part, None)
    settings.setdefault("chat_template", pretrained.chat_template(folder, tokenizer))
    parts = {"image_processor": image_processor, "tokenizer": tokenizer}
    if "video_processor" in processor_class.get_attributes():
        parts["video_processor"] = _no_video()
    with model_files.explained(folder):
        return processor_class(**parts, **settings)


def _no_video() -> Any:
    """A stand-in for the video processor these classes insist on; this tool trains on images.

    Without torchvision `transformers.BaseVideoProcessor` is a placeholder that refuses to be built,
    and the processors accept nothing but an instance of it.
    """

    # Since 5.19 they ask for an instance of `VideoProcessorMixin`, a name that is exported beside torchvision alone.
    library = processing_utils.transformers_module  # not the module that we import, but another copy
    if not hasattr(library, "VideoProcessorMixin"):
        library.VideoProcessorMixin = transformers.BaseVideoProcessor

    # PushToHubMixin is what `save_pretrained` looks for before it calls `to_dict`.
    class NoVideo(transformers.BaseVideoProcessor, PushToHubMixin):
        model_input_names: ClassVar[list[str]] = []
        _auto_class = None

        def __init__(self) -> None:
            pass

        def to_dict(self) -> dict[str, Any]:
            return {}

    return NoVideo()


def _class(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)

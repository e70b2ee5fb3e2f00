"""Open a model for training or inference: load it, check cached features against pixels, set its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toasterft.data.chat import Chat
from toasterft.data.example import Example
from toasterft.engine import Engine, Request, adapters
from toasterft.engine.batching import Batcher
from toasterft.engine.forward import placed
from toasterft.engine.image_features import ImageEncoder
from toasterft.engine.loaded import AGREEMENT, LoadedModel
from toasterft.models import download
from toasterft.models.architectures import architecture
from toasterft.models.settings import ModelSettings
from toasterft.progress import Reporter
from toasterft.recipe import Recipe, Trained


@dataclass
class ModelSession:
    """A loaded model with its chat format, its batches and its image encoder (None: images as pixels)."""

    loaded: LoadedModel
    chat: Chat
    inputs: Batcher
    encoder: ImageEncoder | None


def open_model(
    settings: ModelSettings,
    recipe: Recipe,
    engine: Engine,
    report: Reporter,
    probe: Example | None,
    *,
    train: bool,
) -> ModelSession:
    """Load a model, and prove on one sample that cached features give the logits that pixels give.

    Args:
        recipe: the other settings: data type, seed, encoding, and what is trained.
        probe: an example with an image; None skips the proof, and the pixel path is used.
    """
    report.phase("loading")
    request = _request(settings, recipe, train=train)
    loaded = engine.load(request)
    chat = Chat(loaded.processor, settings.prompt)
    encoder = None
    if adapters.vision_side_learns(loaded):
        loaded.notes.append("the vision side learns: the feature cache is off")
    elif probe is not None and not loaded.family.takes_features:
        loaded.notes.append(
            f"{loaded.family.model_type} takes no cached image features: images are encoded anew in every pass"
        )
    elif probe is not None:
        limit_bytes = None if recipe.cache_limit_gb is None else int(recipe.cache_limit_gb * 1e9)
        encoder = ImageEncoder(loaded, limit_bytes, recipe.encode_batch_size)
        loaded.features = _features_agree(loaded, chat, encoder, probe)
        if not loaded.features:
            encoder = None
            loaded.notes.append("cached-feature and pixel logits differ: the feature cache is off")
    for note in loaded.notes:
        report.say(note)
    return ModelSession(loaded, chat, Batcher(loaded, chat, encoder), encoder)


def _request(settings: ModelSettings, recipe: Recipe, *, train: bool) -> Request:
    model = settings.model
    shared: dict[str, Any] = {
        "base": model.base if model.local else str(download.fetch(model.base)),
        "family": architecture(model.shape.model_type),
        "adapter": model.adapter,
        "load_in_4bit": settings.load_in_4bit,
        "dtype": recipe.dtype,
        "image_longest_edge": settings.image_longest_edge,
        "seed": recipe.seed,
    }
    if not train:
        return Request(**shared)
    assert isinstance(recipe, Trained)
    return Request(
        **shared,
        lora=recipe.lora,
        train=True,
        full=recipe.lora is None,
        train_connector=recipe.train_connector,
        train_vision=recipe.train_vision,
        gradient_checkpointing=recipe.gradient_checkpointing,
        max_length=recipe.max_length,
    )


def _features_agree(loaded: LoadedModel, chat: Chat, encoder: ImageEncoder, probe: Example) -> bool:
    """Whether one prompt's logits agree between features and pixels."""
    logits = []
    with loaded.evaluating() as model:
        for way in (encoder, None):
            inputs = Batcher(loaded, chat, way)
            batch = inputs.left_padded(inputs.prompts([probe]))
            logits.append(model(**placed(loaded, batch), logits_to_keep=8).logits.float())
    difference = (logits[0] - logits[1]).abs().max() / logits[1].abs().max().clamp(min=1e-6)
    return bool(difference <= AGREEMENT[loaded.dtype])

"""A model ready to be asked or taught: loaded, its features proved, its prompts set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from toasterft.data.chat import Chat
from toasterft.data.example import Example
from toasterft.engine import Engine, Request
from toasterft.engine.batching import Batcher
from toasterft.engine.image_features import ImageEncoder
from toasterft.engine.loaded import LoadedModel
from toasterft.jobs.prepare import Job
from toasterft.models import lookup
from toasterft.models.architectures import architecture
from toasterft.progress import Reporter
from toasterft.recipe import Prompt, Recipe, Trained

# Largest difference of a logit between the two ways in, relative to the largest logit. They run the
# same arithmetic on the same numbers; what may differ is the order of sums in another batch shape.
AGREEMENT = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@dataclass
class ModelSession:
    """What the methods work with."""

    loaded: LoadedModel
    chat: Chat
    inputs: Batcher
    encoder: ImageEncoder | None


def open_model(
    job: Job, engine: Engine, report: Reporter, probe: Example | None, *, train: bool
) -> ModelSession:
    """Load `job.model`, and prove on one sample that features-in equals pixels-in.

    Args:
        probe: an example with an image; None skips the proof, and the pixel path is used.
    """
    report.phase("loading")
    recipe = job.recipe
    request = _request(job, recipe, train=train)
    loaded = engine.load(request)
    chat = Chat(loaded.processor, _prompt(job))
    wants_pixels = request.train_vision or (request.full and request.train_connector)
    if not wants_pixels and probe is not None:
        encoder = (
            ImageEncoder(loaded, _limit_bytes(recipe), recipe.encode_batch_size)
            if loaded.family.takes_features
            else None
        )
        loaded.features = encoder is not None and _prove(loaded, chat, encoder, probe)
        if not loaded.family.takes_features:
            loaded.notes.append(
                f"{loaded.family.model_type} takes no cached image features: images are encoded anew in every pass"
            )
        elif not loaded.features:
            loaded.notes.append(
                "features-in and pixels-in disagree on this model: images are encoded anew in every pass"
            )
    else:
        encoder = None
        if wants_pixels:
            loaded.notes.append("the vision side learns: the feature cache is off")
    for note in loaded.notes:
        report.say(note)
    encoder = encoder if loaded.features else None
    return ModelSession(loaded, chat, Batcher(loaded, chat, encoder), encoder)


def _request(job: Job, recipe: Recipe, *, train: bool) -> Request:
    model = job.model
    shared: dict[str, Any] = {
        "base": str(model.weights_folder()),
        "family": architecture(model.shape.model_type),
        "adapter": model.adapter,
        "load_in_4bit": quantised(job),
        "dtype": recipe.dtype,
        "image_longest_edge": longest_edge(job),
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


def quantised(job: Job) -> bool:
    """Whether to load 4-bit weights: as stated, else as the adapter was trained, else not."""
    stated: bool | None = getattr(job.recipe, "load_in_4bit", None)
    return bool((job.model.notes or {}).get("load_in_4bit")) if stated is None else stated


def longest_edge(job: Job) -> int | None:
    """The recipe's image size, else the one the adapter was trained with."""
    if job.recipe.image_longest_edge is not None:
        return job.recipe.image_longest_edge
    saved: int | None = (job.model.notes or {}).get("image_longest_edge")
    return saved


def _prompt(job: Job) -> Prompt:
    """The recipe's prompt settings where it states any, else those saved with the adapter."""
    stated: Prompt | None = getattr(job.recipe, "prompt", None)
    saved = (job.model.notes or {}).get("prompt")
    if stated is not None and (saved is None or stated != Prompt()):
        return stated
    return Prompt(**saved) if saved else Prompt()


def _limit_bytes(recipe: Recipe) -> int | None:
    return None if recipe.cache_limit_gb is None else int(recipe.cache_limit_gb * 1e9)


def _prove(loaded: LoadedModel, chat: Chat, encoder: ImageEncoder, probe: Example) -> bool:
    """Whether one prompt's logits agree between features and pixels."""
    logits = []
    with loaded.evaluating() as model:
        for way in (encoder, None):
            inputs = Batcher(loaded, chat, way)
            batch = inputs.left_padded(inputs.prompts([probe]))
            logits.append(model(**batch, logits_to_keep=8).logits.float())
    difference = (logits[0] - logits[1]).abs().max() / logits[1].abs().max().clamp(min=1e-6)
    return bool(difference <= AGREEMENT[loaded.dtype])


def adapter_notes(job: Job, session: ModelSession) -> dict[str, Any]:
    """What later commands on the adapter need: prompt, image size, and the base's fingerprint."""
    base = Path(session.loaded.base)
    return {
        "prompt": session.chat.prompt.model_dump(),
        "image_longest_edge": longest_edge(job),
        "load_in_4bit": quantised(job),
        "base": job.model.base_name,
        "base_fingerprint": lookup.fingerprint(base) if base.is_dir() else None,
    }

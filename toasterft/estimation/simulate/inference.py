"""Peaks of passes without gradients: writing completions, and the vision tower on its own."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from toasterft.engine import packed_attention
from toasterft.engine.forward import CACHE, FEATURES
from toasterft.engine.generate import Writing
from toasterft.engine.loaded import LoadedModel
from toasterft.engine.slots import Prompt, Row, Slots, prompt_places
from toasterft.estimation.simulate import meta
from toasterft.estimation.simulate.counting import Tracker, report
from toasterft.estimation.simulate.cuda import Cuda
from toasterft.estimation.simulate.meta import META
from toasterft.models.architectures import Config, shape_from_config
from toasterft.recipe import Sft, Trained


def generate_peak(
    config: Config,
    recipe: Trained,
    *,
    prompts: int,
    generations: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    top_p: float = 1.0,
    flash: bool = True,
) -> dict[str, Any]:
    """Peak bytes of sampling, rows of `prompts` prompts side by side: reading one more, and the rows' last token.

    Returns:
        Bytes of `weights`, `adapter`, `image_features`, `kv_cache` (with what was just read) and `activations` (the
        rest) at the peak; their sum `peak`; its `phase` (`prefill`, `decode`), and the peak of every phase in `phases`.
    """
    loaded = meta.build(config, recipe, train=False)
    rows, inner = prompts * generations, _Inner(loaded)
    ids = torch.zeros(1, prompt_tokens, dtype=torch.long, device=META)
    features = meta.features(loaded, image_tokens)
    slots = Slots(
        inner,
        rows=rows,
        prompts=prompt_places(rows, generations),
        completion_tokens=completion_tokens,
    )
    tracker = Tracker()
    adapter = [weight for name, weight in loaded.model.named_parameters() if "lora_" in name]
    items = {
        "weights": tracker.add(meta.frozen(loaded, adapter, tower=False)),
        "adapter": tracker.add(adapter),
        "image_features": tracker.add([features]),
    }
    tracker.add([ids])
    batch = {"input_ids": ids, "attention_mask": ids, FEATURES: features}
    with torch.no_grad(), tracker, Cuda(torch.float32, flash=flash):
        _fill(slots, batch, generations, completion_tokens)
        items["kv_cache"] = slots.held_bytes
        with tracker.phase("prefill"):
            logits, prompt = slots.read(batch)
            assert prompt.past is not None
            past = sum(part.nbytes for layer in prompt.past.layers for part in (layer.keys, layer.values))
            del logits, prompt
        with tracker.phase("decode"), packed_attention.installed(loaded.inner):
            logits = slots.step()
            drawn = torch.zeros(rows, device=META)
            Writing([], completion_tokens, temperature=0.9, top_p=top_p).choose(logits, drawn, [0])
    found = report(tracker, items)
    if found["phase"] == "prefill":
        found["kv_cache"] += past
        found["activations"] -= past
    return found


def _fill(slots: Slots, batch: dict[str, torch.Tensor], generations: int, completion_tokens: int) -> None:
    """As full as it gets: every place of a prompt taken, a whole group beside others of which some rows are left."""
    left, length = slots.places, batch["input_ids"].shape[1]
    for number in range(slots.prompt_places):
        waiting = slots.prompt_places - number - 1
        count = min(generations, left - waiting)
        rows = [Row(number, branch, [0] * (completion_tokens - 1)) for branch in range(count)]
        if number == 0:
            slots.join(slots.read(batch)[1], rows)
        else:
            slots.prompts.append(Prompt(None, length, length, rows))
            slots.rows += rows
        left -= count


class _Inner:
    """What `Slots` calls: the model without its own way to find the places of image features."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded, self.model, self.device = loaded, loaded.inner.model, META
        self.text, self.head = loaded.part(loaded.family.text), loaded.inner.get_output_embeddings()

    def __call__(self, input_ids: torch.Tensor, logits_to_keep: int, **options: Any) -> Any:
        features = options.pop(FEATURES, meta.features(self.loaded, 0))
        options.setdefault(CACHE, transformers.DynamicCache(config=self.text.config))
        states = meta.last_hidden(self.loaded, input_ids, features, **options)
        return _Out(self.head(states[:, -logits_to_keep:]), options[CACHE])


class _Out(dict[str, Any]):
    def __init__(self, logits: torch.Tensor, past: Any) -> None:
        super().__init__({CACHE: past})
        self.logits = logits


def encode_peak(config: Config, *, tiles: int) -> dict[str, Any]:
    """Peak bytes of the vision tower on `tiles` tiles, and of the connector where its output is cached.

    Not for Qwen2.5-VL, whose tower reads the pictures' sizes from values.

    Returns:
        Bytes of `weights` (tower and connector), `pixels` and `activations` at the peak, and their sum `peak`.
    """
    loaded = meta.build(config, Sft(load_in_4bit=False), train=False)
    vision, connector = loaded.part(loaded.family.vision), loaded.part(loaded.family.connector)
    pixels = meta.pixels(loaded, tiles)
    tracker = Tracker()
    items = {
        "weights": tracker.add([*vision.parameters(), *connector.parameters()]),
        "pixels": tracker.add([pixels]),
    }
    with torch.no_grad(), tracker, Cuda(torch.float32), tracker.phase("encode"):
        if loaded.family.connector_linear is not None:
            meta.encode(loaded, pixels)
        else:
            every = (
                {"output_hidden_states": True} if shape_from_config(config).vision.all_hidden_states else {}
            )
            vision(pixel_values=pixels.to(meta.DTYPE), **every)
    return report(tracker, items)

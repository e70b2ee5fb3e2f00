"""Examples as model inputs: from cached features where the model takes them, from pixels elsewhere.

Shapes: B rows, T tokens. `forward.placed` makes a batch with features ready for the model.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from toasterft.data.chat import Chat
from toasterft.data.example import Example
from toasterft.engine.forward import FEATURES, GRID, TYPES
from toasterft.engine.image_features import ImageEncoder, open_upright
from toasterft.engine.loaded import LoadedModel

IGNORE = -100  # the label value that losses skip


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts and what stands for their images.

    Attributes:
        ids: one list of token ids per row, image tokens expanded.
        visual: cached features under `FEATURES` [image tokens, hidden], or the processor's pixel tensors as keyword
            arguments for the model; empty where no row has an image.
        token_types: per row, for models that want them (Qwen's `mm_token_type_ids`), else None.
    """

    ids: list[list[int]]
    visual: dict[str, torch.Tensor]
    token_types: list[list[int]] | None = None


def padded(rows: Sequence[list[int]], value: int, side: str = "right") -> torch.Tensor:
    """[B, longest] from rows of any lengths, filled up with `value`."""
    return pad_sequence([torch.tensor(row) for row in rows], True, value, side)


class Batcher:
    """Turns examples into batches for one model.

    Args:
        encoder: where cached features come from; None uses pixels.
    """

    def __init__(self, loaded: LoadedModel, chat: Chat, encoder: ImageEncoder | None) -> None:
        self.loaded = loaded
        self.chat = chat
        self.encoder = encoder
        self.pad_id: int = loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else 0

    def prompts(self, examples: Sequence[Example], suffix: str = "") -> Prompts:
        """Everything up to where the model starts to write."""
        texts = [self.chat.question(example, suffix) for example in examples]
        return (
            self._from_features(examples, texts, examples)
            if self.encoder is not None
            else self._from_pixels(examples, texts)
        )

    def prompts_of_one(self, examples: Sequence[Example]) -> Prompts:
        """Prompts about the same images (`shared_key`), whose features are there once; images come as features."""
        return self._from_features(
            examples, [self.chat.question(example) for example in examples], examples[:1]
        )

    def shared_key(self, example: Example) -> Hashable:
        """Equal for rows whose prompts are equal up to their last image."""
        before, _, _ = self.chat.question(example).rpartition(self.chat.image_token)
        return before, tuple(image.address for image in example.images)

    def left_padded(self, prompts: Prompts) -> dict[str, torch.Tensor]:
        """[B, T] inputs for generation, on the model's device."""
        batch = {
            "input_ids": padded(prompts.ids, self.pad_id, "left"),
            "attention_mask": padded([[1] * len(ids) for ids in prompts.ids], 0, "left"),
        }
        if prompts.token_types is not None:
            batch[TYPES] = padded(prompts.token_types, 0, "left")
        return {name: value.to(self.loaded.device) for name, value in {**batch, **prompts.visual}.items()}

    def training(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """[B, T] right-padded inputs with labels on the completion alone, its end token included."""
        prompts = self.prompts(examples)
        completions = [self.chat.ids(self.chat.completion(example)) for example in examples]
        whole = [ids + completion for ids, completion in zip(prompts.ids, completions)]
        labels = [[IGNORE] * len(ids) + completion for ids, completion in zip(prompts.ids, completions)]
        batch = {
            "input_ids": padded(whole, self.pad_id),
            "attention_mask": padded([[1] * len(ids) for ids in whole], 0),
            "labels": padded(labels, IGNORE),
        }
        if prompts.token_types is not None:
            types = [each + [0] * len(ids) for each, ids in zip(prompts.token_types, completions)]
            batch[TYPES] = padded(types, 0)
        return {**batch, **prompts.visual}

    def _from_features(
        self, examples: Sequence[Example], texts: list[str], shown: Sequence[Example]
    ) -> Prompts:
        """
        Args:
            shown: whose features are given.
        """
        every = [image for example in examples for image in example.images]
        found = self.encoder(every) if self.encoder is not None else []
        rest = iter(found)
        runs = [[next(rest).text for _ in example.images] for example in examples]
        ids = [self.chat.ids(self.chat.expand(text, run)) for text, run in zip(texts, runs)]
        features = found[: sum(len(example.images) for example in shown)]
        if not features:
            return Prompts(ids, {})
        visual, types = {FEATURES: torch.cat([item.hidden for item in features])}, None
        if grids := [item.grid for item in features if item.grid is not None]:
            visual[GRID] = torch.cat(grids)
            types = [[int(token == self.loaded.image_token_id) for token in row] for row in ids]
        return Prompts(ids, visual, types)

    def _from_pixels(self, examples: Sequence[Example], texts: list[str]) -> Prompts:
        pictures = [[open_upright(self.loaded, image) for image in example.images] for example in examples]
        made: dict[str, Any] = dict(
            self.loaded.processor(
                images=pictures if any(pictures) else None,
                text=texts,
                padding=True,
                padding_side="left",
                add_special_tokens=False,
                return_tensors="pt",
            )
        )
        mask = made.pop("attention_mask").bool()
        ids = [row[keep].tolist() for row, keep in zip(made.pop("input_ids"), mask)]
        types = made.pop("mm_token_type_ids", None)
        token_types = [row[keep].tolist() for row, keep in zip(types, mask)] if types is not None else None
        return Prompts(ids, made, token_types)

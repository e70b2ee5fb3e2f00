"""How many tokens and tiles a data set really is: from image headers and text, no pixels, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import catalog
from toasterft.data.example import Example
from toasterft.geometry import Geometry
from toasterft.recipe import Prompt

# Without the model's tokenizer: characters per token of SmolVLM's, measured on 1,279 ChartQA questions
# (4.2) and 603 traces (3.7), 2026-11-21. Answers that are numbers have 1.5; they are short.
CHARACTERS_PER_TOKEN = 3.5
# Turn markers and role names of a chat template; SmolVLM's takes 8.
TEMPLATE_TOKENS = 10
# `<think></think><answer></answer>` and the end token: SmolVLM spells them with 12 tokens.
TAG_TOKENS = 12


@dataclass(frozen=True)
class Survey:
    """Sizes of one data set for one model; `*_tokens` are means per row unless they say otherwise."""

    rows: int
    images: int
    tiles: float
    """Mean tiles per image."""
    tower_patches: float
    """Mean patches the vision tower runs on, per image."""
    feature_tokens: float
    """Mean positions that carry features, per image."""
    prompt_tokens: float
    completion_tokens: float
    longest_tokens: int
    over_max_length: int
    """Rows longer than `max_length`."""
    with_reasoning: int
    provenance: str

    @property
    def row_tokens(self) -> float:
        return self.prompt_tokens + self.completion_tokens


def of_examples(
    examples: list[Example],
    geometry: Geometry,
    prompt: Prompt,
    max_length: int,
    count: Callable[[str], int] | None,
) -> Survey:
    """Survey of the data itself.

    Args:
        count: tokens of a text; None estimates from its length.
    """
    counted = count or (lambda text: round(len(text) / CHARACTERS_PER_TOKEN + 0.5))
    images = {image.name: image for example in examples for image in example.images}
    tokens: dict[str, int] = {}
    tiles = patches = features = 0
    by_size: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for name, image in images.items():
        size = image.size_px
        if size not in by_size:
            by_size[size] = (
                geometry.image_tokens(*size),
                geometry.tiles(*size),
                geometry.tower_patches(*size),
                geometry.feature_tokens(*size),
            )
        tokens[name], tile, patch, feature = by_size[size]
        tiles, patches, features = tiles + tile, patches + patch, features + feature
    fixed = TEMPLATE_TOKENS + counted((prompt.system or "") + prompt.question_suffix)
    prompts = [
        fixed + counted(example.question) + sum(tokens[image.name] for image in example.images)
        for example in examples
    ]
    completions = [
        counted(example.answer) + counted(example.reasoning or "") + TAG_TOKENS for example in examples
    ]
    lengths = [one + other for one, other in zip(prompts, completions)]
    rows, pictures = len(examples), max(1, len(images))
    return Survey(
        rows=rows,
        images=len(images),
        tiles=tiles / pictures,
        tower_patches=patches / pictures,
        feature_tokens=features / pictures,
        prompt_tokens=sum(prompts) / rows,
        completion_tokens=sum(completions) / rows,
        longest_tokens=max(lengths),
        over_max_length=sum(length > max_length for length in lengths),
        with_reasoning=sum(example.reasoning is not None for example in examples),
        provenance="counted on the data" if count else "images counted, text estimated from its length",
    )


def of_row(row: catalog.DatasetRow, geometry: Geometry, max_length: int, limit: int | None) -> Survey:
    """Survey of a data set that is not on this machine, from its catalog row."""
    rows = min(row.rows, limit) if limit else row.rows
    prompt = TEMPLATE_TOKENS + row.question_tokens + geometry.image_tokens(*row.image_px)
    completion = TAG_TOKENS + row.reasoning_tokens + row.answer_tokens
    return Survey(
        rows=rows,
        images=rows,
        tiles=geometry.tiles(*row.image_px),
        tower_patches=geometry.tower_patches(*row.image_px),
        feature_tokens=geometry.feature_tokens(*row.image_px),
        prompt_tokens=prompt,
        completion_tokens=completion,
        longest_tokens=prompt + completion,
        over_max_length=rows if prompt + completion > max_length else 0,
        with_reasoning=rows if row.reasoning_tokens else 0,
        provenance=row.provenance,
    )


def counter(folder: Path) -> Callable[[str], int] | None:
    """A token counter from a model folder's tokenizer.json, without transformers."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(file))
    known: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in known:
            known[text] = len(tokenizer.encode(text, add_special_tokens=False).ids)
        return known[text]

    return count

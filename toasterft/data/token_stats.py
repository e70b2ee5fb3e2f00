"""Token and tile statistics of a data set, from image headers and text: no pixels, no torch.

`measure` reads a data set once (20,000 images take about two seconds) into `RawSizes`; `RawSizes.at` gives the
statistics for any model's image geometry in milliseconds, so a plan can compare image sizes, models and GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from toasterft import catalog
from toasterft.data.example import Example
from toasterft.models import model_files
from toasterft.models.geometry import Geometry
from toasterft.recipe import Prompt

# Above this share of dropped samples a run would teach something else than its data.
MAX_DROPPED = 0.05
# Without the model's tokenizer: characters per token of SmolVLM's, measured on 1,279 ChartQA questions
# (4.2) and 603 traces (3.7), 2026-11-21. Answers that are numbers have 1.5; they are short.
CHARACTERS_PER_TOKEN = 3.5
# Turn markers and role names of a chat template; SmolVLM's takes 8.
TEMPLATE_TOKENS = 10
# `<think></think><answer></answer>` and the end token: SmolVLM spells them with 12 tokens.
TAG_TOKENS = 12

Size = tuple[int, int]


@dataclass(frozen=True)
class TokenStats:
    """Token statistics of one data set for one model; `*_tokens` are means per row unless stated otherwise."""

    rows: int
    images: int
    """Distinct images."""
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
    image_tokens: float = 0.0
    """Positions that stand for images, tags and newlines included; part of `prompt_tokens`."""
    images_per_row: float = 1.0
    longest_prompt_tokens: int = 0
    longest_completion_tokens: int = 0
    sharing: tuple[tuple[int, int], ...] = ()
    """(rows about the same images, how many such groups there are); empty where every row has its own."""

    @property
    def row_tokens(self) -> float:
        return self.prompt_tokens + self.completion_tokens

    @property
    def kept(self) -> int:
        """Rows within `max_length`."""
        return max(0, self.rows - self.over_max_length)

    def first(self, rows: int) -> TokenStats:
        """The same data cut to so many rows, its means unchanged."""
        if rows >= self.rows:
            return self
        share = rows / self.rows
        return replace(
            self,
            rows=rows,
            images=max(1, round(self.images * share)) if self.images else 0,
            over_max_length=round(self.over_max_length * share),
            with_reasoning=round(self.with_reasoning * share),
        )


@dataclass(frozen=True)
class Row:
    """One row before a model sees it: (width, height) of its images in px, and tokens of its texts."""

    images_px: tuple[Size, ...]
    prompt_tokens: int
    completion_tokens: int

    @property
    def text_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, eq=False)
class RawSizes:
    """Image sizes and text tokens of a data set, independent of the model's image geometry.

    Attributes:
        rows: different rows, and how often each occurs.
        images_px: sizes of the distinct images, and how often each occurs.
        sharing: as in `TokenStats`.
    """

    rows: Mapping[Row, int]
    images_px: Mapping[Size, int]
    with_reasoning: int
    provenance: str
    sharing: tuple[tuple[int, int], ...] = ()
    _known: dict[tuple[Geometry, int], TokenStats] = field(default_factory=dict, repr=False)

    def at(self, geometry: Geometry, max_length: int) -> TokenStats:
        """The statistics for one model's image geometry."""
        key = (geometry, max_length)
        if key not in self._known:
            self._known[key] = self._stats(geometry, max_length)
        return self._known[key]

    def length_of_share(self, geometry: Geometry, share: float) -> int:
        """The shortest length in tokens that holds this share of the rows."""
        lengths = sorted((image + row.text_tokens, count) for row, image, count in self._counted(geometry))
        wanted, seen = share * sum(self.rows.values()), accumulate(count for _, count in lengths)
        return next((length for (length, _), rows in zip(lengths, seen) if rows >= wanted), lengths[-1][0])

    def _counted(self, geometry: Geometry) -> list[tuple[Row, int, int]]:
        """(row, tokens of its images, how often it occurs) of all different rows."""
        tokens = {size: geometry.image_tokens(*size) for row in self.rows for size in row.images_px}
        return [(row, sum(tokens[size] for size in row.images_px), count) for row, count in self.rows.items()]

    def _stats(self, geometry: Geometry, max_length: int) -> TokenStats:
        counted = self._counted(geometry)
        rows = sum(self.rows.values())
        in_images = sum(count * image for _, image, count in counted)
        in_prompts = sum(count * row.prompt_tokens for row, _, count in counted)
        in_completions = sum(count * row.completion_tokens for row, _, count in counted)
        images = sum(self.images_px.values())

        def per_image(measure: Callable[[int, int], int]) -> float:
            total = sum(count * measure(*size) for size, count in self.images_px.items())
            return total / max(1, images)

        return TokenStats(
            rows=rows,
            images=images,
            tiles=per_image(geometry.tiles),
            tower_patches=per_image(geometry.tower_patches),
            feature_tokens=per_image(geometry.feature_tokens),
            prompt_tokens=(in_images + in_prompts) / rows,
            completion_tokens=in_completions / rows,
            longest_tokens=max(image + row.text_tokens for row, image, _ in counted),
            over_max_length=sum(
                count for row, image, count in counted if image + row.text_tokens > max_length
            ),
            with_reasoning=self.with_reasoning,
            provenance=self.provenance,
            image_tokens=in_images / rows,
            images_per_row=sum(count * len(row.images_px) for row, _, count in counted) / rows,
            longest_prompt_tokens=max(image + row.prompt_tokens for row, image, _ in counted),
            longest_completion_tokens=max(row.completion_tokens for row in self.rows),
            sharing=self.sharing,
        )


def measure(
    examples: list[Example], prompt: Prompt, count: Callable[[str], int] | None, *, pairs: bool = False
) -> RawSizes:
    """Measure the data itself, from image headers and texts.

    Args:
        count: tokens of a text; None estimates from its length.
        pairs: both completions of a pair are run side by side, so a row's is as long as the longer one.

    Raises:
        DataError: an image cannot be opened.
    """
    counted = text_tokens(prompt, count, pairs=pairs)
    sizes: dict[object, Size] = {}
    rows: Counter[Row] = Counter()
    about: Counter[object] = Counter()
    for number, example in enumerate(examples):
        images_px, keys = [], []
        for place, image in enumerate(example.images):
            # Questions share a file; images out of a table have no path, and are each their own.
            key = image.path or (image.name, place)
            if key not in sizes:
                sizes[key] = image.size_px
            images_px.append(sizes[key])
            keys.append(key)
        about[(*keys, example.history) if keys else number] += 1
        rows[Row(tuple(images_px), *counted(example))] += 1
    return RawSizes(
        rows=rows,
        images_px=Counter(sizes.values()),
        with_reasoning=sum(example.reasoning is not None for example in examples),
        provenance="counted on the data" if count else "images counted, text estimated from its length",
        sharing=tuple(sorted(Counter(about.values()).items())) if max(about.values()) > 1 else (),
    )


def text_tokens(
    prompt: Prompt, count: Callable[[str], int] | None, *, pairs: bool = False
) -> Callable[[Example], tuple[int, int]]:
    """A counter of one row's (prompt, completion) tokens, template and tags included, images not.

    Args:
        count: tokens of a text; None estimates from its length.
        pairs: the longer completion of a pair.
    """
    tokens = count or (lambda text: round(len(text) / CHARACTERS_PER_TOKEN + 0.5))
    fixed = TEMPLATE_TOKENS + tokens((prompt.system or "") + prompt.question_suffix)

    def count_row(example: Example) -> tuple[int, int]:
        completion = tokens(example.answer) + tokens(example.reasoning or "") + TAG_TOKENS
        if pairs and example.rejected:
            completion = max(completion, tokens(example.rejected))  # it has its tags in it
        history = sum(TEMPLATE_TOKENS + tokens(turn.text) for turn in example.history)
        return fixed + history + tokens(example.question), completion

    return count_row


def from_catalog(row: catalog.DatasetRow, rows: int) -> RawSizes:
    """Sizes of a data set that is not on this machine, from its catalog row."""
    one = Row(
        (row.image_px,),
        TEMPLATE_TOKENS + row.question_tokens,
        TAG_TOKENS + row.reasoning_tokens + row.answer_tokens,
    )
    return RawSizes(
        rows={one: rows},
        images_px={row.image_px: rows},
        with_reasoning=rows if row.reasoning_tokens else 0,
        provenance=row.provenance,
    )


def token_counter(folder: Path) -> Callable[[str], int] | None:
    """A token counter from a model folder's tokenizer.json, without transformers."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    with model_files.explained(folder):
        tokenizer: Any = Tokenizer.from_file(str(file))
    known: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in known:
            known[text] = len(tokenizer.encode(text, add_special_tokens=False).ids)
        return known[text]

    return count

"""Rows that are written side by side: a prompt's keys and values once for all its rows, each row's own beside them.

    shared   per layer, keys and values [prompts, heads, prompt tokens, d]: as the prompt's forward pass left them
    own      per layer, keys and values [rows, heads, completion tokens, d]

A row that ends leaves its place to the last row, a prompt without rows likewise: what is alive lies in front, and
a step computes nothing else. The buffers keep their sizes and addresses while no longer prompt comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from toasterft.engine.forward import CACHE

# Prompts that may have rows alive at once, as a multiple of those whose rows fill the batch: the last rows of a
# group hold its prompt while the next ones come in.
PROMPTS_AHEAD = 2
# Room for prompts grows in steps of so many tokens.
PROMPT_STEP = 64
# One of four dimensions goes through transformers as it is; who sees whom is known here.
_NO_MASK = (1, 1, 1, 1)


class Unfit(Exception):
    """This model's prompts cannot be shared here."""


@dataclass(eq=False)
class Row:
    """A completion being written: the `branch`-th of the prompt that has the number `item`."""

    item: int
    branch: int
    ids: list[int]


@dataclass(eq=False)
class Prompt:
    """A prompt that was read.

    Attributes:
        past: its keys and values, until they are in the buffers.
        position: of its first completion token.
        rows: those that are alive.
    """

    past: DynamicCache | None
    tokens: int
    position: int
    rows: list[Row] = field(default_factory=list)


def prompt_places(rows: int, group: int) -> int:
    """How many prompts may have some of so many rows alive."""
    return min(rows, PROMPTS_AHEAD * -(-rows // group))


class Slots:
    """Places for rows and their prompts. For the model's forward pass it is the cache.

    Args:
        inner: the `…ForConditionalGeneration`.
        rows, prompts: places.
        completion_tokens: the longest completion.
    """

    def __init__(self, inner: Any, *, rows: int, prompts: int, completion_tokens: int) -> None:
        self.inner = inner
        self.places, self.prompt_places, self.completion_tokens = rows, prompts, completion_tokens
        self.rows: list[Row] = []
        self.prompts: list[Prompt] = []
        self._shared: list[list[torch.Tensor]] = []
        self._own: list[list[torch.Tensor]] = []
        self._arranged = False

    def has_room(self, rows: int) -> bool:
        """For so many rows of one more prompt."""
        return len(self.rows) + rows <= self.places and len(self.prompts) < self.prompt_places

    @property
    def held_bytes(self) -> int:
        """Of all keys and values."""
        return sum(part.nbytes for pair in (*self._shared, *self._own) for part in pair)

    # --- reading prompts, writing tokens

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Prompt]:
        """Logits [1, vocabulary] after one prompt, and the prompt.

        Args:
            batch: the model's inputs, one row without padding.

        Raises:
            Unfit: some layer keeps something else than all keys and values.
        """
        if hasattr(self.inner.model, "rope_deltas"):
            self.inner.model.rope_deltas = None  # the last prompt's would be left behind one without an image
        out = self.inner(**batch, use_cache=True, logits_to_keep=1)
        past, tokens = out[CACHE], batch["attention_mask"].shape[1]
        if not all(type(layer) is DynamicLayer for layer in past.layers):
            raise Unfit("some layers keep a state or a window")
        # Where an image spans several axes of position, text goes on from the largest.
        if "position_ids" in batch:
            position = int(batch["position_ids"].max()) + 1
        else:
            delta = getattr(self.inner.model, "rope_deltas", None)
            position = tokens + (0 if delta is None else int(delta))
        return out.logits[:, -1], Prompt(past, tokens, position)

    def join(self, prompt: Prompt, rows: list[Row]) -> None:
        """Go on writing rows, which hold their first token, behind a prompt that was just read."""
        assert prompt.past is not None
        layers = [(layer.keys, layer.values) for layer in prompt.past.layers]
        self._make_room(layers, prompt.tokens)
        for buffers, pair in zip(self._shared, layers):
            for buffer, tensor in zip(buffers, pair):
                buffer[len(self.prompts), :, : prompt.tokens] = tensor[0]
        prompt.past, prompt.rows = None, rows
        self.prompts.append(prompt)
        self.rows += rows
        self._arranged = False

    def leave(self, row: Row) -> None:
        """Take a row that ended out of the batch."""
        _move_last(self.rows, self.rows.index(row), self._own)
        prompt = next(prompt for prompt in self.prompts if row in prompt.rows)
        prompt.rows.remove(row)
        if not prompt.rows:
            _move_last(self.prompts, self.prompts.index(prompt), self._shared)
        self._arranged = False

    def step(self) -> torch.Tensor:
        """Logits [rows, vocabulary] after the last token of every row."""
        if not self._arranged:
            self._arrange()
        device, begins = (
            self.inner.device,
            {id(row): prompt.position for prompt in self.prompts for row in prompt.rows},
        )
        places = [len(row.ids) - 1 for row in self.rows]
        positions = [begins[id(row)] + place for row, place in zip(self.rows, places)]
        table = torch.tensor([[row.ids[-1] for row in self.rows], positions, places], device=device)
        self._place, self._length = table[2], max(places) + 1
        ahead = torch.arange(self._length, device=device) > self._place[:, None]
        self._ahead = ahead[:, None, None, :]
        logits: torch.Tensor = self.inner(
            input_ids=table[0][:, None],
            position_ids=table[1][:, None],
            attention_mask=torch.ones(_NO_MASK, dtype=torch.bool, device=device),
            **{CACHE: self},
            use_cache=True,
            logits_to_keep=1,
            slots=self,
        ).logits
        return logits[:, -1]

    # --- what the model's layers call

    def get_seq_length(self, layer: int = 0) -> int:
        return self._length - 1

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep one token's keys and values [rows, heads, 1, d] behind each row's earlier ones."""
        every = torch.arange(len(self.rows), device=keys.device)
        for buffer, tensor in zip(self._own[layer], (keys, values)):
            buffer[every, :, self._place] = tensor[:, :, 0]
        return keys, values

    def attend(self, layer: int, query: torch.Tensor, scaling: float) -> torch.Tensor:
        """[rows, 1, heads, d]: each row's query [rows, heads, 1, d] over its prompt and what it wrote itself.

        A prompt's keys meet the queries of all its rows in one product, and are read once.
        """
        (shared_keys, shared_values), (own_keys, own_values) = self._shared[layer], self._own[layer]
        rows, heads, _, width = query.shape
        few, prompts, wide = own_keys.shape[1], len(self.prompts), self._wide
        query = query.reshape(rows, few, heads // few, width)
        seated = query[self._members].view(prompts, -1, few, heads // few, width).transpose(1, 2)
        own_keys, own_values = (each[:rows, :, : self._length] for each in (own_keys, own_values))
        shared_keys, shared_values = (each[:prompts, :, :wide] for each in (shared_keys, shared_values))
        own = _part(query, own_keys, own_values, self._ahead, scaling)
        shared = _part(seated.flatten(2, 3), shared_keys, shared_values, self._beyond, scaling)

        def back(tensor: torch.Tensor) -> torch.Tensor:
            """[prompts, few, seats · heads of each, x] → [rows, few, heads of each, x]"""
            seats = tensor.unflatten(2, (-1, heads // few)).transpose(1, 2)
            return seats.flatten(0, 1)[self._seats]

        parts = [own, tuple(back(tensor) for tensor in shared)]
        top = torch.maximum(parts[0][2], parts[1][2])
        weights = [(part[2] - top).exp() for part in parts]
        above = sum(part[0] * weight for part, weight in zip(parts, weights))
        below = sum(part[1] * weight for part, weight in zip(parts, weights))
        return (above / below).to(query.dtype).view(rows, 1, heads, width)

    # --- places

    def _arrange(self) -> None:
        """Where each row sits among its prompt's, for the product of prompts with their rows."""
        seats = max(len(prompt.rows) for prompt in self.prompts)
        place = {id(row): number for number, row in enumerate(self.rows)}
        members = [[place[id(row)] for row in prompt.rows] for prompt in self.prompts]
        seat = {
            row: number * seats + index for number, own in enumerate(members) for index, row in enumerate(own)
        }
        tokens = torch.tensor([prompt.tokens for prompt in self.prompts])
        self._wide = int(tokens.max())
        beyond = torch.arange(self._wide) >= tokens[:, None]
        device = self.inner.device
        self._members = torch.tensor(
            [own + [0] * (seats - len(own)) for own in members], device=device
        ).flatten()
        self._seats = torch.tensor([seat[number] for number in range(len(self.rows))], device=device)
        self._beyond = beyond[:, None, None, :].to(device) if bool(beyond.any()) else None
        self._arranged = True

    def _make_room(self, layers: list[tuple[torch.Tensor, torch.Tensor]], tokens: int) -> None:
        """Buffers, and larger ones where a longer prompt comes."""
        if self._shared and tokens <= self._shared[0][0].shape[2]:
            return
        wide = -(-tokens // PROMPT_STEP) * PROMPT_STEP

        def empty(like: torch.Tensor, count: int, length: int) -> torch.Tensor:
            # Zeros: what no row has written has no weight, but must be a number.
            return like.new_zeros(count, like.shape[1], length, like.shape[3])

        if not self._own:
            self._own = [
                [empty(each, self.places, self.completion_tokens) for each in pair] for pair in layers
            ]
            self._shared = [[empty(each, self.prompt_places, wide) for each in pair] for pair in layers]
            return
        for buffers in self._shared:
            for index, old in enumerate(buffers):
                buffers[index] = empty(old, self.prompt_places, wide)
                buffers[index][:, :, : old.shape[2]] = old


def _move_last(alive: list[Any], place: int, buffers: list[list[torch.Tensor]]) -> None:
    """Drop what is at `place`, and move the last one there with its keys and values."""
    last = len(alive) - 1
    if place != last:
        alive[place] = alive[last]
        for pair in buffers:
            for buffer in pair:
                buffer[place] = buffer[last]
    alive.pop()


def _part(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    hidden: torch.Tensor | None,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention over a part of the keys: the sum of weighted values, the sum of the weights, the largest score."""
    scores = _product(query, keys.transpose(-1, -2)).mul_(scaling)
    if hidden is not None:
        scores.masked_fill_(hidden, torch.finfo(torch.float32).min)
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    return _product(weights.to(values.dtype), values), weights.sum(-1, keepdim=True), top


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Matrix products [a, b, m, n] in float32, as fused attention keeps them: in 16 bits a score of 20 would be off by
    up to 0.06."""
    options = {}
    if right.dtype != torch.float32:
        if right.device.type == "cpu":  # which has no such product
            left, right = left.float(), right.float()
        else:
            options = {"out_dtype": torch.float32}
    return torch.bmm(left.flatten(0, 1), right.flatten(0, 1), **options).unflatten(0, left.shape[:2])

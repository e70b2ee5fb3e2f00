"""Generate completions: greedy or sampled, never an image token.

Prompts are read one by one, as places come free; the rows of all of them are written side by side, and a row that
ends leaves (`slots`). A model in which that is not proved goes through transformers' `generate`, batch by batch.
Both choose tokens alike: what a row samples depends on the numbers that were drawn for it, not on its company.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import transformers

from toasterft.engine import packed_attention
from toasterft.engine.batching import Batcher, Prompts
from toasterft.engine.forward import CACHE, EMBEDS, placed
from toasterft.engine.loaded import AGREEMENT, LoadedModel
from toasterft.engine.slots import Row, Slots, Unfit, prompt_places

Item = TypeVar("Item")
# Settings of a model's own generation_config.json that change what a token's likelihood is.
PENALTIES = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": 0}


@dataclass(frozen=True)
class Writing:
    """How completions are written.

    Attributes:
        end_ids: ids that end a completion.
        max_completion_length: tokens, the end token included.
        temperature: 0 takes the likeliest token.
    """

    end_ids: list[int]
    max_completion_length: int
    temperature: float = 0.0
    top_p: float = 1.0

    def ended(self, ids: list[int]) -> bool:
        return ids[-1] in self.end_ids or len(ids) == self.max_completion_length

    def choose(self, logits: torch.Tensor, drawn: torch.Tensor, never: list[int]) -> torch.Tensor:
        """One token of each row of logits [rows, vocabulary]: [rows].

        Args:
            drawn: [rows] between 0 and 1: the token at this height of all probabilities piled up.
            never: ids that are not to be chosen.
        """
        scores = _without(logits.float(), never)
        if self.temperature == 0:
            return scores.argmax(-1)
        scores = scores / self.temperature
        if self.top_p < 1:
            scores = transformers.TopPLogitsWarper(self.top_p)(None, scores)
        pile = scores.softmax(-1).cumsum(-1)
        top = pile[:, -1:]
        # Below the top, rounded or not: what lies above has no probability.
        height = torch.minimum(drawn.to(pile)[:, None] * top, top.nextafter(top.new_zeros(())))
        return torch.searchsorted(pile, height, right=True)[:, 0]


def _without(logits: torch.Tensor, never: list[int]) -> torch.Tensor:
    return logits.index_fill(-1, torch.tensor(never, dtype=torch.long, device=logits.device), -torch.inf)


def complete(
    inputs: Batcher,
    items: Sequence[Item],
    prompts: Callable[[Sequence[Item]], Prompts],
    writing: Writing,
    *,
    rows_at_once: int,
    num_generations: int = 1,
    drawn: torch.Tensor | None = None,
) -> Iterator[tuple[int, list[list[int]]]]:
    """Completions of every item's prompt, each with its end token where it ended by itself.

    Args:
        prompts: makes the prompts of some items.
        rows_at_once: completions that are written side by side.
        drawn: [items, num_generations, max_completion_length] between 0 and 1, what is sampled by.

    Yields:
        An item's number and its `num_generations` lists of token ids, as soon as the last of them has ended.
    """
    if drawn is None:
        assert writing.temperature == 0
        drawn = torch.zeros(1, 1, 1).expand(len(items), num_generations, writing.max_completion_length)
    if not items:
        return
    rows_at_once = min(max(rows_at_once, num_generations), len(items) * num_generations)
    loaded = inputs.loaded
    if len(items) * num_generations > 1 and loaded.slots_agree is None:
        loaded.slots_agree = _slots_agree(inputs, items[0], prompts)
    if not loaded.slots_agree or len(items) * num_generations == 1:
        yield from _in_batches(inputs, items, prompts, writing, rows_at_once, num_generations, drawn)
        return
    slots = Slots(
        loaded.inner,
        rows=rows_at_once,
        prompts=min(len(items), prompt_places(rows_at_once, num_generations)),
        completion_tokens=writing.max_completion_length,
    )
    desk = _Desk(inputs, items, prompts, writing, num_generations, drawn, slots)
    while not desk.empty:
        with loaded.evaluating(), packed_attention.installed(loaded.inner):
            done = desk.work()
        yield from done


class _Desk:
    """Lets prompts in and finished rows out; arguments as in `complete`."""

    def __init__(
        self,
        inputs: Batcher,
        items: Sequence[Any],
        prompts: Callable[[Sequence[Any]], Prompts],
        writing: Writing,
        num_generations: int,
        drawn: torch.Tensor,
        slots: Slots,
    ) -> None:
        self.inputs, self.items, self.prompts, self.writing = inputs, items, prompts, writing
        self.count, self.drawn, self.slots = num_generations, drawn, slots
        self.read = 0
        self.open: dict[int, list[Row]] = {}

    @property
    def empty(self) -> bool:
        return not self.open and self.read == len(self.items)

    def work(self) -> list[tuple[int, list[list[int]]]]:
        """Go on until at least one prompt has all its completions; those."""
        done: list[tuple[int, list[list[int]]]] = []
        while not done and not self.empty:
            while self.read < len(self.items) and self.slots.has_room(self.count):
                self._let_in()
                done += self._done()
            if self.slots.rows:
                rows = list(self.slots.rows)
                self._write(rows, self.slots.step())
                for row in rows:
                    if self.writing.ended(row.ids):
                        self.slots.leave(row)
                done += self._done()
        return done

    def _let_in(self) -> None:
        item, self.read = self.read, self.read + 1
        batch = self.inputs.left_padded(self.prompts(self.items[item : item + 1]))
        logits, prompt = self.slots.read(placed(self.inputs.loaded, batch))
        rows = self.open[item] = [Row(item, branch, []) for branch in range(self.count)]
        self._write(rows, logits.expand(self.count, -1))
        if alive := [row for row in rows if not self.writing.ended(row.ids)]:
            self.slots.join(prompt, alive)

    def _write(self, rows: list[Row], logits: torch.Tensor) -> None:
        places = torch.tensor([(row.item, row.branch, len(row.ids)) for row in rows]).T
        tokens = self.writing.choose(logits, self.drawn[tuple(places)], self.inputs.loaded.never_sampled)
        for row, token in zip(rows, tokens.tolist()):
            row.ids.append(token)

    def _done(self) -> list[tuple[int, list[list[int]]]]:
        ended = [item for item, rows in self.open.items() if all(self.writing.ended(row.ids) for row in rows)]
        return [(item, [row.ids for row in self.open.pop(item)]) for item in ended]


# --- transformers' own loop ------------------------------------------------------------------


def generate(
    loaded: LoadedModel, inputs: dict[str, torch.Tensor], writing: Writing, drawn: torch.Tensor | None = None
) -> list[list[int]]:
    """Completions of left-padded prompts by transformers' `generate`: all are computed until the longest ends.

    Args:
        inputs: `input_ids` and `attention_mask` [B, T] with the images' features or pixels.
        drawn: [B, max_completion_length] between 0 and 1, what is sampled by.
    """
    place = 0

    def chosen(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        nonlocal place
        numbers = torch.zeros(len(scores)) if drawn is None else drawn[:, place]
        tokens = writing.choose(scores, numbers, loaded.never_sampled)
        place += 1
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)

    with loaded.evaluating() as model:
        out = model.generate(
            **{**placed(loaded, inputs), "input_ids": inputs["input_ids"]},
            max_new_tokens=writing.max_completion_length,
            eos_token_id=writing.end_ids,
            pad_token_id=writing.end_ids[0],
            logits_processor=transformers.LogitsProcessorList([chosen]),
            use_cache=True,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [_until_end(row, writing.end_ids) for row in rows]


def _until_end(ids: list[int], end_ids: list[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in end_ids:
            return ids[: place + 1]
    return ids


def _in_batches(
    inputs: Batcher,
    items: Sequence[Any],
    prompts: Callable[[Sequence[Any]], Prompts],
    writing: Writing,
    rows_at_once: int,
    count: int,
    drawn: torch.Tensor,
) -> Iterator[tuple[int, list[list[int]]]]:
    """Batch by batch; every prompt of a batch is read once where no image comes as pixels."""
    loaded, at_once = inputs.loaded, rows_at_once // count
    for start in range(0, len(items), at_once):
        batch = items[start : start + at_once]
        made = prompts(batch)
        if count > 1 and (inputs.encoder is not None or not made.visual):
            ready = _shared_prefill(loaded, inputs.left_padded(made), count)
        else:
            repeated = [item for item in batch for _ in range(count)]
            ready = inputs.left_padded(made if count == 1 else prompts(repeated))
        rows = generate(loaded, ready, writing, drawn[start : start + at_once].flatten(0, 1))
        for number in range(len(batch)):
            yield start + number, rows[number * count : (number + 1) * count]


def _shared_prefill(loaded: LoadedModel, batch: dict[str, torch.Tensor], count: int) -> dict[str, Any]:
    """Inputs of `generate` for `count` completions of each prompt, their keys and values computed once."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with loaded.evaluating():
        ready = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0), **placed(loaded, batch)}
        # All but the last token: `generate` reads that one itself, and starts from its logits.
        begun = {name: value[:, :-1] if name == EMBEDS else value[..., :-1] for name, value in ready.items()}
        past = loaded.inner.model(**begun, use_cache=True)[CACHE]
        past.batch_repeat_interleave(count)
    return {
        "input_ids": ids.repeat_interleave(count, dim=0),
        "attention_mask": mask.repeat_interleave(count, dim=0),
        "position_ids": ready["position_ids"].repeat_interleave(count, dim=-2),
        CACHE: past,
    }


# --- the proof -------------------------------------------------------------------------------


def _slots_agree(inputs: Batcher, item: Any, prompts: Callable[[Sequence[Any]], Prompts]) -> bool:
    """Whether rows in slots get the logits that a plain forward pass gives them; a note says why not."""
    loaded = inputs.loaded
    settings = loaded.inner.generation_config
    if any(getattr(settings, name, None) not in (None, plain) for name, plain in PENALTIES.items()):
        why = "its generation_config.json sets penalties"
    else:
        try:
            why = _difference(inputs, item, prompts)
        except Unfit as error:
            why = str(error)
        except torch.OutOfMemoryError:
            raise
        # An engine's own forward, which knows another kind of cache.
        except (TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"[:200]
    if why:
        loaded.notes.append(f"completions are written batch by batch, all until the longest ends: {why}")
    return not why


def _difference(inputs: Batcher, item: Any, prompts: Callable[[Sequence[Any]], Prompts]) -> str:
    """What is wrong with two rows of two tokens behind one prompt; nothing where it is the plain pass."""
    loaded = inputs.loaded
    with loaded.evaluating() as model:
        with packed_attention.installed(loaded.inner):
            slots = Slots(loaded.inner, rows=2, prompts=1, completion_tokens=2)
            logits, prompt = slots.read(placed(loaded, inputs.left_padded(prompts([item]))))
            first = _without(logits[0], loaded.never_sampled).topk(2).indices.tolist()
            rows = [Row(0, branch, [token]) for branch, token in enumerate(first)]
            slots.join(prompt, rows)
            found = [logits.expand(2, -1), slots.step()]
            for row, token in zip(rows, _without(found[-1], loaded.never_sampled).argmax(-1).tolist()):
                row.ids.append(token)
            found.append(slots.step())
        both = prompts([item, item])
        whole = with_beginnings(both, [row.ids for row in rows])
        batch = placed(loaded, inputs.left_padded(whole))
        plain = model(**batch, logits_to_keep=3).logits.float()
    difference = (torch.stack(found, dim=1) - plain).abs().max() / plain.abs().max().clamp(min=1e-6)
    agrees = bool(difference <= AGREEMENT[loaded.dtype])
    return "" if agrees else f"logits differ by {float(difference):.2g} of the largest"


def with_beginnings(prompts: Prompts, begun: list[list[int]]) -> Prompts:
    """Prompts with the beginnings of their completions behind them."""
    types = prompts.token_types
    return replace(
        prompts,
        ids=[ids + more for ids, more in zip(prompts.ids, begun)],
        token_types=types and [row + [0] * len(more) for row, more in zip(types, begun)],
    )

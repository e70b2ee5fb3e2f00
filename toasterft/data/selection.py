"""Which rows a training learns from, and which are held out: chosen once, before the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toasterft import catalog
from toasterft.data import sources
from toasterft.data.example import Example
from toasterft.data.sources import Dataset
from toasterft.errors import DataError
from toasterft.recipe import Dpo, Eval, Matrix, Trained


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one training.

    Attributes:
        train: rows to learn from (its hash is that of all rows, whatever was left out); None where they are
            not on this machine and were not to be fetched.
        held_out: rows to answer at the end, none where the data has no such split; None as above.
        notes: what was left out, for the user.
    """

    train: Dataset | None
    held_out: list[Example] | None
    notes: tuple[str, ...] = ()


def select_rows(recipe: Trained, *, fetch: bool) -> TrainingRows:
    """Choose the rows of a training.

    Args:
        fetch: download data that is not on this machine; else it is None in what is returned.

    Raises:
        DataError: the data cannot be had, or none of its rows can be trained on.
    """
    notes: list[str] = []
    held_out_name = recipe.eval_data or recipe.data
    train = held_out = None
    if fetch or catalog_row_elsewhere(recipe.data) is None:
        train = _train_rows(recipe, notes)
    if fetch or catalog_row_elsewhere(held_out_name) is None:
        named = recipe.eval_data is not None or recipe.eval_split is not None
        if named or sources.has_split(held_out_name, "validate"):
            split, limit = recipe.eval_split, recipe.eval_limit
            held_out = sources.load(
                held_out_name,
                purpose="validate",
                split=split,
                limit=limit,
                seed=recipe.seed,
                images=recipe.images,
            ).examples
        else:
            held_out = []
            notes.append(
                f"{train.name if train else recipe.data} has no validation split: nothing is evaluated "
                "(eval_data=… names other data)"
            )
    return TrainingRows(train, held_out, tuple(notes))


def evaluation_rows(recipe: Eval | Matrix) -> Dataset:
    """The rows that an evaluation, every cell of a matrix, or the estimate of one asks: with a limit, drawn by the seed.

    Raises:
        DataError: the data cannot be had.
    """
    return sources.load(
        recipe.data,
        purpose="evaluate",
        split=recipe.split,
        limit=recipe.limit,
        seed=recipe.seed,
        images=recipe.images,
    )


def _train_rows(recipe: Trained, notes: list[str]) -> Dataset:
    data = sources.load(
        recipe.data, purpose="train", split=recipe.split, limit=recipe.limit, images=recipe.images
    )
    notes += data.reading.notes
    if isinstance(recipe, Dpo):
        pairs = preference_pairs(data.examples, recipe.data)
        if len(pairs) < len(data):
            notes.append(f"{len(data) - len(pairs)} of {len(data)} rows carry no `rejected`: left out")
        data = replace(data, examples=pairs)
    reasoned = [example for example in data.examples if example.reasoning is not None]
    without = len(data) - len(reasoned)
    if recipe.rows_without_reasoning == "drop" and without:
        if not reasoned:
            raise DataError(
                "no row carries reasoning", where=recipe.data, next_step="rows_without_reasoning=keep"
            )
        notes.append(f"{without} rows without reasoning left out")
        return replace(data, examples=reasoned)
    if reasoned and without:
        notes.append(
            f"{without} of {len(data)} rows carry no reasoning and train on the answer alone "
            "(rows_without_reasoning=drop leaves them out)"
        )
    return data


def preference_pairs(examples: Sequence[Example], where: str) -> list[Example]:
    """The rows that carry a worse completion beside their own.

    Args:
        where: the data's name, for the message.

    Raises:
        DataError: there is none.
    """
    found = [example for example in examples if example.rejected]
    if not found:
        raise DataError(
            "no row carries `rejected`: there is nothing to prefer an answer to",
            where=where,
            next_step=f"toasterft cot pairs NAME --from {where} --model RUN   samples wrong answers, then --data NAME",
        )
    return found


def catalog_row_elsewhere(name: str) -> catalog.DatasetRow | None:
    """The catalog row of data that is not on this machine."""
    return None if sources.on_this_machine(name) else catalog.datasets().get(name)


def too_many_dropped(dropped: int, rows: int, longest_tokens: int, recipe: Trained) -> DataError:
    """The refusal of a run that would leave out more than 5 % of its samples."""
    return DataError(
        f"{dropped} of {rows} samples are longer than max_length={recipe.max_length} tokens; nothing was run",
        where=recipe.data,
        why="a sample is never cut through its image; more than 5 % would be left out",
        next_step=f"max_length={-(-longest_tokens // 64) * 64} holds the longest, or a smaller image_longest_edge",
    )

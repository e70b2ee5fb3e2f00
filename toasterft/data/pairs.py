"""Preference pairs among the rows of a data set: those that carry a worse completion beside their own."""

from __future__ import annotations

from collections.abc import Sequence

from toasterft.data.example import Example
from toasterft.errors import DataError


def paired(examples: Sequence[Example], where: str) -> list[Example]:
    """The rows that are pairs.

    Args:
        where: the data's name, for the message.

    Raises:
        DataError: none is.
    """
    found = [example for example in examples if example.rejected]
    if not found:
        raise DataError(
            "no row carries `rejected`: there is nothing to prefer an answer to",
            where=where,
            next_step=f"toasterft cot pairs NAME --from {where} --model RUN   samples wrong answers, then --data NAME",
        )
    return found

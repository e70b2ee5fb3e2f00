"""Rows as a model is trained on them: the text it reads, the text it learns, and how many tokens each part takes."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from toasterft.data.arrow import find_split
from toasterft.data.chat import Chat, target
from toasterft.data.control_tokens import shown
from toasterft.data.example import Example, ImageRef
from toasterft.data.sources import DatasetSplits, sample
from toasterft.data.token_stats import text_tokens
from toasterft.engine import pretrained
from toasterft.errors import DataError, did_you_mean
from toasterft.models import lookup
from toasterft.models.lookup import ModelRef
from toasterft.recipe import Prompt


@dataclass(frozen=True)
class FormattedImage:
    """An image of a row; `fault` says why it cannot be shown."""

    name: str
    size_px: tuple[int, int] | None
    tokens: int
    fault: str = ""


@dataclass(frozen=True)
class FormattedRow:
    """One row as a model is trained on it.

    Attributes:
        parts: (text, learned?) in order, as the model's own template writes them where it is here.
        prompt_tokens: of the text that is read, images not counted.
        completion_tokens: of the text that is learned.
    """

    example: Example
    split: str
    parts: list[tuple[str, bool]]
    images: list[FormattedImage]
    prompt_tokens: int
    completion_tokens: int

    @property
    def image_tokens(self) -> int:
        return sum(image.tokens for image in self.images)

    @property
    def tokens(self) -> int:
        return self.image_tokens + self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class RowFormatter:
    """Formats rows with a model's prompt, chat template and tokenizer.

    Attributes:
        chat: its own template and tokenizer; None where they are not on this machine.
        count: tokens of a text; None estimates from the length.
    """

    model: ModelRef
    prompt: Prompt
    chat: Chat | None
    count: Callable[[str], int] | None

    @property
    def provenance(self) -> str:
        name = self.model.name
        if self.chat is not None:
            return f"text and tokens as {name} is taught them"
        text = "counted" if self.count else "estimated from the text's length"
        return f"images counted for {name}, text tokens {text}, without its chat template"


def row_formatter(model: ModelRef, count: Callable[[str], int] | None) -> RowFormatter:
    """How rows look to a model: with the prompt it was trained with, and its template where it is here.

    Args:
        count: tokens of a text by its tokenizer, where that is here.
    """
    saved = (model.notes or {}).get("prompt")
    prompt = Prompt(**saved) if saved else Prompt()
    return RowFormatter(model, prompt, _chat(model, prompt), count)


def choose(
    data: DatasetSplits, n: int, *, split: str | None = None, ids: Sequence[str] = (), seed: int | None = None
) -> list[tuple[str, Example]]:
    """(split, row) of the rows to look at: those named, else the first `n`, or `n` by chance with a seed.

    Raises:
        DataError: there is no such split or row.
    """
    wanted = None if split is None else find_split(split, data.splits, data.name)
    rows = [(own, one) for own, rows in data.splits.items() if wanted in (None, own) for one in rows]
    if ids:
        found = [(own, one) for own, one in rows if one.id in ids]
        if missing := sorted(set(ids) - {one.id for _, one in found}):
            known = [one.id for _, one in rows]
            raise DataError(f"no row {missing[0]!r}{did_you_mean(missing[0], known)}", where=data.name)
        return found
    if not rows:
        raise DataError("no rows that can be read", where=data.name)
    return sample(rows, n, seed)


def format_row(example: Example, split: str, formatter: RowFormatter) -> FormattedRow:
    """One row with every image's size and the tokens of every part; images are opened, not decoded."""
    images = [_image(image, formatter) for image in example.images]
    if formatter.chat is not None:
        read, learned = formatter.chat.question(example), formatter.chat.completion(example)
        # One token stands for each image until it is expanded.
        prompt_tokens = len(formatter.chat.ids(read)) - len(images)
        completion_tokens = len(formatter.chat.ids(learned))
    else:
        parts = [formatter.prompt.system, example.question_in_context, formatter.prompt.question_suffix]
        read = "<image>" * len(images) + "\n".join(part for part in parts if part) + "\n"
        learned = target(example, formatter.prompt)
        prompt_tokens, completion_tokens = text_tokens(formatter.prompt, formatter.count)(example)
    return FormattedRow(
        example,
        split,
        [(shown(read), False), (shown(learned), True)],
        images,
        prompt_tokens,
        completion_tokens,
    )


def visible(text: str) -> str:
    """The text with characters that would steer a terminal or reorder a line written out: `\\x1b`, `\\u202e`."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def _image(image: ImageRef, formatter: RowFormatter) -> FormattedImage:
    try:
        size = image.size_px
        return FormattedImage(image.name, size, formatter.model.shape.geometry.image_tokens(*size))
    except DataError as error:
        return FormattedImage(image.name, None, 0, error.what)


def _chat(model: ModelRef, prompt: Prompt) -> Chat | None:
    """The model's chat, from its tokenizer and template alone; None where they are not here."""
    if not model.local:
        return None
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder = Path(model.base)
    tokenizer = pretrained.tokenizer(folder)
    image_token_id = lookup.config_of(model).get("image_token_id")
    return Chat(
        SimpleNamespace(
            tokenizer=tokenizer,
            image_token=tokenizer.convert_ids_to_tokens(image_token_id)
            if image_token_id is not None
            else "<image>",
            chat_template=pretrained.chat_template(folder, tokenizer),
        ),
        prompt,
    )

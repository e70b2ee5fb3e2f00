"""Words in the data that are spelled like control tokens of a model: found, and kept from becoming the tokens.

`<image>` in a question would claim features that no image brings, `<|im_end|>` in an answer would end the turn.
`Chat` puts a break into every such word before it renders a text, and tokenises what stands on its two sides one by
one: the model reads and writes the word letter by letter, and decoding gives it back unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from toasterft.data.example import Example
from toasterft.recipe import Prompt

# A noncharacter of Unicode: kept for use inside programs, in no text that people exchange.
BREAK = "\ufdd0"
# Where no tokenizer is at hand: `<|im_end|>`, `<image>`, `<row_1_col_2>`, `<end_of_utterance>`, `</s>`, `[INST]`
USUAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<(?:image|video|fake_token_around_image|global-img|row_\d+_col_\d+"
    rf"|end_of_utterance|image_soft_token|(?:start|end)_of_(?:turn|image)|[be]os|pad|unk)>|{BREAK}"
)


def pattern(added: Iterable[tuple[str, bool]], image_token: str, prompt: Prompt) -> re.Pattern[str]:
    """What finds the control tokens of one tokenizer in a text.

    Args:
        added: its added tokens, and which of them are special; of the others those like `<|this|>` count.
        prompt: its tags are written on purpose.
    """
    tags = {f"<{slash}{tag}>" for slash in ("", "/") for tag in (prompt.think_tag, prompt.answer_tag)}
    found = {text for text, special in added if special or text.startswith("<|")} | {image_token}
    words = sorted((word for word in found - tags if len(word) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, [*words, BREAK])))


def of_folder(folder: Path | None, prompt: Prompt) -> re.Pattern[str]:
    """The same from a folder's tokenizer.json, without transformers; the usual spellings where there is none."""
    if folder is None or not (folder / "tokenizer.json").is_file():
        return USUAL
    added: list[dict[str, Any]] = json.loads((folder / "tokenizer.json").read_bytes()).get("added_tokens", [])
    return pattern(((one["content"], one["special"]) for one in added), "<image>", prompt)


def escape(text: str, control: re.Pattern[str]) -> str:
    """The text with a break in every control token; a break that was there is the sign of a lost character."""
    return control.sub(
        lambda word: "\ufffd" if word[0] == BREAK else f"{word[0][0]}{BREAK}{word[0][1:]}", text
    )


def shown(text: str) -> str:
    """A rendered text as its tokens decode: without breaks."""
    return text.replace(BREAK, "")


def found_in(example: Example, control: re.Pattern[str]) -> list[str]:
    """The control tokens in an example's texts, each once."""
    texts = (example.question_in_context, example.answer, example.reasoning or "", example.rejected or "")
    return list(dict.fromkeys(word for text in texts for word in control.findall(text)))


def note(examples: Sequence[Example], control: re.Pattern[str]) -> str | None:
    """What a run says about rows that hold control tokens; None where there are none."""
    rows = [(example, words) for example in examples if (words := found_in(example, control))]
    if not rows:
        return None
    example, words = rows[0]
    holds = "1 row holds" if len(rows) == 1 else f"{len(rows):,} rows hold"
    return (
        f"{holds} control tokens of the model ({', '.join(words[:3])} in {example.id}): they are read as text"
    )

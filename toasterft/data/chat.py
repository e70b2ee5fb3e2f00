"""Prompts and targets in a model's chat template, and completions parsed back into reasoning and answer.

Nothing here imports transformers: the processor is passed in. Text holds one placeholder per image;
`expand` replaces each by the run of tokens the processor would put there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toasterft.data import control_tokens
from toasterft.data.example import Example
from toasterft.data.template import MOST_CHARACTERS, NEXT_STEP, bounded, require_length
from toasterft.errors import ModelError, RecipeError
from toasterft.recipe import Prompt

STEP = "Let's think step by step."
# A conversation that every template can write.
PROBE = [
    {"role": "user", "content": [{"type": "text", "text": "?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "!END!"}]},
]


@dataclass(frozen=True)
class Parsed:
    """A completion taken apart: reasoning, answer, and whether it is well-formed."""

    reasoning: str | None
    answer: str
    well_formed: bool


def target(example: Example, prompt: Prompt) -> str:
    """The text to learn: `<think>…</think><answer>…</answer>`, without the first part where there is no trace."""
    answer = f"<{prompt.answer_tag}>{untagged(example.answer, prompt)}</{prompt.answer_tag}>"
    if example.reasoning is None:
        return answer
    return f"<{prompt.think_tag}>{untagged(example.reasoning, prompt)}</{prompt.think_tag}>{answer}"


def rejected(example: Example, prompt: Prompt) -> str:
    """The worse text of a preference pair, its tags called as the prompt calls them."""
    assert example.rejected is not None
    return _renamed(example.rejected, {"think": prompt.think_tag, "answer": prompt.answer_tag})


def as_data(completion: str, prompt: Prompt) -> str:
    """A completion with its tags called as data calls them: what `rejected` turns back."""
    return _renamed(completion, {prompt.think_tag: "think", prompt.answer_tag: "answer"})


def _renamed(text: str, names: dict[str, str]) -> str:
    pattern = rf"<(/?)({'|'.join(map(re.escape, names))})>"
    return re.sub(pattern, lambda tag: f"<{tag[1]}{names[tag[2]]}>", text)


def parse(completion: str, prompt: Prompt) -> Parsed:
    """The `<answer>` content, else what stands behind the reasoning; reasoning that was cut off has no answer.

    Well-formed means: each tag once, think before answer, nothing but white space around them. An
    answer without reasoning is well-formed too, since rows without a trace teach exactly that.
    """
    think, answer = re.escape(prompt.think_tag), re.escape(prompt.answer_tag)
    body = rf"(?:(?!</?(?:{think}|{answer})>).)*"
    # `<think>2 + 3</think><answer>5</answer>`, no tag inside another.
    strict = re.fullmatch(
        rf"\s*(?:<{think}>({body})</{think}>\s*)?<{answer}>({body})</{answer}>\s*", completion, re.DOTALL
    )
    if strict is not None:
        return Parsed(strict.group(1), strict.group(2).strip(), True)
    reasoning, rest, finished = _parted(completion, prompt.think_tag)
    # The last answer counts; one that was cut off counts as far as it got.
    answers = re.findall(rf"<{answer}>(.*?)(?:</{answer}>|$)", rest if finished else completion, re.DOTALL)
    return Parsed(reasoning, (answers[-1] if answers else rest).strip(), False)


def _parted(completion: str, tag: str) -> tuple[str | None, str, bool]:
    """The first reasoning, what stands outside of any, and whether all were ended; `2 + 3</think>5` began in the prompt."""
    thoughts: list[str] = []
    outside: list[str] = []
    inside = False
    for piece in re.split(rf"(</?{re.escape(tag)}>)", completion):
        if piece == f"</{tag}>":
            if not inside and not thoughts:
                thoughts, outside = ["".join(outside)], []
            inside = False
        elif piece == f"<{tag}>" and not inside:
            inside = True
            thoughts.append("")
        elif inside:
            thoughts[-1] += piece
        else:
            outside.append(piece)
    # Reasoning that was cut off has not come to its answer, whatever stands before it.
    return thoughts[0] if thoughts else None, "" if inside else "".join(outside), not inside


def untagged(text: str, prompt: Prompt) -> str:
    """The text without the tags that part reasoning from answer: inside of either they would end it."""
    tags = "|".join(map(re.escape, (prompt.think_tag, prompt.answer_tag)))
    return re.sub(rf"</?(?:{tags})>", "", text)


class Chat:
    """Prompts and targets in one model's own chat template.

    Args:
        processor: a transformers processor with `tokenizer`, `image_token` and `apply_chat_template`.
        prompt: the recipe's prompt section.
    """

    def __init__(self, processor: Any, prompt: Prompt) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.prompt = prompt
        self.image_token: str = processor.image_token
        self.image_token_id: int = self.tokenizer.convert_tokens_to_ids(self.image_token)
        template = _template(prompt.chat_template) or processor.chat_template
        if isinstance(template, dict):  # several, by name
            template = template.get("default")
        if not template:
            raise ModelError("this model has no chat template", next_step=NEXT_STEP)
        self.template = require_length(str(template), "the chat template")
        with bounded():
            require_length(
                self._render(PROBE, add_generation_prompt=False), "one question in the chat template"
            )

    @cached_property
    def control(self) -> re.Pattern[str]:
        """What finds this model's control tokens in a text."""
        added = self.tokenizer.added_tokens_decoder.values()
        return control_tokens.pattern(
            ((token.content, token.special) for token in added), self.image_token, self.prompt
        )

    def question(self, example: Example, suffix: str = "") -> str:
        """The prompt text up to where the model starts to write, one image token per image."""
        return self._render(self._messages(example, suffix), add_generation_prompt=True)

    def completion(self, example: Example) -> str:
        """What the model is to write after `question`, its end token included."""
        return self._completed(example, target(example, self.prompt))

    def rejected(self, example: Example) -> str:
        """What the model is to write less of: the worse completion of a pair, in the same form."""
        return self._completed(example, rejected(example, self.prompt))

    def _completed(self, example: Example, text: str) -> str:
        whole = self._render(
            [*self._messages(example), self._message("assistant", text)], add_generation_prompt=False
        )
        start = self.question(example)
        if not whole.startswith(start):
            raise ModelError(
                "the chat template does not continue its own generation prompt",
                why="the prompt of a finished conversation differs from the prompt that asks for an answer",
                next_step=NEXT_STEP,
            )
        rest = whole[len(start) :]
        end = rest.rfind(self.end_token)
        if end < 0:
            # A template that closes no turn would teach the model never to stop.
            return rest.rstrip() + self.end_token
        return rest[: end + len(self.end_token)]

    @cached_property
    def end_token(self) -> str:
        """The token that closes the assistant's turn in this template, else the tokenizer's EOS."""
        tail = self._render(PROBE, add_generation_prompt=False).partition("!END!")[2].strip()
        for token in sorted(self.tokenizer.all_special_tokens, key=len, reverse=True):
            if token and tail.startswith(token):
                return str(token)
        return str(self.tokenizer.eos_token)

    @cached_property
    def end_token_ids(self) -> list[int]:
        """Ids that end a generation: the turn's end and the tokenizer's EOS."""
        ids = [self.tokenizer.convert_tokens_to_ids(self.end_token), self.tokenizer.eos_token_id]
        return sorted({token for token in ids if token is not None})

    def expand(self, text: str, images: list[str]) -> str:
        """Replace the k-th image token by `images[k]`, the run of tokens its tiles need."""
        parts = text.split(self.image_token)
        if len(parts) != len(images) + 1:
            raise ModelError(f"the chat template made {len(parts) - 1} image places for {len(images)} images")
        return "".join(part + image for part, image in zip(parts, [*images, ""]))

    def ids(self, text: str) -> list[int]:
        """Token ids; the template wrote the special tokens, so none are added."""
        parts = text.split(control_tokens.BREAK)
        return [
            token for part in parts for token in self.tokenizer(part, add_special_tokens=False)["input_ids"]
        ]

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _messages(self, example: Example, suffix: str = "") -> list[dict[str, Any]]:
        """The prompt: the recipe's system prompt and the row's, the turns before the question, and the question."""
        given = [turn.text for turn in example.history if turn.role == "system"]
        turns = [turn for turn in example.history if turn.role != "system"]
        if given or turns:
            self._require_history(bool(given), bool(turns), example)
        system = "\n".join(filter(None, [self.prompt.system, *given]))
        words = [example.question, self.prompt.question_suffix, suffix]
        own = len(example.images) - sum(turn.pictures for turn in turns)
        return [
            *([self._message("system", system)] if system else []),
            *(self._message(turn.role, turn.text, turn.pictures) for turn in turns),
            self._message("user", " ".join(word.strip() for word in words if word.strip()), own),
        ]

    def _message(self, role: str, text: str, pictures: int = 0) -> dict[str, Any]:
        text = control_tokens.escape(text, self.control)
        return {
            "role": role,
            "content": [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}],
        }

    def _require_history(self, system: bool, turns: bool, example: Example) -> None:
        """
        Raises:
            ModelError: the template leaves out, or refuses, a system prompt or earlier turns that the row has.
        """
        for wanted, what in ((system, "system"), (turns, "turns")):
            if wanted and (why := self._refused[what]):
                name = "a system prompt" if what == "system" else "turns before the question"
                raise ModelError(
                    f"the chat template does not take {name}, which this row has",
                    where=example.where or example.id,
                    why=why,
                    next_step="another template (prompt.chat_template=path/to/template.jinja), or data without them",
                )

    @cached_property
    def _refused(self) -> dict[str, str]:
        """Why the template does not write a system prompt or earlier turns; empty where it does."""
        asked, said = self._message("user", "!U1!", 1), self._message("assistant", "!A1!")
        probes = {
            "system": [self._message("system", "!S1!"), asked],
            "turns": [asked, said, self._message("user", "!U2!", 1)],
        }
        return {what: self._why_refused(messages) for what, messages in probes.items()}

    def _why_refused(self, messages: list[dict[str, Any]]) -> str:
        try:
            text = self._render(messages, add_generation_prompt=True)
        except Exception as error:  # whatever the template itself raises
            return str(error).split("\n")[0] or type(error).__name__
        places = [text.find(part["text"]) for each in messages for part in each["content"] if "text" in part]
        images = sum(part["type"] == "image" for each in messages for part in each["content"])
        whole = min(places) >= 0 and places == sorted(places) and text.count(self.image_token) == images
        return "" if whole else "it leaves a part of the conversation out"

    def _render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        # The tokenizer renders the same template as the processor, without asking for pictures.
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        )


def _template(given: str | None) -> str | None:
    if given is None or "{" in given:
        return given
    try:
        if Path(given).stat().st_size > 4 * MOST_CHARACTERS or not Path(given).is_file():
            raise RecipeError("this is no chat template", where=given)
        return Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"the chat template cannot be read ({error.strerror})", where=given[:300]) from None
    except ValueError as error:  # no UTF-8, or a NUL in the name
        raise RecipeError(f"the chat template cannot be read ({error})", where=repr(given[:300])) from None

"""Reads what an endpoint sent as a chat completion: a paid answer comes out whatever is odd about it, or says why not."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from toasterft.data.token_stats import CHARACTERS_PER_TOKEN
from toasterft.teachers.api.types import Reply, Request, Service

# A bill beyond these is a mistake: some models count a picture at 40 times our estimate, none at 1,000 times; and an
# endpoint that overlooks `max_tokens` still ends somewhere.
MOST_TIMES_OUR_INPUT = 1_000
MOST_TIMES_MAX_TOKENS, MOST_OUTPUT_TOKENS = 100, 100_000


class NoCompletion(ValueError):
    """The body is no chat completion; the message holds the endpoint's own words.

    Attributes:
        status: the HTTP status that the body itself names; 502 where it names none.
        billed: whether the endpoint may charge for it all the same.
    """

    def __init__(self, what: str, *, status: int = 502, billed: bool = False) -> None:
        super().__init__(what)
        self.status, self.billed = status, billed


def read(text: str, request: Request, service: Service, input_tokens: int) -> Reply:
    """A body as a `Reply`.

    Args:
        input_tokens: our own count of what was sent, for bills that cannot be believed.

    Raises:
        NoCompletion: there is no answer in it.
    """
    body = _parse(text)
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    usage = body.get("usage")
    problem = body.get("error") or (choice.get("error") if isinstance(choice, dict) else None)
    if (
        not isinstance(choice, dict)
        or not isinstance(message, dict)
        or (problem and not message.get("content"))
    ):
        raise _no_completion(body, choice, problem or None, billed=bool(isinstance(usage, dict) and usage))
    content = _clean(_text(message.get("content")))
    thought = _clean(_text(message.get("reasoning_content") or message.get("reasoning")))
    if thought and re.match(r"\s*<answer>", content, re.IGNORECASE):
        content = (
            f"<think>{thought}</think>{content}"  # a server took our own tag for the model's native thinking
        )
    written = math.ceil(len(content + thought) / CHARACTERS_PER_TOKEN)
    counts, own = _counts(usage, input_tokens, written, request.max_tokens)
    finish = choice.get("finish_reason")
    return Reply(
        text=content,
        finish_reason=_clean(finish) if isinstance(finish, str) else None,
        input_tokens=counts[0],
        output_tokens=counts[1],
        thinking_tokens=counts[2],
        usd=service.usd(*counts[:2]),
        refusal=_clean(_text(message.get("refusal")))[:300],
        own_count=own,
    )


def words(text: str) -> str:
    """An endpoint's own words in the body of an error, whatever its shape (Google sends a list)."""
    try:
        body = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return _plain(text)
    body = body[0] if isinstance(body, list) and body else body
    return _message(body.get("error", body) if isinstance(body, dict) else body)


# --- parts -----------------------------------------------------------------------------------


def _parse(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        start = text.lstrip()
        if re.match(r"(data|event|id|retry)?:", start):
            raise NoCompletion(f"an event stream, which nobody asked for: {_plain(text)}") from None
        if start.startswith("{"):
            raise NoCompletion(
                f"the answer breaks off, or is broken JSON: {_plain(text)}", billed=True
            ) from None
        kind = "a page" if start.startswith("<") else "no JSON"
        raise NoCompletion(f"{kind}, no chat completion: {_plain(text) or 'nothing at all'}") from None
    if not isinstance(body, dict):
        raise NoCompletion(f"no chat completion: {words(text)}")
    return body


def _no_completion(body: dict[str, Any], choice: Any, problem: Any, *, billed: bool) -> NoCompletion:
    if problem is None:
        what = "no choices" if choice is None else "a choice without a message"
        return NoCompletion(f"{what} in the answer: {_message(body)}", billed=billed)
    code = problem.get("code") if isinstance(problem, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return NoCompletion(_message(problem), status=status, billed=billed)


def _text(value: Any) -> str:
    """Text of a message's content: a text, or a list of parts; native thinking among them is left out."""
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        return _text(value.get("text")) if value.get("type") != "thinking" else ""
    return "" if value is None or isinstance(value, bool) else str(value)


def _counts(
    usage: Any, our_input: int, our_output: int, max_tokens: int
) -> tuple[tuple[int, int, int], bool]:
    """Tokens read, written, and thought of these, by the bill; and whether a count of ours had to stand in."""
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("completion_tokens_details")
    most = max(MOST_TIMES_MAX_TOKENS * max_tokens, MOST_OUTPUT_TOKENS)
    thought = _tokens(details.get("reasoning_tokens"), most) if isinstance(details, dict) else None
    read = _tokens(usage.get("prompt_tokens"), MOST_TIMES_OUR_INPUT * our_input)
    shown = _tokens(usage.get("completion_tokens"), most)
    total = _tokens(usage.get("total_tokens"), MOST_TIMES_OUR_INPUT * our_input + most)
    # Gemini's interface leaves thinking tokens out of `completion_tokens` and bills them as output; the total has
    # them. Some proxies give 0 completion tokens beside the thinking ones.
    rest = total - read if read and total and total - read <= most else 0
    billed = max(shown or 0, rest, thought or 0)
    stated = shown is not None or rest > 0
    written = billed if billed and stated else max(billed, our_output)
    hidden = written - shown if shown is not None and written == billed else 0
    return (read or our_input, written, max(thought or 0, hidden)), not read or written != billed


def _tokens(value: Any, most: int) -> int | None:
    """A count that can be meant, also as text; None for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return math.ceil(number) if 0 <= number <= most else None


def _whole(digits: str) -> int | float:
    """Python refuses to read integers of thousands of digits, which no count is."""
    return int(digits) if len(digits) < 20 else float(digits)


def _clean(text: str) -> str:
    """Without half surrogate pairs, which no file can hold; the raw body has them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _message(value: Any) -> str:
    """The message in an error object, else the object itself."""
    while isinstance(value, dict) and (
        inner := value.get("message") or value.get("detail") or value.get("error")
    ):
        value = inner
    return _plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:2000])


def _plain(text: str) -> str:
    """One line without markup: `<html><title>Busy</title>` as `Busy`."""
    text = re.sub(
        r"<(script|style)\b.*?</\1>|<[a-zA-Z/!][^>]*>", " ", text[:20_000], flags=re.DOTALL | re.IGNORECASE
    )
    return _clean(" ".join(text.split()))[:300]

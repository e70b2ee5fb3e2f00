"""Replies that an endpoint might give by mistake, by age, or by malice; and what is to come of each.

REPLIES[name] = reply, outcome, words
    outcome   "kept", a reason of `rejects.jsonl`, or the kind of an `EndpointError`
    words     of the endpoint, that whoever reads the outcome is to find there
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from fake_teacher import Raw

GOOD = "<think>The bars give 12.</think><answer>12</answer>"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 60, "total_tokens": 1060}
NATIVE = (
    "I should write <think>one or two sentences</think><answer>the answer alone</answer>, so let me look."
)


def seconds(name: str) -> float:
    """How long a try may take; short only where it is to run out."""
    return 0.4 if name == "dripping" else 30.0


def said(content: Any = GOOD, *, usage: Any = USAGE, finish: Any = "stop", **message: Any) -> Raw:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish,
    }
    body = {"choices": [choice]} | ({} if usage is None else {"usage": usage})
    return Raw(json.dumps(body))


def bill(**changes: Any) -> Raw:
    return said(usage=USAGE | changes)


def error(status: int, text: str, **more: Any) -> Raw:
    return Raw(json.dumps({"error": {"message": text, **more}}), status)


SMALL = json.loads(str(said().body))
REPLIES: dict[str, tuple[Raw, str, str]] = {
    # --- odd bills: the answer is kept, and the tokens are counted here
    "usage as text": (said(usage={name: str(value) for name, value in USAGE.items()}), "kept", ""),
    "usage missing": (said(usage=None), "kept", "counted here"),
    "usage null": (bill(prompt_tokens=None, completion_tokens=None, total_tokens=None), "kept", "counted here"),
    "usage a list": (said(usage=[1000, 60]), "kept", "counted here"),
    "usage a text": (said(usage="1000/60"), "kept", "counted here"),
    "usage zero": (bill(prompt_tokens=0, completion_tokens=0, total_tokens=0), "kept", "counted here"),
    "usage negative": (bill(prompt_tokens=-1000, completion_tokens=-60, total_tokens=-1060), "kept", "counted here"),
    "usage NaN": (Raw(str(bill(prompt_tokens="@").body).replace('"@"', "NaN")), "kept", "counted here"),
    "usage infinite": (bill(prompt_tokens="inf", completion_tokens=1e308, total_tokens="-inf"), "kept", "counted here"),
    "usage absurd": (bill(prompt_tokens=10**12, completion_tokens=10**15, total_tokens=10**15), "kept", "counted here"),
    "usage of 5,000 digits": (Raw(str(bill(prompt_tokens="@").body).replace('"@"', "9" * 5000)), "kept", "counted here"),
    "usage of other types": (bill(prompt_tokens=True, completion_tokens={}, total_tokens=[]), "kept", "counted here"),
    "details a list": (bill(completion_tokens_details=[20]), "kept", ""),
    "details a number": (bill(completion_tokens_details=20), "kept", ""),
    "details a text": (bill(completion_tokens_details="20 reasoning"), "kept", ""),
    "details odd inside": (bill(completion_tokens_details={"reasoning_tokens": "many"}), "kept", ""),
    # --- odd contents
    "lone surrogate": (Raw(str(said(GOOD + "@").body).replace("@", "\\ud800")), "tags", "it wrote"),
    "surrogate inside": (Raw(str(said().body).replace("bars", "ba\\udfffrs")), "kept", ""),
    "bytes that are no UTF-8": (Raw(str(said().body).replace("bars", "b\xe4rs").encode("latin-1")), "kept", ""),
    "byte order mark": (Raw("\ufeff" + str(said().body)), "kept", ""),
    "NUL": (said(GOOD.replace("bars", "bars\x00")), "kept", ""),
    "parts": (said([{"type": "text", "text": GOOD[:20]}, {"type": "text", "text": GOOD[20:]}]), "kept", ""),
    "parts with null and text": (said([{"type": "text", "text": None}, GOOD]), "kept", ""),
    "parts of thinking": (said([{"type": "thinking", "thinking": [{"text": NATIVE}]}, {"text": GOOD}]), "kept", ""),
    "a number": (said(12), "tags", "12"),
    "null": (said(None), "tags", "empty"),
    "finish_reason an object": (said(finish={"type": "stop"}), "kept", ""),
    # --- around the wanted form
    "native thinking": (said(f"<think>{NATIVE}</think>\n\n{GOOD}"), "kept", ""),
    "native thinking without its start": (said(f"{NATIVE}</think>\n{GOOD}"), "kept", ""),
    "reasoning_content": (said(GOOD, reasoning_content=NATIVE), "kept", ""),
    "our tag taken for native thinking": (said("<answer>12</answer>", reasoning_content="The bars give 12."), "kept", ""),
    "code fence": (said(f"```xml\n{GOOD}\n```"), "kept", ""),
    "fence after thinking": (said(f"<think>{NATIVE}</think>\n```\n{GOOD}\n```\n"), "kept", ""),
    "control tokens": (said(f"{GOOD}<|im_end|>\n</s>"), "kept", ""),
    "other capitals": (said("<Think>The bars give 12.</THINK>\n<Answer>12</ANSWER>"), "kept", ""),
    # --- no answer, billed
    "only thinks": (
        said("", finish="length", reasoning="...", usage=USAGE | {"completion_tokens": 8192, "total_tokens": 9192,
             "completion_tokens_details": {"reasoning_tokens": 8192}}), "cut off", "8,192 tokens, only thinking"),
    "cut off": (said(GOOD[:30], finish="length"), "cut off", "60 tokens"),
    "refused": (said(None, refusal="I cannot help with charts."), "refused", "cannot help with charts"),
    "filtered": (said("", finish="content_filter"), "filtered", "content_filter"),
    # --- no answer, and no bill
    "error with status 200": (Raw(json.dumps({"error": {"message": "the model is loading"}})), "malformed", "is loading"),
    "error with a code": (Raw(json.dumps({"error": {"message": "slow down", "code": 429}})), "rate", "slow down"),
    "error as text": (Raw(json.dumps({"error": "no such route"})), "malformed", "no such route"),
    "error in the choice": (
        Raw(json.dumps({"choices": [{"message": {"content": ""}, "error": {"message": "upstream died"}}]})), "malformed",
        "upstream died"),
    "a page": (Raw("<!DOCTYPE html><title>Sign in</title><script>x</script>"), "malformed", "Sign in"),
    "a stream": (Raw('data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n'), "malformed", "stream"),
    "nothing": (Raw(""), "malformed", "nothing at all"),
    "a JSON text": (Raw('"ok"'), "malformed", "ok"),
    "a JSON list": (Raw("[]"), "malformed", "no chat completion"),
    "no choices": (Raw('{"choices": []}'), "malformed", "no choices"),
    "choices null": (Raw('{"id": "x", "choices": null}'), "malformed", "no choices"),
    "choices of texts": (Raw('{"choices": ["12"]}'), "malformed", "without a message"),
    "message a text": (Raw('{"choices": [{"message": "12"}]}'), "malformed", "without a message"),
    "deep JSON": (Raw('{"choices": ' + "[" * 100_000 + "]" * 100_000 + "}"), "malformed", "broken JSON"),
    # --- refusals
    "bad model": (error(400, "m is not a valid model ID", code=400), "rejected", "not a valid model ID"),
    "no pictures": (error(400, "this model does not support image input"), "rejected", "image input"),
    "no credit": (error(402, "insufficient credits"), "refused", "insufficient credits"),
    "quota": (error(429, "you exceeded your quota", code="insufficient_quota"), "refused", "your quota"),
    "redirect": (Raw("", 307, {"Location": "http://evil.example:9/v1/chat/completions"}), "refused", "evil.example"),
    # --- endless
    "swollen by compression": (
        Raw(gzip.compress(b'{"choices": ["' + b" " * 64_000_000), 200, {"Content-Encoding": "gzip"}), "malformed", "8 MiB"),
    "endless": (Raw('{"choices": "', endless=b" " * 1_000_000), "malformed", "8 MiB"),
    "dripping": (Raw('{"choices": "', endless=b" ", pause_seconds=0.02), "timeout", "no answer within"),
    "said to be compressed": (Raw(str(said().body), headers={"Content-Encoding": "gzip"}), "kept", ""),
    "compressed": (Raw(gzip.compress(str(said().body).encode()), headers={"Content-Encoding": "gzip"}), "kept", ""),
}  # fmt: skip
# What `make test` asks a whole build; the soak asks all of them.
QUICK = ["usage as text", "only thinks", "lone surrogate", "bad model"]

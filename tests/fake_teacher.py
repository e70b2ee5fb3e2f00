"""A teacher on loopback: real HTTP, and every way in which an endpoint can answer or fail to.

`behave(number, body)` decides about each request by name:

    good        a trace that passes the filters, ending in the answer that the prompt gives away
    bare, wrong, long, leaky, sums, french, empty       answers that each fail one filter
    slow        good, after a second
    held        good, once the test has set `gate`
    429, 429-late, 500, 401                             refusals, the first with Retry-After
    malformed, html, no-choices                         a 200 that is no chat completion
    drop, half                                          the connection breaks before or within the answer
    greedy                                              good, but billed for far more than was allowed
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS, THINKING_TOKENS = 1000, 120, 80
SLOW_SECONDS = 1.0


@dataclass(frozen=True)
class Raw:
    """An HTTP reply, byte by byte; `endless` is sent again and again behind the body until the client hangs up."""

    body: bytes | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    endless: bytes = b""
    pause_seconds: float = 0.0


Behaviour = Callable[[int, dict[str, Any]], "str | Raw"]


class Teacher:
    """The server; use it as a context manager.

    Attributes:
        asked: every request body, in order of arrival.
        billed: how often each prompt was answered with a bill, whether or not the answer arrived.
        gate: set it to let `held` answers go; it opens by itself at the end.
        at_once: the most requests that were being worked on together.
        answers: what judges say, by question; generators find theirs in the prompt.
    """

    def __init__(self, behave: Behaviour | str | Raw = "good", *, seconds: float = 0.0) -> None:
        self.behave: Behaviour = (lambda *_: behave) if isinstance(behave, str | Raw) else behave
        self.seconds = seconds
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.billed: Counter[str] = Counter()
        self.billed_tokens = 0
        self.answers: dict[str, str] = {}
        self.gate = threading.Event()
        self.at_once = self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Teacher:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, billed: int) -> None:
        """Return once so many answers were billed; pytest's own limit ends a test that waits for ever."""
        while sum(self.billed.values()) < billed:
            time.sleep(0.005)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with teacher._lock:
                    number = len(teacher.asked)
                    teacher.asked.append(body)
                    teacher.keys.append(self.headers.get("Authorization", ""))
                    teacher.headers.append({name.lower(): value for name, value in self.headers.items()})
                    teacher._now += 1
                    teacher.at_once = max(teacher.at_once, teacher._now)
                try:
                    # A client that was killed is not there to hear its answer.
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        self.answer(teacher.behave(number, body), body)
                finally:
                    with teacher._lock:
                        teacher._now -= 1

            def answer(self, how: str | Raw, body: dict[str, Any]):
                time.sleep(teacher.seconds)
                if isinstance(how, Raw):
                    return self.send_raw(how, body)
                if how == "429":
                    return self.send(429, error("slow down"), {"Retry-After": "0.3"})
                if how == "429-late":
                    return self.send(429, error("come back tomorrow"), {"Retry-After": "86400"})
                if how == "500":
                    return self.send(500, error("out of order"))
                if how == "401":
                    key = self.headers.get("Authorization", "")
                    return self.send(401, error(f"Incorrect API key provided: {key}"))
                if how == "html":
                    return self.send(200, "<html>busy</html>")
                if how == "no-choices":
                    return self.send(200, json.dumps({"choices": []}))
                if how == "drop":
                    return self.hang_up()
                if how == "slow":
                    time.sleep(SLOW_SECONDS)
                if how == "held":
                    teacher.gate.wait()
                tokens = body.get("max_tokens", 0) * 3 if how == "greedy" else OUTPUT_TOKENS
                with teacher._lock:
                    teacher.billed[prompt_of(body)] += 1
                    teacher.billed_tokens += tokens
                if how == "malformed":
                    return self.send(200, '{"choices": [{"message": {"content": "<think>')
                data = json.dumps(completion(teacher.say(how, body), tokens))
                if how == "half":
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2].encode())
                    return self.hang_up()
                self.send(200, data)
                return None

            def send(self, status: int, text: str | bytes, headers: dict[str, str] | None = None):
                data = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def send_raw(self, raw: Raw, body: dict[str, Any]):
                with teacher._lock:
                    teacher.billed[prompt_of(body)] += 1
                data = raw.body.encode("utf-8", "surrogatepass") if isinstance(raw.body, str) else raw.body
                if not raw.endless:
                    return self.send(raw.status, data, raw.headers)
                self.send_response(raw.status)
                for name, value in raw.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                while True:  # until the client hangs up
                    self.wfile.write(raw.endless)
                    time.sleep(raw.pause_seconds)

            def hang_up(self):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_):
                pass

        return Handler

    def say(self, how: str, body: dict[str, Any]) -> str:
        """The text of an answer."""
        prompt = prompt_of(body)
        question = re.search(r"Question: (.*)", prompt)
        given = re.search(r"The correct answer is: (.*)", prompt)
        answer = given[1] if given else self.answers.get(question[1] if question else "", "12")
        if "Write exactly this and nothing else:\n<answer>" in prompt:
            return f"<answer>{'never' if how == 'wrong' else answer}</answer>"
        think, said = f"The bars in the chart are read first, and that gives {answer}.", answer
        if how == "wrong":
            said = "no such thing"
        elif how == "long":
            think = "The bar is taller than the others in the chart, " * 60
        elif how == "leaky":
            think = "The provided answer is right, as the chart shows."
        elif how == "sums":
            think = "47 - 42 = 6 in the chart."
        elif how == "french":
            think = (
                "Les barres du graphique montrent que la valeur cherchée se trouve tout en haut de la page."
            )
        elif how == "empty":
            return ""
        elif how == "bare":
            return f"The answer is {answer}."
        return f"<think>{think}</think><answer>{said}</answer>"


def prompt_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def completion(text: str, output_tokens: int) -> dict[str, Any]:
    return {
        "id": "fake",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": output_tokens,
            "total_tokens": INPUT_TOKENS + output_tokens,
            "completion_tokens_details": {"reasoning_tokens": min(THINKING_TOKENS, output_tokens)},
        },
    }


def error(text: str) -> str:
    return json.dumps({"error": {"message": text, "code": None}})

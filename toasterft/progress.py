"""The Reporter protocol: progress and messages of a run; `terminal` decides how they look."""

from __future__ import annotations

from typing import Any, Protocol


class Reporter(Protocol):
    """One per command: a live line in a terminal, plain lines elsewhere, silence with --quiet."""

    def phase(self, name: str, total: int | None = None) -> None:
        """A new phase begins: loading, encoding, training, answering."""

    def advance(self, done: int, total: int, **facts: Any) -> None:
        """Progress of the phase; facts are loss, memory_bytes, usd, usd_end, seconds_left …"""

    def say(self, text: str) -> None:
        """Print one line of its own: a fallback, a dropped sample, a saved file."""

    def sample(self, parts: list[tuple[str, bool]]) -> None:
        """One training text as (text, trained?) runs, shown with the two visibly apart."""

    def completions(self, step: int, question: str, gold: str, rows: list[tuple[str, float]]) -> None:
        """What the model wrote to one question in one step: (text, reward) of each completion."""

    def done(self) -> None:
        """The last phase is over; nothing live stays on the screen."""


class Silent:
    """A reporter for tests and library use."""

    def phase(self, name: str, total: int | None = None) -> None: ...

    def advance(self, done: int, total: int, **facts: Any) -> None: ...

    def say(self, text: str) -> None: ...

    def sample(self, parts: list[tuple[str, bool]]) -> None: ...

    def completions(self, step: int, question: str, gold: str, rows: list[tuple[str, float]]) -> None: ...

    def done(self) -> None: ...

"""Progress while something runs: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toasterft.progress import Reporter, Silent
from toasterft.terminal.output import err, learned_text
from toasterft.units import dollars, duration, shorten, size

LIVE_EVERY_SECONDS = 0.2
PLAIN_EVERY_SECONDS = 15.0
# Of a question or a completion in the table of samples; samples.jsonl has them whole.
SHOWN_CHARACTERS = 160


def reporter(*, quiet: bool) -> Reporter:
    """A live line in a terminal, plain lines elsewhere, nothing with --quiet."""
    if quiet:
        return Silent()
    return LiveReporter() if err.is_terminal else PlainReporter()


class Samples:
    """The part of a reporter that shows training texts and completions."""

    def sample(self, parts: list[tuple[str, bool]]) -> None:
        """One training text: what is trained stands out, and without colours it is bracketed."""
        plain = not err.is_terminal
        about = "⟦learned text⟧" if plain else "dim text is read, bright text is learned"
        heading = Text(f"sample: {about}\n", style="italic")
        err.print(heading + learned_text(parts, plain=plain), soft_wrap=True)

    def completions(self, step: int, question: str, gold: str, rows: list[tuple[str, float]]) -> None:
        """One group of samples: the question, the completions and their rewards."""
        err.print(Text(f"step {step}: {_quoted(question)}  →  {_quoted(gold)}", style="italic"))
        grid = Table(box=box.SIMPLE, pad_edge=False)
        grid.add_column("reward", justify="right", no_wrap=True)
        grid.add_column("completion")
        for text, reward in rows:
            grid.add_row(Text(f"{reward:.2f}"), Text(_quoted(text.strip())))
        err.print(grid)


class PlainReporter(Samples):
    """One line per phase and then every quarter of a minute: for logs."""

    def __init__(self) -> None:
        self._name = ""
        self._began = self._last = 0.0

    def phase(self, name: str, total: int | None = None) -> None:
        self._name, self._began, self._last = name, time.monotonic(), time.monotonic()
        err.print(f"{name}" + (f" ({total:,})" if total else ""))

    def advance(self, done: int, total: int, **facts: Any) -> None:
        now = time.monotonic()
        if done < total and now - self._last < PLAIN_EVERY_SECONDS:
            return
        self._last = now
        err.print(f"{self._name} {done:,}/{total:,}  {_facts(facts)}".rstrip())

    def say(self, text: str) -> None:
        err.print(Text(text), soft_wrap=True)

    def done(self) -> None: ...


class LiveReporter(Samples):
    """One line that moves: phase, step, bar, loss, time left, memory, dollars so far and at the end."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._name = ""
        self._drawn = 0.0
        self._last: tuple[int, int, dict[str, Any]] | None = None

    def phase(self, name: str, total: int | None = None) -> None:
        self._finish_line()
        self._name = name
        self._last = (0, total or 0, {})
        self._live = Live(console=err, refresh_per_second=8, transient=True)
        self._live.start()
        self._draw()

    def advance(self, done: int, total: int, **facts: Any) -> None:
        self._last = (done, total, facts)
        if time.monotonic() - self._drawn > LIVE_EVERY_SECONDS or done == total:
            self._draw()

    def say(self, text: str) -> None:
        err.print(Text("· ", style="yellow") + Text(text), soft_wrap=True)

    def done(self) -> None:
        self._finish_line()

    def _draw(self) -> None:
        if self._live is None or self._last is None:
            return
        done, total, facts = self._last
        self._drawn = time.monotonic()
        grid = Table.grid(padding=(0, 1))
        name = Text(f"{self._name:<11}", style="bold cyan")
        if total:
            bar = ProgressBar(total=total, completed=done, width=24)
            grid.add_row(name, bar, Text(f"{done:,}/{total:,}"), Text(_facts(facts)))
        else:
            grid.add_row(name, Text("…"))
        self._live.update(Group(grid), refresh=True)

    def _finish_line(self) -> None:
        """Leave one line behind for the phase that ended."""
        if self._live is None or self._last is None:
            return
        done, total, facts = self._last
        self._live.stop()
        self._live = None
        kept = {name: value for name, value in facts.items() if name not in ("seconds_left", "usd_end")}
        text = f"{self._name:<11} {done:,}/{total:,}  {_facts(kept)}" if total else f"{self._name:<11} done"
        err.print(Text("✓ ", style="green") + Text(text.rstrip()))


def _facts(facts: dict[str, Any]) -> str:
    """The figures of a progress line, those that are known."""
    loss, left, usd, end = (facts.get(name) for name in ("loss", "seconds_left", "usd", "usd_end"))
    parts = [
        "" if loss is None else f"loss {loss:.3f}",
        "" if left is None else f"{duration(left)} left",
        size(facts["memory_bytes"]) if facts.get("memory_bytes") else "",
        "" if usd is None else dollars(usd) + ("" if end is None else f" of {dollars(end)}"),
    ]
    return "  ".join(filter(None, parts))


def _quoted(text: str) -> str:
    return shorten(" ".join(text.split()), SHOWN_CHARACTERS)

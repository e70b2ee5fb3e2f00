"""Says once when sampling goes the ways it is known to go wrong."""

from __future__ import annotations

from collections import defaultdict
from typing import Any


class SamplingWarnings:
    """Listens to the figures of every batch of samples."""

    PATIENCE = 10

    def __init__(self, say: Any) -> None:
        self.say = say
        self.history: dict[str, list[float]] = defaultdict(list)
        self.rung: set[str] = set()

    def check(self, facts: dict[str, float]) -> None:
        for name, value in facts.items():
            self.history[name].append(value)
        recent = {name: values[-self.PATIENCE :] for name, values in self.history.items()}
        if len(recent["groups/alike"]) < self.PATIENCE:
            return
        first = self.history["completions/mean_length"][0]
        if min(recent["groups/alike"]) == 1:
            self._ring(
                "alike",
                "every group's rewards are alike: nothing is learned "
                "(harder or easier data, a higher temperature, or dyme, which memorises where none is right)",
            )
        if min(recent["completions/truncated"]) > 0.5 and recent["completions/mean_length"][-1] > 1.5 * first:
            self._ring(
                "length", "completions run away in length: most are cut off (reward length, or more tokens)"
            )
        if max(self.history["format_rate"]) > 0.5 and max(recent["format_rate"]) < 0.1:
            self._ring(
                "format", "the answer format is gone (a lower learning rate, beta > 0, or a format reward)"
            )

    def check_switch(self, memorised: float) -> None:
        """The share of groups that memorised in one step (DyME)."""
        self.history["memorise"].append(memorised)
        recent, formats = self.history["memorise"][-self.PATIENCE :], self.history["format_rate"]
        if len(recent) == self.PATIENCE and min(recent) > 0.95 and sum(formats[-self.PATIENCE :]) < 0.5:
            self._ring(
                "memorise",
                "nearly every group memorises and the answer format does not come (a lower learning rate, "
                "temperature 0.7, warmup_steps=50, a shorter max_completion_length, or sft first)",
            )

    def _ring(self, key: str, text: str) -> None:
        if key not in self.rung:
            self.rung.add(key)
            self.say(f"alarm: {text}")

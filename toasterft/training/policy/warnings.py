"""Warn once of each known failure of sampling: groups of equal rewards, runaway length, lost format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from toasterft.recipe import UNTIL


class SamplingWarnings:
    """History of the figures of every batch of samples, averaged over processes."""

    PATIENCE = 10

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.history: dict[str, list[float]] = defaultdict(list)
        self.given: set[str] = set()

    def check(self, facts: dict[str, float]) -> None:
        """Add figures of one batch of samples, and look at the last ten."""
        for name, value in facts.items():
            self.history[name].append(value)
        recent = {name: values[-self.PATIENCE :] for name, values in self.history.items()}
        if len(recent["groups/alike"]) < self.PATIENCE:
            return
        first = self.history["completions/mean_length"][0]
        if min(recent["groups/alike"]) == 1:
            self._warn(
                "alike",
                "every group's rewards are alike: nothing is learned "
                "(harder or easier data, a higher temperature, or dyme, which memorises where none is right)",
            )
        if min(recent["completions/truncated"]) > 0.5 and recent["completions/mean_length"][-1] > 1.5 * first:
            self._warn(
                "length", "completions run away in length: most are cut off (reward length, or more tokens)"
            )
        if max(self.history["format_rate"]) > 0.5 and max(recent["format_rate"]) < 0.1:
            self._warn(
                "format", "the answer format is gone (a lower learning rate, beta > 0, or a format reward)"
            )

    def reached(self, rule: str) -> bool:
        """Whether a rule like `format_rate >= 0.9` holds for the mean of the last ten batches of samples."""
        match = UNTIL.fullmatch(rule)
        assert match is not None
        figure, direction, number = match.groups()
        recent = self.history.get(figure, [])[-self.PATIENCE :]
        if len(recent) < self.PATIENCE:
            return False
        mean = sum(recent) / len(recent)
        return mean >= float(number) if direction == ">=" else mean <= float(number)

    def check_switch(self, memorised: float) -> None:
        """Add the share of groups that memorised in one step (DyME), and look at the last ten."""
        self.history["memorise"].append(memorised)
        recent, formats = self.history["memorise"][-self.PATIENCE :], self.history["format_rate"]
        if len(recent) == self.PATIENCE and min(recent) > 0.95 and sum(formats[-self.PATIENCE :]) < 0.5:
            self._warn(
                "memorise",
                "nearly every group memorises and the answer format does not come (a lower learning rate, "
                "temperature 0.7, warmup_steps=50, a shorter max_completion_length, or sft first)",
            )

    def _warn(self, key: str, text: str) -> None:
        if key not in self.given:
            self.given.add(key)
            self.say(f"alarm: {text}")

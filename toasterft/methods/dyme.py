"""DyME on the policy trainer: the switch decides what each group of samples is worth.

A memorised group is one supervised row inside the same loss: its tokens are the reference's, its advantage
is `sft_weight`, and with one update per sample the ratio is 1, so that its gradient is that of SFT on the
trace, averaged over its tokens. No second forward pass and no second loss.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from toasterft import places, switch
from toasterft.data.example import Example
from toasterft.engines import Engine
from toasterft.job import Job
from toasterft.ledger import Run
from toasterft.methods import training
from toasterft.methods.policy import PolicyTrainer
from toasterft.methods.rollout import Group, read
from toasterft.methods.training import Course
from toasterft.progress import Reporter
from toasterft.recipe import Dyme
from toasterft.refine import Refiner, Template

TEMPLATE_FILE = "template.json"
# A trace this good may change the template that refined traces follow.
GOOD_THINKING = 0.9


def run(job: Job, engine: Engine, report: Reporter) -> Run:
    """Memorise where every sample is wrong, explore where some are right, leave alone what is solved."""
    return training.run(job, engine, report, DymeTrainer)


class DymeTrainer(PolicyTrainer):
    """PolicyTrainer whose advantages go through `switch.choose`."""

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        assert isinstance(course.recipe, Dyme)
        self.dyme = course.recipe
        self.refiner = Refiner(Template()) if self.dyme.refine else None

    def advantage(self, groups: list[Group]) -> None:
        super().advantage(groups)
        outcomes = []
        for group in groups:
            decision = switch.choose(
                [each["accuracy"] > 0.5 for each in group.earned],
                group.total.tolist(),
                sft_weight=self.dyme.sft_weight,
                soft_power=self.dyme.soft_power,
            )
            outcomes.append(decision.outcome)
            if not self.dyme.explore or not decision.explores:
                group.advantage = torch.zeros_like(group.advantage)
            if decision.target_row is not None and self.dyme.memorise:
                self._memorise(group, decision.target_row, decision.target_weight)
        for outcome in ("memorise", "explore", "solved"):
            self.note(f"switch/{outcome}", outcomes.count(outcome) / len(outcomes))
        self._learn_template(groups)
        self.alarms.hear_switch(outcomes.count("memorise") / len(outcomes))

    def _memorise(self, group: Group, row: int, weight: float) -> None:
        """Put the reference where a sample was."""
        ids = self.opened.chat.ids(self.opened.chat.completion(self._target(group.example)))
        group.ids[row] = ids
        group.completions[row] = read(self.opened, ids, self.recipe.max_completion_length)
        group.counted[row] = True  # a reference longer than the sampling limit is no truncated sample
        group.advantage[row] = weight
        self.note("switch/target_length", len(ids))

    def _target(self, example: Example) -> Example:
        """The example with its trace refined, where the facts allow it."""
        if self.refiner is None:
            return example
        refined = self.refiner(example)
        return example if refined is None else replace(example, reasoning=refined)

    def _learn_template(self, groups: list[Group]) -> None:
        """Let right answers with excellent reasoning shape what refined traces look like."""
        if self.refiner is None:
            return
        good = [
            completion.parsed.reasoning
            for group in groups
            for completion, earned in zip(group.completions, group.earned)
            if earned.get("accuracy", 0) > 0.5
            and earned.get("thinking", 0) >= GOOD_THINKING
            and completion.parsed.reasoning
        ]
        self.refiner.learn(good)

    def save_state(self, folder: Path) -> None:
        super().save_state(folder)
        if self.refiner is not None:
            places.write_json(folder / TEMPLATE_FILE, self.refiner.template.to_json())

    def load_state(self, folder: Path) -> None:
        super().load_state(folder)
        stored = places.read_json(folder / TEMPLATE_FILE)
        if self.refiner is not None and stored is not None:
            self.refiner = Refiner(Template.from_json(stored))

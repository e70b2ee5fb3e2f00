"""DyME on the policy trainer: the switch decides whether a group memorises, explores or is left alone.

A memorised group is one supervised row inside the same loss: its tokens are the reference's, its advantage
is `sft_weight`, and its ratio is 1 in every update, so that its gradient is that of SFT on the trace,
averaged over its tokens. No second forward pass and no second loss.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from accelerate.utils import gather_object

from toasterft import paths
from toasterft.data.example import Example
from toasterft.engine import Engine
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.recipe import Dyme
from toasterft.runs import distributed
from toasterft.runs.run_folder import Run
from toasterft.scoring import traces
from toasterft.scoring.rewards import JUDGED, Rewards
from toasterft.teachers.refine import OUTCOMES, Refiner, Template
from toasterft.teachers.training_session import LiveTeachers
from toasterft.training import dyme_switch
from toasterft.training import run as route
from toasterft.training.policy.rollout import Group, Rollout, read
from toasterft.training.policy.trainer import PolicyTrainer
from toasterft.training.trainer_base import TrainingContext

TEMPLATE_FILE = "template.json"
# A trace this good may change the template that refined traces follow.
GOOD_THINKING = 0.9
# Rewards that say how good a trace is, the most telling first.
THINKING = (JUDGED, "thinking", "thinking_lemma")


def run(job: Job, engine: Engine, end: Ending) -> Run:
    """Memorise where every sample is wrong, explore where some are right, leave alone what is solved."""
    assert isinstance(job.recipe, Dyme)
    with distributed.share_errors():
        live_teachers = LiveTeachers(job.recipe, job.budget_usd)
    try:
        return route.run(job, engine, end, lambda context: DymeTrainer(context, live_teachers))
    finally:
        live_teachers.close()


class DymeTrainer(PolicyTrainer):
    """PolicyTrainer whose advantages go through `switch.choose`."""

    def __init__(self, context: TrainingContext, live_teachers: LiveTeachers | None = None) -> None:
        assert isinstance(context.recipe, Dyme)
        self.dyme = context.recipe
        self.live_teachers = live_teachers or LiveTeachers(context.recipe, context.monitor.meter.budget_usd)
        self.live_teachers.open(context.record.path, context.monitor.meter)
        super().__init__(context)
        self.refiner = self._refiner(Template())

    def make_rewards(self) -> Rewards:
        judge = self.live_teachers.judge
        return Rewards(dict(self.dyme.rewards), {JUDGED: judge} if judge is not None else {})

    def _refiner(self, template: Template) -> Refiner | None:
        return None if self.dyme.refiner == "none" else Refiner(template, self.live_teachers.writer)

    def log_rollout(self, rollout: Rollout) -> None:
        super().log_rollout(rollout)
        checked = [
            traces.check(each.parsed.reasoning or "", one.facts, one.question_in_context, one.answer)
            for group in rollout.groups
            if (one := group.example).facts
            for each in group.completions
        ]
        self.metrics.note(
            *(
                {
                    "thinking/coverage": found.coverage or 0.0,
                    "thinking/arithmetic": found.arithmetic,
                    "thinking/conclusion": found.conclusion,
                    "thinking/faults": len(found.faults),
                }
                for found in checked
            )
        )

    # --- deciding

    def set_advantages(self, groups: list[Group]) -> None:
        super().set_advantages(groups)
        decisions = [self._decide(group) for group in groups]
        swapped = [group for group, each in zip(groups, decisions) if each.target_row is not None]
        targets = dict(zip(map(id, swapped), self._targets([group.example for group in swapped])))
        self._learn_template(groups)  # before references take the place of samples
        for group, decision in zip(groups, decisions):
            if not decision.explores:
                group.advantage = torch.zeros_like(group.advantage)
            if decision.target_row is not None:
                self._memorise(group, decision.target_row, decision.target_weight, targets[id(group)])
        outcomes = [decision.outcome for decision in decisions]
        self.metrics.note(
            {f"switch/{each}": outcomes.count(each) / len(outcomes) for each in get_args(dyme_switch.Outcome)}
        )
        self._log_live_teachers()
        self.warnings.check_switch(outcomes.count("memorise") / len(outcomes))

    def _decide(self, group: Group) -> dyme_switch.Decision:
        done = self.state.global_step / max(1, self.state.max_steps)
        rewards = group.total.tolist()
        if self.dyme.switch_threshold is None:
            correct = [each["accuracy"] > 0.5 for each in group.earned]
        else:
            weights = list(self.dyme.rewards.values())
            correct = dyme_switch.above(rewards, weights, self.dyme.switch_threshold)
        weight = self.dyme.sft_weight
        return dyme_switch.choose(
            correct,
            rewards,
            sft_weight=self.dyme.num_generations if weight is None else weight,
            soft_power=self.dyme.soft_power,
            annealed=dyme_switch.cosine(done) if self.dyme.anneal else None,
            memorise=self.dyme.memorise and done < self.dyme.memorise_until,
            explore=self.dyme.explore,
        )

    # --- memorising

    def _targets(self, examples: list[Example]) -> list[Example]:
        """Examples with their traces refined, where that is possible."""
        if self.refiner is None or not examples:
            return examples
        before = Counter(self.refiner.counts)
        for example in examples:
            self.refiner.start(example)
        found = []
        for example in examples:
            refined = self.refiner(example)
            found.append(example if refined is None else replace(example, reasoning=refined))
        now = self.refiner.counts
        self.metrics.note(
            {f"refiner/{each}": (now[each] - before[each]) / len(examples) for each in OUTCOMES}
        )
        return found

    def _memorise(self, group: Group, row: int, weight: float, target: Example) -> None:
        """Put the reference where a sample was."""
        ids = self.session.chat.ids(self.session.chat.completion(target))
        group.ids[row] = ids
        group.completions[row] = read(self.session, ids, self.recipe.max_completion_length)
        group.counted[row] = True  # a reference longer than the sampling limit is no truncated sample
        group.advantage[row], group.target = weight, row
        self.metrics.note({"switch/target_length": len(ids)})

    def _learn_template(self, groups: list[Group]) -> None:
        """Let right answers with excellent reasoning shape what refined traces look like."""
        judged = next((name for name in THINKING if name in self.dyme.rewards), None)
        if self.refiner is None or judged is None:
            return
        good = [
            completion.parsed.reasoning
            for group in groups
            for completion, earned in zip(group.completions, group.earned)
            if earned["accuracy"] > 0.5 and earned[judged] >= GOOD_THINKING and completion.parsed.reasoning
        ]
        self.refiner.learn(gather_object(good))

    def _log_live_teachers(self) -> None:
        """Note how often the judge failed and what API calls cost; stop at the cap."""
        if not self.live_teachers.services:
            return
        if (judge := self.live_teachers.judge) is not None:
            self.metrics.note({"judge/failed": judge.failed / max(1, judge.asked)})
            judge.asked = judge.failed = 0
        self.metrics.replace("teachers/usd", self.live_teachers.usd)
        self.live_teachers.report_failures(self.context.report)
        self.live_teachers.cap_spending(self.context.monitor.meter)

    # --- checkpoints

    def save_state(self, folder: Path) -> None:
        super().save_state(folder)
        if self.refiner is not None and self.accelerator.is_main_process:
            paths.write_json(folder / TEMPLATE_FILE, self.refiner.template.to_json())

    def load_state(self, folder: Path) -> None:
        super().load_state(folder)
        stored = paths.read_json(folder / TEMPLATE_FILE)
        if stored is not None:
            self.refiner = self._refiner(Template.from_json(stored))

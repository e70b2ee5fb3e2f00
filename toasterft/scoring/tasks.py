"""The scorers of each task, and the verdict on one answer, for evaluation and reward alike.

A task is named by the data's card (`data.example.TASKS`) and stands in `Example.extra["task"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from toasterft.data.example import TASKS, Example
from toasterft.errors import DataError, did_you_mean
from toasterft.scoring.answers.choice import letter_of, named
from toasterft.scoring.answers.math import same_result
from toasterft.scoring.answers.published import contains, relaxed
from toasterft.scoring.answers.values import robust, stated
from toasterft.scoring.answers.yes_no import is_closed, token_recall, yes_no_or_short

# Of charts; their `robust` is the headline, the others are for comparison with published tables.
SCORERS: dict[str, Callable[[str, str], bool]] = {"robust": robust, "relaxed": relaxed, "contains": contains}
UNREAD_LENGTH = 60  # characters kept of a label that is none of the known ones


@dataclass(frozen=True)
class Verdict:
    """One answer, judged.

    Attributes:
        correct: by scorer; `robust` is every task's headline.
        picked: the option or label that was read from the answer (choice, class); None where none was.
        token_recall: share of the gold's words that the answer holds, for an open short answer.
    """

    correct: dict[str, bool]
    picked: str | None = None
    token_recall: float | None = None


def task_of(example: Example) -> str:
    """The example's task; charts by default.

    Raises:
        DataError: there is no such task.
    """
    task = str(example.extra.get("task", "chart"))
    if task not in TASKS:
        raise DataError(
            f"no task is called {task!r}{did_you_mean(task, list(TASKS))}",
            where=example.where or example.id,
            why=f"card.json's `task` is one of {', '.join(TASKS)}",
        )
    return task


def judge(prediction: str, example: Example) -> Verdict:
    """The verdict on the accepted answer that suits `prediction` best; see `_judge`.

    Raises:
        DataError: the example's task does not exist.
    """
    verdicts = [_judge(prediction, replace(example, answer=gold)) for gold in _accepted(example)]
    return next((verdict for verdict in verdicts if verdict.correct["robust"]), verdicts[0])


def _accepted(example: Example) -> list[str]:
    """Every answer that counts as right, the one that is taught first."""
    return list(dict.fromkeys([example.answer, *map(str, example.extra.get("answers") or ())]))


def _judge(prediction: str, example: Example) -> Verdict:
    """Every scorer's verdict on `prediction`, the bare answer with any tags already taken off.

    Raises:
        DataError: the example's task does not exist.
    """
    task, gold = task_of(example), example.answer
    if task == "chart":
        return Verdict({name: scorer(prediction, gold) for name, scorer in SCORERS.items()})
    if task == "yesno-open":
        recall = None if is_closed(gold) else token_recall(prediction, gold)
        return Verdict({"robust": yes_no_or_short(prediction, gold)}, token_recall=recall)
    if task == "math":
        return Verdict({"robust": same_result(prediction, gold)})
    correct, picked = _chosen(prediction, gold, options_of(example), lettered=task == "choice")
    return Verdict({"robust": correct}, picked)


def right(prediction: str, example: Example) -> bool:
    """The headline of `judge` alone.

    Raises:
        DataError: the example's task does not exist.
    """
    if task_of(example) == "chart":
        return any(robust(prediction, gold) for gold in _accepted(example))
    return judge(prediction, example).correct["robust"]


def options_of(example: Example) -> list[str]:
    """The options or labels to choose from, where the data has them."""
    return [str(option) for option in example.extra.get("choices") or ()]


def _chosen(prediction: str, gold: str, options: Sequence[str], *, lettered: bool) -> tuple[bool, str | None]:
    """Whether the gold option was chosen, and which one was."""
    wanted = named(gold, options, lettered=lettered)
    if wanted is not None:
        place = named(prediction, options, lettered=lettered)
        return place == wanted, None if place is None else options[place]
    # Without the options only the gold itself can be recognised.
    letter = letter_of(prediction) if lettered and letter_of(gold) else None
    if letter is not None:
        return letter == letter_of(gold), letter
    if named(prediction, [gold], lettered=False) == 0:
        return True, gold
    return False, stated(prediction).strip()[:UNREAD_LENGTH] or None

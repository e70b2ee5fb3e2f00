"""Errors that are explained to the user, each with the exit code it ends the process with.

    ToasterError
    ├── UserError            exit 2   the user can mend it; nothing was written
    │   ├── RecipeError               a recipe, flag or key=value is wrong
    │   ├── DataError                 the data cannot be read or trained on
    │   ├── ModelError                the model cannot be found or loaded
    │   ├── FitError                  the run does not fit the GPU
    │   ├── BudgetError               the run would cost more than allowed
    │   └── MissingExtra              an optional package is needed
    ├── CapReached           exit 3   stopped at the budget or hour cap, work saved
    ├── RunFailed            exit 4   the run itself failed (non-finite losses, reward errors …)
    │   └── OutOfMemory               the GPU's memory did not hold a step
    └── Interrupted          exit 130 (Ctrl-C) or 143 (SIGTERM), work saved

Each carries four facts: *where*, *what*, *why*, and the *next step*. `cli.main` catches them once
and prints them without a traceback; any other exception is our bug and keeps its traceback (exit 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ToasterError(Exception):
    """An ending that is explained rather than traced.

    Args:
        what: one sentence saying what is wrong.
        where: the file, line, flag or key it is about.
        why: the reason, where it is not plain from `what`.
        next_step: what to type or change now.
        details: further lines, one finding each, printed as a list.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        why: str | None = None,
        next_step: str | None = None,
        details: tuple[str, ...] | list[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step
        self.details = tuple(details)

    def __reduce__(self) -> tuple[Any, ...]:
        """Processes that train together hand problems to each other."""
        return _again, (type(self), self.args, self.__dict__)

    def lines(self) -> list[str]:
        """The message as plain lines, the first one naming where and what."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        rest = [f"  {detail}" for detail in self.details]
        if self.why:
            rest.append(f"  why   {self.why}")
        if self.next_step:
            rest.append(f"  next  {self.next_step}")
        return [head, *rest]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _again(kind: type[ToasterError], args: tuple[Any, ...], facts: dict[str, Any]) -> ToasterError:
    problem = kind.__new__(kind, *args)
    problem.__dict__.update(facts)
    return problem


class UserError(ToasterError):
    """The user can mend it; raised before anything is written."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe, flag or `key=value` is wrong."""


class DataError(UserError):
    """The data cannot be read or trained on."""


class ModelError(UserError):
    """The model cannot be found or loaded."""


class FitError(UserError):
    """The run does not fit the GPU."""


class BudgetError(UserError):
    """The run would cost more, or take longer, than allowed."""


class MissingExtra(UserError):
    """An optional package is needed for this command."""


class CapReached(ToasterError):
    """The dollar or hour cap stopped the run; a checkpoint and a usable adapter are saved."""

    exit_code = 3


class RunFailed(ToasterError):
    """The run went wrong in a way that more of the same would not mend."""

    exit_code = 4


class OutOfMemory(RunFailed):
    """The GPU's memory did not hold a step; a smaller one may go on from the last checkpoint."""


class Interrupted(ToasterError):
    """Ctrl-C or SIGTERM; the step was finished and the work saved."""

    def __init__(self, what: str, *, exit_code: int, next_step: str | None = None) -> None:
        super().__init__(what, next_step=next_step)
        self.exit_code = exit_code


def did_you_mean(word: str, known: list[str]) -> str:
    """` — did you mean X?` for the nearest known word, or an empty string."""
    import difflib

    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(lower), n=1, cutoff=0.5)
    return f" — did you mean {lower[close[0]]}?" if close else ""


@contextmanager
def needed_by(name: str) -> Iterator[None]:
    """Say in our words that an engine needs a package which is not here.

    Raises:
        MissingExtra: with the package.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"the {name} engine cannot start",
            why=str(error).splitlines()[0],
            next_step=f"pip install {error.name}   or engine=plain" if error.name else "toasterft doctor",
        ) from error

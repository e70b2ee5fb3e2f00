"""A data set in the making: items, what came of each, and how a teacher is asked about one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from toasterft.errors import ToasterError
from toasterft.teachers.api import Endpoint, Reply, Request, Service
from toasterft.teachers.panel import Candidate
from toasterft.teachers.replies import formless

Endpoints = Mapping[tuple[str, str], Endpoint]
"""By address and model: one for each model, whether it writes, judges, or both."""


@dataclass(frozen=True)
class Outcome:
    """What came of one item, an example or the images of a row.

    Attributes:
        reason: why it is of no use; None where it is good, "endpoint" where the API failed.
        written: a trace, or facts.
        said: the reply as it came.
    """

    item: Any
    reason: str | None = None
    teacher: str = ""
    written: Any = ""
    detail: str = ""
    said: str = ""
    tries: int = 1
    candidates: tuple[Candidate, ...] = ()


@dataclass
class Build(ABC):
    """A data set in the making, as `run` drives it: outcomes so far, by place in the order of items.

    Attributes:
        phase, unit: what the work and the good items are called: "writing" "traces".
        use: what can be done with an unfinished set.
        passed: good outcomes.
    """

    plan: Any
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    passed: int = 0
    ended: ToasterError | None = None
    phase: ClassVar[str]
    unit: ClassVar[str]
    use: ClassVar[str]

    @property
    @abstractmethod
    def nothing(self) -> tuple[str, str]:
        """The failure where no item is good, and what may help."""

    @property
    def in_order(self) -> list[Outcome]:
        return [self.outcomes[place] for place in sorted(self.outcomes)]

    @property
    def done(self) -> int:
        """Items of the `n` that count as done in the progress."""
        return len(self.outcomes)

    @property
    def good(self) -> int:
        return min(self.passed, int(self.plan.n))

    def rejects(self) -> dict[str, int]:
        """Reasons by how often they occurred."""
        return dict(Counter(one.reason for one in self.in_order if one.reason is not None).most_common())

    def finished(self, count: int) -> bool:
        """Whether `count` items are through, and a retry could change nothing: an endpoint may answer later."""
        return len(self.outcomes) == count and all(one.reason != "endpoint" for one in self.outcomes.values())

    def wants_more(self, in_flight: int) -> bool:
        return True

    @property
    @abstractmethod
    def complete(self) -> bool: ...

    @abstractmethod
    def items(self) -> Iterable[Any]: ...

    @abstractmethod
    async def ask(self, item: Any, endpoints: Endpoints) -> Outcome: ...

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Counts and the like, for the card."""

    @abstractmethod
    def files(self, task: str) -> dict[str, list[dict[str, Any]]]: ...


async def ask_until_good(
    item: Any, endpoint: Endpoint, requests: Iterable[Request], read: Callable[[Reply], Outcome]
) -> Outcome:
    """The outcome of the first reply that is good, else of the last one.

    Raises:
        EndpointRefused: it refuses every request, or none of the first ones brought a reply in the form asked for.
    """
    name, outcome = endpoint.service.name, Outcome(item)
    for tries, request in enumerate(requests, 1):
        reply = await endpoint.try_to_ask(request)
        if not isinstance(reply, Reply):
            return Outcome(item, "endpoint", name, detail=reply, tries=tries)
        outcome = replace(read(reply), teacher=name, tries=tries)
        await endpoint.judge(formless(outcome.reason, outcome.detail))
        if outcome.reason is None:
            break
    return outcome


def model_of(service: Service) -> tuple[str, str]:
    """Address and model: what makes two services one."""
    return service.base_url, service.model_id

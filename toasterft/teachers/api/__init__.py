"""One client for every OpenAI-compatible endpoint: teachers, judges and refiners, with the bill held down.

    Service    where a model is asked and what it costs
    Request    what it is asked: text, pictures, settings
    Purse      what has been spent over all processes of one job, and how far it may go
    Endpoint   asks, asynchronously: at most so many at once, retried, remembered
    Caller     the same for ordinary code, such as a training step; its event loop has a thread of its own
    Aside      a Caller that never raises and waits only so long, for opinions that work can do without

Every answer is written to the purse's ledger, and synced to disk, before anybody sees it: a process that is
killed loses at most the answers that were on their way. Answers are also kept in the cache folder, under
(endpoint, model, messages, parameters), so that another job with the same question pays nothing.

A request that fails raises an `EndpointError`, one per request, after its retries. Callers count these and
go on without that answer; nothing here ends a run.
"""

from toasterft.teachers.api.background import BackgroundRequests
from toasterft.teachers.api.budget import SpendLedger
from toasterft.teachers.api.caller import Caller
from toasterft.teachers.api.client import Endpoint
from toasterft.teachers.api.types import (
    MOST_IMAGE_TOKENS,
    Answer,
    EndpointError,
    EndpointRefused,
    Request,
    Service,
    SpendCapReached,
    api_key,
    given,
    with_price,
)

__all__ = [
    "MOST_IMAGE_TOKENS",
    "Answer",
    "BackgroundRequests",
    "Caller",
    "Endpoint",
    "EndpointError",
    "EndpointRefused",
    "Request",
    "Service",
    "SpendCapReached",
    "SpendLedger",
    "api_key",
    "given",
    "with_price",
]

"""One client for every OpenAI-compatible endpoint: teachers, judges and refiners, under a spend cap.

    Service              address, model and price
    Request, Reply       what is sent: text, images, settings; what comes back, with its tokens and dollars
    SpendLedger          what all processes of one job have spent, and how far they may go
    Endpoint             sends requests asynchronously: at most so many at once, retried, cached
    BackgroundRequests   the same for ordinary code: it never raises and waits only so long

Every reply is in the ledger, and synced to disk, before anything uses it: a process that is killed loses at most the
replies in flight. Replies are also kept in the cache folder, under (endpoint, model, messages, parameters), so that
another job with the same request pays nothing.

A request that fails after its retries raises one `EndpointError`. Whoever asked counts it and goes on without that
reply; nothing here ends a run.
"""

from toasterft.teachers.api.background import BackgroundRequests
from toasterft.teachers.api.budget import SpendLedger
from toasterft.teachers.api.client import Endpoint
from toasterft.teachers.api.types import (
    MOST_IMAGE_TOKENS,
    EndpointError,
    EndpointRefused,
    Reply,
    Request,
    Service,
    SpendCapReached,
    api_key,
    custom_service,
)

__all__ = [
    "MOST_IMAGE_TOKENS",
    "BackgroundRequests",
    "Endpoint",
    "EndpointError",
    "EndpointRefused",
    "Reply",
    "Request",
    "Service",
    "SpendCapReached",
    "SpendLedger",
    "api_key",
    "custom_service",
]

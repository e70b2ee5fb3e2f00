"""Bounds for a chat template, which is a program that came with a model.

transformers renders it in jinja's sandbox, which keeps it off files and code, not from running for years or filling
the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toasterft.errors import ModelError, ToasterError

# The longest that are published have 20,000 characters, and a conversation takes them milliseconds.
MOST_CHARACTERS = 200_000
MOST_SECONDS = 20.0
MOST_BYTES = 2 * 10**9
NEXT_STEP = "give another template: prompt.chat_template=path/to/template.jinja"


@contextmanager
def bounded() -> Iterator[None]:
    """Render a template for the first time, with seconds and memory limited.

    Raises:
        ModelError: it went beyond, or jinja cannot read it.
    """
    timer = threading.Timer(MOST_SECONDS, _interrupt, [threading.get_ident()])
    timer.daemon = True
    try:
        with _less_memory():
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
    except ToasterError:
        raise
    except TimeoutError:
        raise ModelError(
            f"the chat template takes more than {MOST_SECONDS:.0f} s for one question", next_step=NEXT_STEP
        ) from None
    except MemoryError:
        raise ModelError(
            f"the chat template takes more than {MOST_BYTES / 1e9:.0f} GB for one question",
            next_step=NEXT_STEP,
        ) from None
    except Exception as error:  # jinja compiles to Python: what a template can raise has no end
        reason = str(error).strip().split("\n")[0][:300]
        raise ModelError(
            "the chat template cannot be used", why=f"{type(error).__name__}: {reason}", next_step=NEXT_STEP
        ) from error


def require_length(text: str, what: str) -> str:
    """The text of a template, or what one wrote, as it is.

    Raises:
        ModelError: it is longer than any.
    """
    if len(text) > MOST_CHARACTERS:
        raise ModelError(f"{what} has {len(text):,} characters", next_step=NEXT_STEP)
    return text


def _interrupt(thread: int) -> None:
    """Raise TimeoutError in another thread, between two of its bytecodes."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeoutError))


@contextmanager
def _less_memory() -> Iterator[None]:
    """Let this process map `MOST_BYTES` more than it has, and then as much as before."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError, ValueError):  # no /proc, or a system without this limit
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if soft == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

"""`python -m toasterft`, what `accelerate launch -m toasterft` runs, and the command `toasterft`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress

from toasterft.runs import start_marks


def run() -> None:
    """Run the command line, and end the process without taking torch apart.

    That took 3 s of a rented machine (two cores, 2026-11-28); threads are waited for and exit handlers run as always.
    """
    start_marks.leave(sys.argv)
    from toasterft.cli import main, stdout_for_results

    try:
        main()
        code = 0
    except SystemExit as end:
        if "torch" not in sys.modules or not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    if "torch" not in sys.modules:
        return
    with stdout_for_results():
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):  # nobody listens any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()

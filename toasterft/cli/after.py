"""`--after CMD`: a command for the end of a run that was opened, however it ends."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from toasterft import terminal
from toasterft.errors import CapReached
from toasterft.runs import distributed, meter

# What ends the machine that somebody may be sitting at: `sudo poweroff`, `shutdown -h now`.
ENDS_THE_MACHINE = re.compile(r"\b(poweroff|shutdown|halt|reboot)\b")
COUNTDOWN_SECONDS = 10


@contextmanager
def afterwards(command: str | None) -> Iterator[None]:
    """Run the command at the end of the block, if a run was opened in it and kept, or found at its cap.

    A mistake on the command line opens none: the machine stays on for the next attempt.
    """
    before, due = len(meter.opened), False
    try:
        yield
    except CapReached:
        due = True
        raise
    finally:
        due |= any(folder.exists() for folder in meter.opened[before:])
        if command and due and not (ENDS_THE_MACHINE.search(command) and _stopped_by_a_key(command)):
            subprocess.run(command, shell=True, check=False, env=distributed.env_without_ranks())


def _stopped_by_a_key(command: str) -> bool:
    """Count down, where a terminal is there to press a key at."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    import select
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        for seconds in range(COUNTDOWN_SECONDS, 0, -1):
            print(f"\r{command} in {seconds:2} s; any key stops it ", end="", file=sys.stderr, flush=True)
            if select.select([sys.stdin], [], [], 1.0)[0]:
                sys.stdin.read(1)
                break
        else:
            return False
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        print(file=sys.stderr)
    terminal.line(f"{command}: stopped by a key, not run")
    return True

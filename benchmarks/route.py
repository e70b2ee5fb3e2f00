"""How far a reader walks to follow `toasterft dyme` to its loss: our files entered, and changes from one to another.

What is counted are calls of Python functions defined in `toasterft/` (comprehensions and lambdas included; module and
class bodies, which run at import, are not), in the order in which they happen, in the main thread. A change is a call
whose file is another than that of the call before it. `command` is the whole of `toasterft dyme … max_steps=1` on
the tests' tiny model, from parsing the words to the last line; `step` is the one call of `training_step` in it.

python benchmarks/route.py [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import common

from toasterft import cli

PACKAGE = str(Path(cli.__file__).parents[1])
WORDS = (
    "max_steps=1", "num_generations=4", "per_device_train_batch_size=4", "gradient_accumulation_steps=2",
    "max_completion_length=6", "eval_limit=2", "lora.r=4", "max_length=4000",
)  # fmt: skip
STEP = "training_step"


class Route:
    """Files of our calls, one after the other; those of the step apart."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.step: list[str] = []
        self._step: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "return" and frame is self._step:
            self._step = None
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or not code.co_flags & 2:
            return  # flag 2, CO_NEWLOCALS: a function's, not a module's or a class's
        if code.co_name == STEP and self._step is None and not self.step:
            self._step = frame
        self.command.append(code.co_filename)
        if self._step is not None:
            self.step.append(code.co_filename)


def figures(walked: list[str]) -> dict[str, Any]:
    """Files, changes (by the package that is entered) and calls, and the files that are returned to most often."""
    stays = [file for file, before in zip(walked, [None, *walked]) if file != before]
    places = [str(Path(file).relative_to(PACKAGE)) for file in stays]
    return {
        "files": len(set(walked)),
        "changes": len(stays) - 1,
        "calls": len(walked),
        "by_package": dict(Counter(place.partition("/")[0] for place in places).most_common()),
        "most_entered": dict(Counter(places).most_common(12)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", help="rows to train on; twelve drawn charts where it is left out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= {"TOASTERFT_CACHE": str(folder / "cache"), "TOASTERFT_RUNS": str(folder / "runs")}
        model, data = common.tiny_smolvlm(folder / "model"), given.data or drawn(folder / "charts")
        words = ["dyme", "--model", str(model), "--data", data, "--seed", "0", "--quiet", "--yes", *WORDS]
        route = Route()
        sys.argv = ["toasterft", *words]
        sys.setprofile(route)
        try:
            cli.main()
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.setprofile(None)
    print(json.dumps({"command": figures(route.command), "step": figures(route.step)}, indent=2))


def drawn(folder: Path) -> str:
    from toasterft.data import charts

    return str(charts.write_dataset(folder, n=12, seed=7, per_chart=1, size_px=(64, 64)))


if __name__ == "__main__":
    main()

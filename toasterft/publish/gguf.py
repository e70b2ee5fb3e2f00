"""llama.cpp's own tools: the converter to GGUF and the quantiser, found and run. Light.

A vision model becomes two files: the language model, and the vision tower with its projector (`mmproj-…`),
which stays in 16 bit. Arguments as of llama.cpp of November 2026 (convert_hf_to_gguf.py, tools/quantize/README.md).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from toasterft import paths
from toasterft.errors import MissingExtra, RunFailed, UserError

HOME = "TOASTERFT_LLAMA_CPP"
CONVERTER, QUANTISER = "convert_hf_to_gguf.py", "llama-quantize"
BUILD = Path("build", "bin")
# Last lines of a tool's output that are repeated when it fails.
LAST_LINES = 5


@dataclass(frozen=True)
class Tools:
    """How the tools are started: the first words of a command line each."""

    converter: tuple[str, ...]
    quantiser: tuple[str, ...] | None = None


def find(folder: Path | None, *, quantise: bool) -> Tools:
    """The tools in `folder` (a llama.cpp checkout), else in TOASTERFT_LLAMA_CPP's, else on PATH.

    Raises:
        MissingExtra: one is missing, with how to get it.
    """
    named = folder or (Path(os.environ[HOME]) if os.environ.get(HOME) else None)
    if named is not None and not named.is_dir():
        raise UserError(
            "no such folder", where=str(named), next_step="--llama-cpp names a llama.cpp checkout"
        )
    converter = _tool(CONVERTER, named)
    if converter is None:
        raise MissingExtra(
            f"llama.cpp's {CONVERTER} is not here; nothing was run",
            where=str(named) if named else "PATH",
            why="toasterft leaves the conversion to llama.cpp itself",
            next_step="git clone --depth 1 https://github.com/ggml-org/llama.cpp && pip install sentencepiece   "
            "then the same command with --llama-cpp llama.cpp",
        )
    quantiser = _tool(QUANTISER, named) if quantise else None
    if quantise and quantiser is None:
        raise MissingExtra(
            f"llama.cpp's {QUANTISER} is not here; nothing was run",
            where=str(named) if named else "PATH",
            next_step="brew install llama.cpp, or in a checkout: cmake -B build && cmake --build build "
            f"--target {QUANTISER}; without --quantize the 16-bit files need no build",
        )
    return Tools(converter, quantiser)


def convert(tools: Tools, model: Path, folder: Path, name: str, quantize: str | None) -> list[str]:
    """Write `<name>-<type>.gguf`, `mmproj-<name>.gguf` and, with `quantize`, the quantised one into `folder`.

    Args:
        model: folder of the merged model.
        quantize: a type of llama-quantize, such as Q4_K_M.

    Returns:
        The names of the files, the quantised one last.

    Raises:
        RunFailed: a tool failed, with the end of its output.
    """
    whole, projector = f"{name}-16bit.gguf", f"mmproj-{name}.gguf"
    common = [*tools.converter, str(model), "--outtype", "auto"]
    _convert_one([*common, "--outfile"], folder / whole)
    _convert_one([*common, "--mmproj", "--outfile"], folder / projector)
    files = [projector, whole]
    if quantize is not None:
        assert tools.quantiser is not None
        small = f"{name}-{quantize}.gguf"
        _run([*tools.quantiser, str(folder / whole), str(folder / small), quantize], folder)
        files.append(small)
    return files


def _tool(name: str, folder: Path | None) -> tuple[str, ...] | None:
    if folder is None:
        found = shutil.which(name)
        return (found,) if found else None
    for path in (folder / name, folder / BUILD / name):
        if path.is_file():
            return (sys.executable, str(path)) if name.endswith(".py") else (str(path),)
    return None


def _convert_one(command: list[str], file: Path) -> None:
    """Run the converter into an empty folder: some versions add a prefix of their own to the name."""
    scratch = file.parent / ".converting"
    scratch.mkdir()
    _run([*command, str(scratch / file.name)], scratch)
    written = list(scratch.glob("*.gguf"))
    if len(written) != 1:
        raise RunFailed(f"{CONVERTER} wrote {len(written)} files where one was expected", where=file.name)
    written[0].rename(file)
    scratch.rmdir()


def _run(command: list[str], where: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return
    output = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if any("No space left on device" in line for line in output):
        raise paths.disk_error(OSError(28, "No space left on device"), where)
    tool = Path(command[1] if command[0] == sys.executable else command[0]).name
    raise RunFailed(
        f"{tool} failed with exit code {done.returncode}; nothing was written",
        details=output[-LAST_LINES:],
        next_step="`--to merged` needs no llama.cpp; its folder can be converted by another version of it",
    )

"""The safetensors files of a model folder: which are loaded, what their headers say, and their identity.

transformers would also take pickles, or a file that an index names anywhere on the disk: what is here decides, and
whatever is loaded is what was hashed. No torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.errors import ModelError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SAFETENSORS_ONLY = "only safetensors are read: a pickle from a stranger runs code when it is loaded"
# The format's own limit (safetensors 0.8).
MOST_HEADER_BYTES = 100_000_000
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E5M2": 8, "F8_E4M3": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor as a header describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def header(file: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file; the file is exactly as long as they need.

    Raises:
        ModelError: it is no such file, or was cut.
    """
    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            start = handle.read(8)
            length = int.from_bytes(start, "little") if len(start) == 8 else MOST_HEADER_BYTES + 1
            if length > min(MOST_HEADER_BYTES, size - 8):
                raise ValueError(f"its header would take {length:,} bytes of {size:,}")
            rows = json.loads(handle.read(length))
        found = {name: _tensor(name, row) for name, row in rows.items() if name != "__metadata__"}
        held = sorted(tuple(row["data_offsets"]) for name, row in rows.items() if name in found)
        ends = [0, *(end for _, end in held)]
        if [begin for begin, _ in held] != ends[:-1] or ends[-1] != size - 8 - length:
            raise ValueError(f"its tensors take {ends[-1]:,} bytes, it holds {size - 8 - length:,}")
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(file)) from None
    except RecursionError:
        raise ModelError("not a safetensors file (its header is nested)", where=str(file)) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            "not a whole safetensors file",
            where=str(file),
            why=str(error),
            next_step="copy it anew",
        ) from None
    return found


def _tensor(name: str, row: Any) -> Tensor:
    shape, (begin, end) = row["shape"], row["data_offsets"]
    if not all(type(edge) is int and edge >= 0 for edge in (*shape, begin, end)):
        raise ValueError(f"the shape of {name!r} is {shape!r}")
    if row["dtype"] in BITS and 8 * (end - begin) != BITS[row["dtype"]] * math.prod(shape):
        raise ValueError(f"{name!r} has {end - begin:,} bytes for the shape {shape!r}")
    return Tensor(str(row["dtype"]), tuple(shape))


def files(folder: Path) -> list[Path]:
    """The files that the weights of a model folder are loaded from, in the order of their names.

    Raises:
        ModelError: there are none, or an index names others than those in the folder.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise _none(folder)
    return [folder / name for name in sorted(set(_index(folder).values()))]


def _none(folder: Path) -> ModelError:
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if pickles:
        why = f"its weights are in {', '.join(pickles[:3])}; {SAFETENSORS_ONLY}"
    elif others:
        why = f"there is neither {WEIGHTS_FILE} nor {INDEX_FILE}, only {', '.join(others[:3])}"
    else:
        why = "no *.safetensors in it"
    return ModelError(
        "this folder has a configuration but no weights",
        where=str(folder),
        why=why,
        next_step="save it with `save_pretrained`, which writes safetensors" if pickles else None,
    )


def _index(folder: Path) -> dict[str, str]:
    """Names of the tensors, and of the files they are in."""
    file = folder / INDEX_FILE
    whole = paths.read_json(file)
    found = whole.get("weight_map") if isinstance(whole, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise ModelError(
            "this index names no weights", where=str(file), why="weight_map is no table of names"
        )
    for name in sorted(set(found.values())):
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise ModelError(
                f"this index names {name!r}", where=str(file), why="weights lie beside it, as *.safetensors"
            )
        if not (folder / name).is_file():
            raise ModelError(
                f"{name} is missing", where=str(folder), why=f"{file.name} names it", next_step="copy it"
            )
    return found


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder, by its name.

    Raises:
        ModelError: a file is damaged, or holds other tensors than the index says.
    """
    found: dict[str, Tensor] = {}
    index = {} if (folder / WEIGHTS_FILE).is_file() or not (folder / INDEX_FILE).is_file() else _index(folder)
    for file in files(folder):
        own = header(file)
        expected = {name for name, place in index.items() if place == file.name} if index else set(own)
        if odd := sorted(expected ^ set(own)):
            raise ModelError(
                f"{file.name} and {INDEX_FILE} disagree about {len(odd)} tensors",
                where=str(folder),
                why=f"{odd[0]!r} is {'not in it' if odd[0] in expected else 'in it, and not where the index says'}",
                next_step="copy the folder anew",
            )
        found |= own
    return found


def fingerprint(weights: Iterable[Path]) -> str:
    """Hash of weights: every tensor's name and shape, and a sample of the bytes.

    Reading half a gigabyte at every start would be slow; the first and last 64 KiB of each file
    change with any training.

    Args:
        weights: the files that are loaded, in the order of their names.

    Raises:
        ModelError: a file cannot be read, or is no safetensors file.
    """
    digest = hashlib.sha256()
    for file in weights:
        header(file)
        with open(file, "rb") as handle:
            header_bytes = int.from_bytes(handle.read(8), "little")
            digest.update(json.dumps(json.loads(handle.read(header_bytes)), sort_keys=True).encode())
            digest.update(handle.read(65536))
            handle.seek(-min(65536, file.stat().st_size), os.SEEK_END)
            digest.update(handle.read())
    return digest.hexdigest()

"""Damaged folders: a generator of what a cut copy, an editor, a full disk or a stranger makes of a model, adapter or run."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEEP = "[" * 100_000 + "]" * 100_000
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**18,
    1e308,
    "",
    "x" * 5000,
    "../../etc/passwd",
    [],
    [[]],
    {},
    {"a": None},
    [None],
)
RAW = {
    "empty": b"", "null": b"null", "list": b"[]", "number": b"7", "text": b"hello", "binary": bytes(range(256)) * 9,
    "deep": DEEP.encode(), "nan": b'{"a": NaN}', "digits": b'{"a": ' + b"9" * 5000 + b"}", "bom": b"\xef\xbb\xbf{}",
    "surrogate": b'{"id": "\\ud800", "model_type": "\\udfff"}', "nul": b"\0" * 4096, "empty object": b"{}",
    "two": b"{}{}", "lines": b"\n\n\n",
}  # fmt: skip

Damage = tuple[str, Callable[[Path], None]]


def of_file(name: str, *, keys: bool = True) -> Iterator[Damage]:
    """Ways to damage one file of a folder; of a JSON object also each of its fields, nested ones too."""
    for word, data in RAW.items():
        yield f"{name} {word}", lambda folder, data=data: _write(folder / name, data)
    yield f"{name} cut", lambda folder: _write(folder / name, _half((folder / name).read_bytes()))
    yield f"{name} a folder", lambda folder: _make_folder(folder / name)
    yield f"{name} missing", lambda folder: (folder / name).unlink()
    if keys and name.endswith(".json"):
        yield from ((f"{name} field {n}", lambda folder, n=n: _field(folder / name, n)) for n in range(400))


def of_tensors(name: str) -> Iterator[Damage]:
    """Ways to damage a safetensors file."""

    def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
        def damage(folder: Path) -> None:
            data = (folder / name).read_bytes()
            (length,) = struct.unpack("<Q", data[:8])
            rows = json.loads(data[8 : 8 + length])
            found = change(rows)
            text = json.dumps(rows if found is None else found).encode()
            _write(folder / name, struct.pack("<Q", len(text)) + text + data[8 + length :])

        return damage

    def first(rows: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = next(row for key, row in rows.items() if key != "__metadata__")
        return found

    def renamed(rows: dict[str, Any]) -> None:
        key = next(key for key in rows if key != "__metadata__")
        rows["base_model.model.elsewhere.lora_A.weight"] = rows.pop(key)

    yield from of_file(name)
    yield f"{name} header length", lambda folder: _write(folder / name, struct.pack("<Q", 2**62) + b"{}")
    yield f"{name} longer", lambda folder: _write(folder / name, (folder / name).read_bytes() + b"more")
    yield f"{name} header a list", header(lambda rows: [1])
    yield (
        f"{name} header deep",
        lambda folder: _write(folder / name, struct.pack("<Q", len(DEEP)) + DEEP.encode()),
    )
    yield f"{name} no tensors", header(lambda rows: {})
    yield f"{name} shape", header(lambda rows: first(rows)["shape"].reverse())
    yield f"{name} shape negative", header(lambda rows: first(rows).update(shape=[-1, -8]))
    yield f"{name} shape huge", header(lambda rows: first(rows).update(shape=[10**9, 10**9]))
    yield f"{name} dtype", header(lambda rows: first(rows).update(dtype="I64"))
    yield f"{name} dtype unknown", header(lambda rows: first(rows).update(dtype="X7"))
    yield f"{name} offsets", header(lambda rows: first(rows).update(data_offsets=[0, 10**15]))
    yield f"{name} no offsets", header(lambda rows: first(rows).pop("data_offsets") and None)
    yield f"{name} another name", header(renamed)
    yield f"{name} not finite", lambda folder: _poison(folder / name)


def copies(source: Path, folder: Path, damages: list[Damage]) -> Iterator[tuple[str, Path]]:
    """A copy of `source` for each damage, which is removed again when the next one is made."""
    for word, damage in damages:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        damage(folder)
        yield word, folder
    shutil.rmtree(folder, ignore_errors=True)


def some(damages: Iterator[Damage], count: int | None, seed: int = 0) -> list[Damage]:
    """`count` of them by lot, or all."""
    found = list(damages)
    return found if count is None else random.Random(seed).sample(found, min(count, len(found)))


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _field(file: Path, number: int) -> None:
    """Another value in place of one of a JSON object's, all of them in turn as `number` grows."""
    whole = json.loads(file.read_bytes())
    places = list(_places(whole))
    lot = random.Random(number)
    holder, key = places[number % len(places)]
    holder[key] = lot.choice(WRONG)
    _write(file, json.dumps(whole).encode())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    rows = (
        value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    )
    for key, each in list(rows):
        yield value, key
        yield from _places(each)


def _poison(file: Path) -> None:
    import safetensors.torch

    tensors = safetensors.torch.load_file(file)
    name = next(iter(tensors))
    tensors[name] = tensors[name].clone().fill_(float("nan"))
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})

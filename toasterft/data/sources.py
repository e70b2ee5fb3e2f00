"""Where examples come from: JSONL, TRL conversational, LLaVA JSON, Parquet, and the hub.

`load` finds the data, reads rows, and turns each into an `Example`; images stay closed. Nothing is
ever fetched from a URL in a row: a data file from a stranger must not make this machine call out
(LLaMA-Factory's CVE-2025-61784 was that).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toasterft import catalog, places
from toasterft.data.example import Example, ImageRef
from toasterft.errors import DataError, did_you_mean

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}
# Which split a purpose reads where none is named, in order of preference.
DEFAULT_SPLITS = {"train": ("train",), "validate": ("validation", "test"), "evaluate": ("test", "validation")}
Purpose = Literal["train", "validate", "evaluate"]

QUESTION_KEYS = ("question", "query", "instruction")
ANSWER_KEYS = ("answer", "label", "answers", "output")
REASONING_KEYS = ("reasoning", "hint", "cot", "rationale", "think")
# Files a folder is searched for when it is not split into train/validation/test files.
MAIN_FILES = ("items", "data", "metadata", "dataset", "all")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Dataset:
    """Examples of one split, with the name and content hash that the ledger keeps."""

    name: str
    split: str | None
    examples: list[Example] = field(repr=False)
    sha256: str = ""
    task: str = "chart"

    def __len__(self) -> int:
        return len(self.examples)


def load(
    name: str,
    *,
    purpose: Purpose = "train",
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> Dataset:
    """The examples of one split of a data set.

    Args:
        name: a path, a set built here, a catalog name, or a hub id, looked up in that order.
        purpose: decides the split where `split` is None.
        limit: at most this many rows: the first ones, or a seeded choice when `seed` is given.

    Raises:
        DataError: with file and line, for the first few faults found.
    """
    where, splits = _open(name)
    chosen = _choose_split(name, list(splits), purpose, split)
    examples = list(splits[chosen]())
    if not examples:
        raise DataError("no rows", where=f"{name} ({chosen})" if chosen else name)
    if limit is not None and limit < len(examples):
        picked = (
            range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(examples)), limit))
        )
        examples = [examples[index] for index in picked]
    _check_images_exist(examples, name)
    return Dataset(
        name=_short(name),
        split=chosen or None,
        examples=examples,
        sha256=_content_hash(examples),
        task=_task(where),
    )


def has_split(name: str, purpose: Purpose) -> bool:
    """Whether the data names a split that suits the purpose."""
    _, splits = _open(name)
    return any(_canonical(key) in DEFAULT_SPLITS[purpose] for key in splits)


def on_this_machine(name: str) -> bool:
    """Whether `name` is a path or a set built here, so that its rows can be counted without a hub."""
    return _local(name) is not None


# --- finding ---------------------------------------------------------------------------------

Reader = Callable[[], Iterator[Example]]


def _local(name: str) -> Path | None:
    path = Path(name).expanduser()
    if path.exists():
        return path
    built = places.data_dir() / name
    return built if built.exists() and name == Path(name).name else None


def _open(name: str) -> tuple[Path | None, dict[str, Reader]]:
    """The folder the data lies in (None for the hub), and one reader per split ('' for unsplit)."""
    path = _local(name)
    if path is not None:
        return (path if path.is_dir() else path.parent), _open_path(path)
    row = catalog.datasets().get(name)
    if row is not None and row.hub_id is None:
        raise DataError(f"{name} is not on this machine", next_step=row.get)
    hub_id = row.hub_id if row is not None and row.hub_id else name
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        raise DataError(
            f"no such data{did_you_mean(name, list(catalog.datasets()))}",
            where=name,
            why="it is no file or folder here, no data set built here, no catalog name, and no hub id (owner/name)",
        )
    return None, _open_hub(hub_id)


def _open_path(path: Path) -> dict[str, Reader]:
    if path.is_file():
        return _by_row_split(path)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _open_arrow(path)
    files = {
        _canonical(file.stem): file for file in sorted(path.iterdir()) if file.suffix in (".jsonl", ".json")
    }
    named = {split: file for split, file in files.items() if split in SPLITS}
    if named:
        # A split with nothing in it (a few charts have no tenth) is no split.
        filled = {split: file for split, file in named.items() if file.stat().st_size} or named
        return {split: _reader(file) for split, file in filled.items()}
    for stem in (*MAIN_FILES, path.name):
        if stem in files:
            return _by_row_split(files[stem])
    jsonl = [file for file in files.values() if file.suffix == ".jsonl"]
    if len(jsonl) == 1:
        return _by_row_split(jsonl[0])
    if list(path.rglob("*.parquet")):
        return _open_parquet(path)
    classes = _class_folders(path)
    if classes:
        return classes
    raise DataError(
        "no data file found in this folder",
        where=str(path),
        why=f"looked for train/validation/test.jsonl, {', '.join(MAIN_FILES)}.jsonl, one single .jsonl, or *.parquet",
        next_step=f"name the file: {sorted(file.name for file in files.values())[:SHOWN_FAULTS]}"
        if files
        else None,
    )


def _class_folders(path: Path) -> dict[str, Reader]:
    """Image folders named by their label (as EmoSet), below split folders or without any."""
    splits = {_canonical(folder.name): folder for folder in sorted(path.iterdir()) if folder.is_dir()}
    named = {name: folder for name, folder in splits.items() if name in SPLITS}
    roots = named or {"": path}
    # The question names every class of every split, so that training and evaluation ask the same.
    labels = sorted(
        {folder.name for root in roots.values() for folder in root.iterdir() if _pictures(folder)}
    )
    if len(labels) < 2:
        return {}

    def reader(root: Path) -> Reader:
        return lambda: _labelled(root, labels)

    return {name: reader(root) for name, root in roots.items()}


def _labelled(root: Path, labels: list[str]) -> Iterator[Example]:
    question = f"Which of these is it: {', '.join(labels)}?"
    for label in labels:
        for picture in _pictures(root / label):
            name = f"{label}/{picture.name}"
            image = ImageRef(name=name, path=picture)
            yield Example(
                name, question, label, (image,), kind=label, where=str(picture), extra={"task": "class"}
            )


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _by_row_split(path: Path) -> dict[str, Reader]:
    """One file whose rows may each name their split."""
    rows = list(_rows(path))
    names = dict.fromkeys(str(row["split"]) for _, row in rows if row.get("split"))
    if not names:
        return {"": lambda: _examples(rows, path.parent)}

    def reader(name: str) -> Reader:
        return lambda: _examples([item for item in rows if item[1].get("split") == name], path.parent)

    return {name: reader(name) for name in names}


def _reader(path: Path) -> Reader:
    return lambda: _examples(list(_rows(path)), path.parent)


def _canonical(split: str) -> str:
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


def _choose_split(name: str, available: list[str], purpose: Purpose, asked: str | None) -> str:
    if asked is not None:
        for split in available:
            if asked == split or (split and _canonical(asked) == _canonical(split)):
                return split
        raise DataError(
            f"no split {asked!r}", where=name, why=f"it has: {', '.join(filter(None, available)) or 'none'}"
        )
    for wanted in DEFAULT_SPLITS[purpose]:
        for split in available:
            if _canonical(split) == wanted:
                return split
    if len(available) == 1:
        return available[0]
    raise DataError(
        f"no split to {purpose} on",
        where=name,
        why=f"it has: {', '.join(available)}",
        next_step="name one: split=…",
    )


# --- rows ------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of a .jsonl file, or of the array in a .json file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
    if path.suffix == ".json":
        try:
            array = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"not valid JSON ({error.msg})", where=f"{path}:{error.lineno}") from None
        if not isinstance(array, list):
            raise DataError("expected a JSON array of rows", where=str(path))
        for number, row in enumerate(array):
            yield f"{path.name}[{number}]", _object(row, f"{path}[{number}]")
        return
    faults: list[str] = []
    rows: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((f"{path.name}:{number}", _object(json.loads(line), f"{path}:{number}")))
        except json.JSONDecodeError as error:
            faults.append(f"{path}:{number}: not valid JSON ({error.msg} at column {error.colno})")
    if faults:
        raise _too_many(faults, str(path), "broken line")
    yield from rows


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"a row must be an object, this is {type(row).__name__}", where=where)
    return row


def _examples(rows: Iterable[tuple[str, dict[str, Any]]], folder: Path) -> Iterator[Example]:
    faults: list[str] = []
    found: list[Example] = []
    for where, row in rows:
        try:
            found.extend(_from_row(row, where, folder))
        except DataError as error:
            faults.append(f"{where}: {error.what}")
    if faults:
        raise _too_many(faults, str(folder), "bad row")
    yield from found


def _too_many(faults: list[str], where: str, noun: str) -> DataError:
    count = f"1 {noun}" if len(faults) == 1 else f"{len(faults)} {noun}s"
    more = [f"… and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
    return DataError(
        f"{count}; nothing was run",
        where=where,
        details=faults[:SHOWN_FAULTS] + more,
        next_step="mend or remove them",
    )


def _from_row(row: dict[str, Any], where: str, folder: Path) -> Iterator[Example]:
    """One example per question: a conversation of several turns becomes several examples."""
    images = _images(row, where, folder)
    identity = str(row.get("id") or row.get("question_id") or where)
    turns = list(_turns(row))
    for number, (question, answer, reasoning) in enumerate(turns):
        if not question.strip():
            raise DataError("empty question")
        if not answer.strip():
            raise DataError("empty answer")
        yield Example(
            id=identity if len(turns) == 1 else f"{identity}#{number}",
            question=question.strip(),
            answer=answer.strip(),
            images=images,
            reasoning=reasoning.strip() if reasoning and reasoning.strip() else None,
            kind=str(row["kind"]) if row.get("kind") else _human(row),
            facts=row.get("facts") if row.get("facts") is not None else row.get("table"),
            where=where,
        )


def _human(row: dict[str, Any]) -> str | None:
    # The hub's ChartQA says who wrote the question with a 0/1 flag.
    flag = row.get("human_or_machine")
    return None if flag is None else ("human" if flag in (0, "0", "human") else "augmented")


def _turns(row: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """(question, answer, reasoning) of a flat row, a TRL conversation or a LLaVA conversation."""
    conversation = row.get("messages") or row.get("conversations")
    if conversation is None and isinstance(row.get("prompt"), list):
        conversation = [*row["prompt"], *_as_messages(row.get("completion"))]
    if conversation is not None:
        question: str | None = None
        for message in conversation:
            role = str(message.get("role") or message.get("from"))
            text = _text(message.get("content", message.get("value")))
            if role in ("user", "human"):
                question = text
            elif role in ("assistant", "gpt") and question is not None:
                reasoning, answer = _split_reasoning(text)
                yield question, answer, reasoning
                question = None
        return
    asked = _first(row, QUESTION_KEYS) or (row["prompt"] if isinstance(row.get("prompt"), str) else None)
    given = _first(row, ANSWER_KEYS)
    if asked is None:
        raise DataError(f"no question (looked for {', '.join(QUESTION_KEYS)}, messages, conversations)")
    if given is None:
        raise DataError(f"no answer (looked for {', '.join(ANSWER_KEYS)})")
    yield asked, given, _first(row, REASONING_KEYS)


def _as_messages(completion: Any) -> list[dict[str, Any]]:
    if isinstance(completion, str):
        return [{"role": "assistant", "content": completion}]
    return list(completion or [])


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = row.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is not None:
            return str(value)
    return None


def _text(content: Any) -> str:
    """The text of a message; image placeholders are dropped, the model's template puts its own."""
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if part.get("type") == "text")
    return str(content or "").replace("<image>", "").strip()


def _split_reasoning(text: str) -> tuple[str | None, str]:
    match = re.fullmatch(r"\s*<think>(.*?)</think>\s*(?:<answer>(.*?)</answer>|(.*?))\s*", text, re.DOTALL)
    if match is None:
        bare = re.fullmatch(r"\s*<answer>(.*?)</answer>\s*", text, re.DOTALL)
        return None, bare.group(1) if bare else text
    return match.group(1), match.group(2) if match.group(2) is not None else match.group(3)


def _images(row: dict[str, Any], where: str, folder: Path) -> tuple[ImageRef, ...]:
    value = row.get("images") if row.get("images") is not None else row.get("image")
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_image(item, where, folder) for item in items)


def _image(item: Any, where: str, folder: Path) -> ImageRef:
    if callable(item):
        return ImageRef(name=where, read=item)
    if isinstance(item, dict):
        data = item.get("bytes")
        if data:
            return ImageRef(name=str(item.get("path") or where), read=lambda: data)
        item = item.get("path")
    if not isinstance(item, str) or not item:
        raise DataError("the image is neither a path nor bytes")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", item):
        raise DataError(f"images are not fetched from URLs ({item[:60]}); download it and give a path")
    path = Path(item)
    return ImageRef(name=item, path=path if path.is_absolute() else folder / path)


# --- Parquet and the hub ---------------------------------------------------------------------


def _open_hub(hub_id: str) -> dict[str, Reader]:
    import datasets

    try:
        found = datasets.load_dataset(hub_id)
    except Exception as error:  # the library raises a dozen types for "cannot get it"
        raise DataError(
            "this data set cannot be fetched from the hub",
            where=hub_id,
            why=str(error).strip().split("\n")[0],
            next_step="check the name, the network and `hf auth login`, or give a local folder",
        ) from None
    return _arrow_readers(found)


def _open_parquet(folder: Path) -> dict[str, Reader]:
    import datasets

    groups: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        groups.setdefault(_canonical(file.stem.split("-")[0]), []).append(str(file))
    return _arrow_readers(datasets.load_dataset("parquet", data_files=groups))


def _open_arrow(folder: Path) -> dict[str, Reader]:
    import datasets

    return _arrow_readers(datasets.load_from_disk(str(folder)))


def _arrow_readers(found: Any) -> dict[str, Reader]:
    tables = found if isinstance(found, dict) else {"": found}

    def reader(split: str) -> Reader:
        return lambda: _arrow_examples(tables[split], split)

    return {split: reader(split) for split in tables}


def _arrow_examples(table: Any, split: str) -> Iterator[Example]:
    import datasets

    for column, feature in list(table.features.items()):
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image):
            # Encoded bytes instead of decoded pictures: they are hashed, and decoded only when needed.
            undecoded = datasets.Image(decode=False)
            table = table.cast_column(column, undecoded if inner is feature else datasets.List(undecoded))
    plain = table.remove_columns([name for name in ("image", "images") if name in table.column_names])

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, row in enumerate(plain):
            yield f"{split or 'row'}[{number}]", {**row, "images": _arrow_images(table, number)}

    yield from _examples(rows(), Path())


def _arrow_images(table: Any, number: int) -> list[Callable[[], bytes]]:
    """One reader per picture of a row: the bytes stay in the table until the picture is opened."""
    column = next((name for name in ("images", "image") if name in table.column_names), None)
    if column is None:
        return []
    if column == "image":
        return [lambda: _arrow_bytes(table[number]["image"])]
    count = len(table[number]["images"] or [])

    def reader(place: int) -> Callable[[], bytes]:
        return lambda: _arrow_bytes(table[number]["images"][place])

    return [reader(place) for place in range(count)]


def _arrow_bytes(value: dict[str, Any]) -> bytes:
    data: bytes | None = value.get("bytes")
    return data if data else Path(value["path"]).read_bytes()


# --- checks ----------------------------------------------------------------------------------


def _check_images_exist(examples: list[Example], name: str) -> None:
    missing = [
        f"{example.where}: {image.name} does not exist"
        for example in examples
        for image in example.images
        if image.path is not None and not image.path.is_file()
    ]
    if missing:
        raise _too_many(missing, name, "missing image")


def _content_hash(examples: list[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        parts = [
            example.id,
            example.question,
            example.answer,
            example.reasoning or "",
            *(i.name for i in example.images),
        ]
        digest.update(json.dumps(parts, ensure_ascii=False).encode())
    return digest.hexdigest()


def _task(where: Path | None) -> str:
    card = places.read_json(where / "card.json") if where is not None else None
    return str(card.get("task", "chart")) if isinstance(card, dict) else "chart"


def _short(name: str) -> str:
    return Path(name).stem if Path(name).suffix in (".jsonl", ".json") else Path(name).name

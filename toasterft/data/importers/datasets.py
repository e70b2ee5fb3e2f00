"""What toasterft makes of a row of each public data set: one small function per layout, in a table.

Layouts as published: ChartQA github.com/vis-nlp/ChartQA and HuggingFaceM4/ChartQA; SLAKE BoKelvin/SLAKE;
Geo170K Luckyjhg/Geo170K (G-LLaVA); MathVerse AI4Math/MathVerse; A-OKVQA github.com/allenai/aokvqa and
HuggingFaceM4/A-OKVQA; GSM8K openai/gsm8k; EmoSet vcc.tech/EmoSet.
"""

from __future__ import annotations

import csv
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toasterft.data.example import Example, ImageRef
from toasterft.data.importers.discover import Row, Table
from toasterft.data.parse_rows import ANSWER_KEYS, QUESTION_KEYS, from_row
from toasterft.data.sources import class_example
from toasterft.errors import DataError

# `A: 34°`, `B.12`, `(C) x`: one option a line, as Geo170K and MathVerse write them behind "Choices:".
_OPTION = re.compile(r"^\s*\(?([A-H])\s*[).:]\s*(.*\S)\s*$", re.MULTILINE)
_ORDER_TO_REASON = re.compile(r"^.*?\bQuestion\s*:\s*", re.DOTALL)
_LAST_ANSWER = re.compile(r"^(?P<reasoning>.*?)\s*\bAnswer\s*:\s*(?P<answer>[^\n]+?)\s*$", re.DOTALL)


class LeftOut(Exception):
    """A row that is left out on purpose; the message is the reason that is counted."""


@dataclass(frozen=True)
class At:
    """Where a row stands.

    Attributes:
        where: file and line, for messages and as its id.
        images: the folder of `--images`.
    """

    where: str
    table: Table
    images: Path | None = None

    def picture(self, row: Row, *names: str) -> tuple[ImageRef, ...]:
        """The row's own pictures (parquet), else the first file of these names."""
        if row.get("images") and all(map(callable, row["images"])):
            return tuple(ImageRef(name=self.where, read=read) for read in row["images"])
        return (self.table.picture(*names, images=self.images),)


Read = Callable[[Row, At], Iterator[Example]]


@dataclass(frozen=True)
class Adapter:
    """One layout.

    Attributes:
        columns: what a row must have to be of this layout; `fits` looks closer.
        task: of the card; one of `example.TASKS`.
        licence: as the set's page states it.
    """

    name: str
    about: str
    task: str
    columns: frozenset[str]
    read: Read
    fits: Callable[[Row], bool] = lambda row: True
    licence: str | None = None

    def takes(self, table: Table) -> bool:
        return self.columns <= table.first.keys() and self.fits(table.first)


# --- charts ----------------------------------------------------------------------------------


def _chartqa(row: Row, at: At) -> Iterator[Example]:
    name, folder = str(row["imgname"]), at.table.folder
    kind = next((kind for kind in ("human", "augmented") if kind in at.table.name), None)
    cells = folder / "tables" / f"{Path(name).stem}.csv"
    yield Example(
        id=at.where,
        question=str(row["query"]).strip(),
        answer=str(row["label"]).strip(),
        images=at.picture(row, f"png/{name}", name),
        kind=kind,
        facts=_table_text(cells) if cells.is_file() else None,
        where=at.where,
    )


def _table_text(path: Path) -> str | None:
    """A table as ChartQA's text form, which `charts.tables` reads: `Entity: A | B & Series: 1 | 2`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if len(rows) < 2:
        return None
    width = len(rows[0])
    columns = [
        [re.sub(r"\s*[|&]\s*", " / ", row[place]) if place < len(row) else "nan" for row in rows]
        for place in range(width)
    ]
    if columns[0][0].strip().lower() in ("", "characteristic"):
        columns[0][0] = "Entity"
    return " & ".join(f"{name}: {' | '.join(cells)}" for name, *cells in columns)


# --- medicine --------------------------------------------------------------------------------


def _slake(row: Row, at: At) -> Iterator[Example]:
    if str(row.get("q_lang", "en")) != "en":
        raise LeftOut("not in English")
    yield Example(
        id=f"slake-{row['qid']}" if "qid" in row else at.where,
        question=str(row["question"]).strip(),
        answer=str(row["answer"]).strip(),
        images=at.picture(row, f"imgs/{row['img_name']}", str(row["img_name"])),
        kind=str(row.get("answer_type", "")).lower() or None,
        where=at.where,
        extra={"task": "yesno-open"},
    )


# --- choices and mathematics -----------------------------------------------------------------


def _with_options(question: str, options: list[str]) -> str:
    lines = [f"{letter}: {option}" for letter, option in zip(string.ascii_uppercase, options)]
    return "\n".join([question, "Choices:", *lines])


def _options(question: str) -> list[str]:
    """The options behind "Choices:" (MathVerse also "Choice:"), where they are lettered from A on."""
    listed = _OPTION.findall(re.split(r"\bChoices?\s*:", question)[-1]) if "Choice" in question else []
    right = [letter for letter, _ in listed] == list(string.ascii_uppercase[: len(listed)])
    return [option for _, option in listed] if right else []


def _maths(example: Example) -> Example:
    """A question with options is scored by its options, another by its number."""
    options = _options(example.question)
    extra = {"task": "choice", "choices": options} if options else {"task": "math"}
    return replace(example, extra=extra)


def _aokvqa(row: Row, at: At) -> Iterator[Example]:
    options = [str(option) for option in row["choices"]]
    if row.get("correct_choice_idx") is None:
        raise LeftOut("no answer published")
    place = int(row["correct_choice_idx"])
    if not 0 <= place < len(options):
        raise DataError(f"option {place} of {len(options)} is none")
    number = f"{int(row['image_id']):012}.jpg" if "image_id" in row else ""
    split = row.get("split", "train")
    yield Example(
        id=str(row.get("question_id") or at.where),
        question=_with_options(str(row["question"]).strip(), options),
        answer=options[place],
        images=at.picture(
            row, *(f"{folder}{number}" for folder in (f"{split}2017/", f"coco/{split}2017/", ""))
        ),
        reasoning=str(row["rationales"][0]).strip() if row.get("rationales") else None,
        where=at.where,
        extra={"task": "choice", "choices": options},
    )


def _geo170k(row: Row, at: At) -> Iterator[Example]:
    said = {str(turn.get("from")): str(turn.get("value") or "") for turn in row["conversations"]}
    asked = said.get("human", "").replace("<image>", "").strip()
    found = _LAST_ANSWER.match(said.get("gpt", ""))
    if found is None:
        raise DataError("the reply does not end in `Answer: …`")
    yield _maths(
        Example(
            id=str(row.get("id") or at.where),
            question=_ORDER_TO_REASON.sub("", asked, count=1),
            answer=found["answer"].rstrip("."),
            images=at.picture(row, str(row["image"])),
            reasoning=found["reasoning"].strip() or None,
            where=at.where,
        )
    )


def _is_geo170k(row: Row) -> bool:
    turns = [str(turn.get("value")) for turn in row["conversations"] if isinstance(turn, dict)]
    return len(turns) == 2 and "Choices:" in turns[0] and bool(_LAST_ANSWER.match(turns[1]))


def _mathverse(row: Row, at: At) -> Iterator[Example]:
    # Where the question is part of the picture ("Vision Only") only the instruction is left.
    question = str(row.get("question") or row.get("query_wo") or "").strip()
    if not str(row["answer"]).strip():
        raise DataError("empty answer")
    yield _maths(
        Example(
            id=str(row.get("sample_index") or at.where),
            question=question or "Answer the question shown in the image.",
            answer=str(row["answer"]).strip(),
            images=at.picture(row, str(row.get("image") or "")),
            kind=str(row["problem_version"]),
            where=at.where,
        )
    )


def _gsm8k(row: Row, at: At) -> Iterator[Example]:
    reasoning, _, answer = str(row["answer"]).partition("####")
    # <<48/2=24>> is for a calculator; the sum stands beside it in words.
    yield Example(
        id=at.where,
        question=str(row["question"]).strip(),
        answer=answer.strip(),
        reasoning=re.sub(r"<<[^<>]*>>", "", reasoning).strip() or None,
        where=at.where,
        extra={"task": "math"},
    )


# --- classes ---------------------------------------------------------------------------------


def _emoset(row: Row, at: At) -> Iterator[Example]:
    label = str(row["0"])
    pictures = at.table.root / "image"
    labels = sorted(folder.name for folder in pictures.iterdir() if folder.is_dir())
    if label not in labels:
        raise DataError(f"no folder image/{label}")
    (image,) = at.picture(row, str(row["1"]))
    yield class_example(str(row["1"]), image, label, labels, at.where)


# --- what toasterft reads anyway -------------------------------------------------------------


def _as_it_is(row: Row, at: At) -> Iterator[Example]:
    """Flat rows, TRL and LLaVA conversations; pictures may lie in a folder of their own."""

    def found(item: Any) -> Any:
        if isinstance(item, dict) and not item.get("bytes"):
            item = item.get("path")
        return str(at.table.picture(item, images=at.images).path) if isinstance(item, str) and item else item

    row = dict(row)
    for column in ("image", "images"):
        value = row.pop(column, None)
        if value:  # an empty cell of a CSV file is no picture
            row[column] = [found(one) for one in value] if isinstance(value, list) else found(value)
    yield from from_row(row, at.where, at.table.folder)


def of_columns(columns: Mapping[str, str]) -> Adapter:
    """Rows whose columns are named by hand: role (`question`, `answer`, `image` …) to column."""

    def read(row: Row, at: At) -> Iterator[Example]:
        for role, column in columns.items():
            if row.get(column) in (None, "") and role in ("question", "answer"):
                raise DataError(f"no {role} in column {column!r}")
        own = {name: value for name, value in row.items() if name == "images" or name in ("kind", "split")}
        given = {role: row[column] for role, column in columns.items() if row.get(column) not in (None, "")}
        if isinstance(given.get("image"), list):
            given["images"] = given.pop("image")
        yield from _as_it_is({**own, **given}, at)

    return Adapter("columns", "columns named by hand", "chart", frozenset(columns.values()), read)


def _is_flat(row: Row) -> bool:
    return any(key in row for key in QUESTION_KEYS) and any(key in row for key in ANSWER_KEYS)


def _is_gsm8k(row: Row) -> bool:
    return "####" in str(row["answer"])


def _is_emoset(row: Row) -> bool:
    return str(row["1"]).startswith("image/")


def _columns(*names: str) -> frozenset[str]:
    return frozenset(names)


# The first that takes a row reads its table: those that ask for more come first.
ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        Adapter("chartqa", "ChartQA, its official folders: {train,val,test}/{png,tables}, *_human.json", "chart",
                _columns("imgname", "query", "label"), _chartqa, licence="GPL-3.0"),
        Adapter("chartqa-hub", "HuggingFaceM4/ChartQA", "chart",
                _columns("query", "label", "human_or_machine"), _as_it_is, licence="GPL-3.0"),
        Adapter("slake", "SLAKE, its English questions: train.json, imgs/", "yesno-open",
                _columns("img_name", "question", "answer"), _slake, licence="CC-BY-4.0"),
        Adapter("mathverse", "MathVerse: testmini.json, images/; or AI4Math/MathVerse", "math",
                _columns("problem_version", "question_type", "answer"), _mathverse, licence="MIT"),
        Adapter("a-okvqa", "A-OKVQA: aokvqa_v1p0_*.json and COCO 2017; or HuggingFaceM4/A-OKVQA", "choice",
                _columns("question", "choices", "correct_choice_idx"), _aokvqa, licence="Apache-2.0"),
        Adapter("geo170k", "Geo170K: qa_tuning.json, images/", "math",
                _columns("image", "conversations"), _geo170k, _is_geo170k),
        Adapter("gsm8k", "GSM8K, rows without an image: train.jsonl; or openai/gsm8k", "math",
                _columns("question", "answer"), _gsm8k, _is_gsm8k, licence="MIT"),
        Adapter("emoset", "EmoSet-118K: train.json, image/<label>/", "class",
                _columns("0", "1"), _emoset, _is_emoset),
        Adapter("llava", "LLaVA JSON: image, conversations", "chart", _columns("conversations"), _as_it_is),
        Adapter("trl", "TRL conversations: images, messages", "chart", _columns("messages"), _as_it_is),
        Adapter("trl-prompt", "TRL conversations: images, prompt, completion", "chart",
                _columns("prompt", "completion"), _as_it_is),
        Adapter("rows", "JSON, JSONL, CSV or parquet with image, question, answer", "chart",
                _columns(), _as_it_is, _is_flat),
    )
}  # fmt: skip

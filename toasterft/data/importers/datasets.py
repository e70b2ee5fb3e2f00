"""Adapters of public data sets, as a table: one small function per layout turns a row into examples.

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

from toasterft.data.class_folders import class_example
from toasterft.data.example import Example, ImageRef
from toasterft.data.importers.discover import Row, Table
from toasterft.data.layout.row import has_answer, has_question
from toasterft.data.parse_rows import parse_row
from toasterft.data.pictures import PictureFinder
from toasterft.data.reading import Reading
from toasterft.errors import DataError

# `A: 34°`, `B.12`, `(C) x`: one option a line, as Geo170K and MathVerse write them behind "Choices:".
_OPTION = re.compile(r"^\s*\(?([A-H])\s*[).:]\s*(.*\S)\s*$", re.MULTILINE)
# What stands before the question: `Please reason step by step. Question: In the figure …`.
_ORDER_TO_REASON = re.compile(r"^.*?\bQuestion\s*:\s*", re.DOTALL)
# A solution and its last line: `… so AB = 5.\nAnswer: 5`.
_LAST_ANSWER = re.compile(r"^(?P<reasoning>.*?)\s*\bAnswer\s*:\s*(?P<answer>[^\n]+?)\s*$", re.DOTALL)


class LeftOut(Exception):
    """A row that is left out on purpose; the message is the reason that is counted."""


@dataclass(frozen=True)
class RowContext:
    """Where a row stands, and what its example needs of its surroundings.

    Attributes:
        where: file and line, for messages and as its id.
        finder: finds the pictures that rows name.
        reading: where columns that nothing reads are counted.
    """

    where: str
    table: Table
    finder: PictureFinder
    reading: Reading | None = None

    def picture(self, row: Row, *names: str) -> tuple[ImageRef, ...]:
        """The row's own pictures (parquet), else the first file of these names."""
        if row.get("images") and all(map(callable, row["images"])):
            return tuple(ImageRef(name=self.where, read=read) for read in row["images"])
        return (self.named(*names),)

    def named(self, *names: str) -> ImageRef:
        """The first of these files that there is."""
        found = self.finder.find(*names, beside=self.table.folder)
        if found is None:
            raise DataError(f"no picture {names[0]}")
        return found

    def example(self, question: Any, answer: Any, *, id: Any = None, **more: Any) -> Example:
        """An example of this row; its place is its id where the row has none."""
        texts = str(question).strip(), str(answer).strip()
        return Example(str(id or self.where), *texts, where=self.where, **more)


Read = Callable[[Row, RowContext], Iterator[Example]]


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
    columns: tuple[str, ...]
    read: Read
    fits: Callable[[Row], bool] = lambda row: True
    licence: str | None = None

    def takes(self, table: Table) -> bool:
        return set(self.columns) <= table.first.keys() and self.fits(table.first)


# --- charts ----------------------------------------------------------------------------------


def _chartqa(row: Row, context: RowContext) -> Iterator[Example]:
    name, table = str(row["imgname"]), context.table
    cells = table.folder / "tables" / f"{Path(name).stem}.csv"
    yield context.example(
        row["query"],
        row["label"],
        images=context.picture(row, f"png/{name}", name),
        kind=next((kind for kind in ("human", "augmented") if kind in table.name), None),
        facts=_table_text(cells) if cells.is_file() else None,
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


def _slake(row: Row, context: RowContext) -> Iterator[Example]:
    if str(row.get("q_lang", "en")) != "en":
        raise LeftOut("not in English")
    yield context.example(
        row["question"],
        row["answer"],
        id=f"slake-{row['qid']}" if "qid" in row else None,
        images=context.picture(row, f"imgs/{row['img_name']}", str(row["img_name"])),
        kind=str(row.get("answer_type", "")).lower() or None,
        extra={"task": "yesno-open"},
    )


# --- choices and mathematics -----------------------------------------------------------------


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


def _aokvqa(row: Row, context: RowContext) -> Iterator[Example]:
    options = [str(option) for option in row["choices"]]
    if row.get("correct_choice_idx") is None:
        raise LeftOut("no answer published")
    place = int(row["correct_choice_idx"])
    if not 0 <= place < len(options):
        raise DataError(f"option {place} of {len(options)} is none")
    number = f"{int(row['image_id']):012}.jpg" if "image_id" in row else ""
    split = row.get("split", "train")
    lines = [f"{letter}: {option}" for letter, option in zip(string.ascii_uppercase, options)]
    yield context.example(
        "\n".join([str(row["question"]).strip(), "Choices:", *lines]),
        options[place],
        id=row.get("question_id"),
        images=context.picture(
            row, *(f"{folder}{number}" for folder in (f"{split}2017/", f"coco/{split}2017/", ""))
        ),
        reasoning=str(row["rationales"][0]).strip() if row.get("rationales") else None,
        extra={"task": "choice", "choices": options},
    )


def _geo170k(row: Row, context: RowContext) -> Iterator[Example]:
    turns = {str(turn.get("from")): str(turn.get("value") or "") for turn in row["conversations"]}
    question = turns.get("human", "").replace("<image>", "").strip()
    found = _LAST_ANSWER.match(turns.get("gpt", ""))
    if found is None:
        raise DataError("the reply does not end in `Answer: …`")
    yield _maths(
        context.example(
            _ORDER_TO_REASON.sub("", question, count=1),
            found["answer"].rstrip("."),
            id=row.get("id"),
            images=context.picture(row, str(row["image"])),
            reasoning=found["reasoning"].strip() or None,
        )
    )


def _is_geo170k(row: Row) -> bool:
    turns = [str(turn.get("value")) for turn in row["conversations"] if isinstance(turn, dict)]
    return len(turns) == 2 and "Choices:" in turns[0] and bool(_LAST_ANSWER.match(turns[1]))


def _mathverse(row: Row, context: RowContext) -> Iterator[Example]:
    # Where the question is part of the picture ("Vision Only") only the instruction is left.
    question = str(row.get("question") or row.get("query_wo") or "").strip()
    if not str(row["answer"]).strip():
        raise DataError("empty answer")
    yield _maths(
        context.example(
            question or "Answer the question shown in the image.",
            row["answer"],
            id=row.get("sample_index"),
            images=context.picture(row, str(row.get("image") or "")),
            kind=str(row["problem_version"]),
        )
    )


def _gsm8k(row: Row, context: RowContext) -> Iterator[Example]:
    reasoning, _, answer = str(row["answer"]).partition("####")
    # <<48/2=24>> is for a calculator; the sum stands beside it in words.
    yield context.example(
        row["question"],
        answer,
        reasoning=re.sub(r"<<[^<>]*>>", "", reasoning).strip() or None,
        extra={"task": "math"},
    )


# --- classes ---------------------------------------------------------------------------------


def _emoset(row: Row, context: RowContext) -> Iterator[Example]:
    label = str(row["0"])
    pictures = context.table.root / "image"
    labels = sorted(folder.name for folder in pictures.iterdir() if folder.is_dir())
    if label not in labels:
        raise DataError(f"no folder image/{label}")
    (image,) = context.picture(row, str(row["1"]))
    yield class_example(str(row["1"]), image, label, labels, context.where)


# --- what toasterft reads anyway -------------------------------------------------------------


def _as_it_is(row: Row, context: RowContext) -> Iterator[Example]:
    """Flat rows, TRL and LLaVA conversations; pictures may lie in a folder of their own."""
    yield from parse_row(row, context.where, context.table.folder, context.named, context.reading)


def of_columns(columns: Mapping[str, str]) -> Adapter:
    """Rows whose columns are named by hand: role (`question`, `answer`, `image` …) to column."""

    def read(row: Row, context: RowContext) -> Iterator[Example]:
        for role, column in columns.items():
            if row.get(column) in (None, "") and role in ("question", "answer"):
                raise DataError(f"no {role} in column {column!r}")
        own = {name: value for name, value in row.items() if name == "images" or name in ("kind", "split")}
        given = {role: row[column] for role, column in columns.items() if row.get(column) not in (None, "")}
        if isinstance(given.get("image"), list):
            given["images"] = given.pop("image")
        yield from _as_it_is({**own, **given}, context)

    return Adapter("columns", "columns named by hand", "chart", tuple(columns.values()), read)


def _is_flat(row: Row) -> bool:
    return has_question(row) and has_answer(row)


# The first that takes a row reads its table: those that ask for more come first.
ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        Adapter("chartqa", "ChartQA, its official folders: {train,val,test}/{png,tables}, *_human.json", "chart",
                ("imgname", "query", "label"), _chartqa, licence="GPL-3.0"),
        Adapter("chartqa-hub", "HuggingFaceM4/ChartQA", "chart",
                ("query", "label", "human_or_machine"), _as_it_is, licence="GPL-3.0"),
        Adapter("slake", "SLAKE, its English questions: train.json, imgs/", "yesno-open",
                ("img_name", "question", "answer"), _slake, licence="CC-BY-4.0"),
        Adapter("mathverse", "MathVerse: testmini.json, images/; or AI4Math/MathVerse", "math",
                ("problem_version", "question_type", "answer"), _mathverse, licence="MIT"),
        Adapter("a-okvqa", "A-OKVQA: aokvqa_v1p0_*.json and COCO 2017; or HuggingFaceM4/A-OKVQA", "choice",
                ("question", "choices", "correct_choice_idx"), _aokvqa, licence="Apache-2.0"),
        Adapter("geo170k", "Geo170K: qa_tuning.json, images/", "math",
                ("image", "conversations"), _geo170k, _is_geo170k),
        Adapter("gsm8k", "GSM8K, rows without an image: train.jsonl; or openai/gsm8k", "math",
                ("question", "answer"), _gsm8k, lambda row: "####" in str(row["answer"]), licence="MIT"),
        Adapter("emoset", "EmoSet-118K: train.json, image/<label>/", "class",
                ("0", "1"), _emoset, lambda row: str(row["1"]).startswith("image/")),
        Adapter("llava", "LLaVA JSON: image, conversations", "chart", ("conversations",), _as_it_is),
        Adapter("trl", "TRL conversations: images, messages", "chart", ("messages",), _as_it_is),
        Adapter("trl-prompt", "TRL conversations: images, prompt, completion", "chart",
                ("prompt", "completion"), _as_it_is),
        Adapter("rows", "JSON, JSONL, CSV or parquet with image, question, answer, or turns", "chart",
                (), _as_it_is, _is_flat),
    )
}  # fmt: skip

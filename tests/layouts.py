"""One small data set, written in the layouts that public data sets have.

`LAYOUTS` maps a name to a `Layout`; its `write(folder)` writes `ROWS`, and what is read back must be those rows.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Item:
    """One row: `picture` is a name in images/, None for a row without one."""

    question: str
    answer: str
    picture: str | None = None
    options: tuple[str, ...] = ()
    reasoning: str = "It says so."

    @property
    def shown(self) -> str:
        """The question with its options, as a model reads it."""
        lines = [f"{letter}: {option}" for letter, option in zip("ABCDEFGH", self.options)]
        return "\n".join([self.question, "Choices:", *lines]) if lines else self.question

    @property
    def letter(self) -> str:
        return "ABCDEFGH"[self.index]

    @property
    def index(self) -> int:
        return self.options.index(self.answer)


ROWS = (
    Item("How tall is the first bar?", "12", "a.png", reasoning="The first bar ends at 12."),
    Item("Which colour is highest?", "blue", "a.png", ("red", "blue")),
    Item("In which year was it lowest?", "2010", "b.png"),
    Item("Is it above 5?", "yes", "b.png"),
    Item("What share has it?", "12.5%", "c.png"),
    Item("Who leads?", "北京", "c.png"),
    Item("What is 2 + 3?", "5", None, reasoning="2 + 3 = 5."),
    Item("How many are there?", "8", "a.png", ("2", "4", "8", "16")),
)
WITH_OPTIONS = tuple(item for item in ROWS if item.options)
WITH_PICTURES = tuple(item for item in ROWS if item.picture)


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out.

    Attributes:
        write: puts the data set into a folder.
        rows: those it holds.
        reasoning: whether it carries any.
        trains: whether a training reads it; else `data import` alone does.
    """

    write: Callable[[Path], None]
    rows: tuple[Item, ...] = ROWS
    reasoning: bool = True
    trains: bool = True


def png(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), {"a": "red", "b": "green", "c": "blue"}[name[0]]).save(file, "PNG")
    return file.getvalue()


def _text(name: str) -> str:
    return base64.b64encode(png(name)).decode()


def _pictures(folder: Path, below: str = "images") -> None:
    (folder / below).mkdir(parents=True, exist_ok=True)
    for name in "abc":
        (folder / below / f"{name}.png").write_bytes(png(name))


def _given(**columns: Any) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if value is not None}


def _path(item: Item) -> str | None:
    return f"images/{item.picture}" if item.picture else None


def _place(item: Item) -> str:
    return "<image>\n" if item.picture else ""


def _thought(item: Item) -> str:
    return f"<think>{item.reasoning}</think><answer>{item.answer}</answer>"


def plain(item: Item) -> dict[str, Any]:
    return _given(image=_path(item), question=item.shown, answer=item.answer, reasoning=item.reasoning)


Row = Callable[[Item], dict[str, Any]]


def jsonl(
    row: Row,
    *,
    name: str = "train.jsonl",
    encoding: str = "utf-8",
    rows: tuple[Item, ...] = ROWS,
    **more: Any,
) -> Layout:
    def write(folder: Path) -> None:
        _pictures(folder)
        text = "".join(json.dumps(row(item), ensure_ascii=False) + "\n" for item in rows)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode(encoding))

    return Layout(write, rows, **more)


def document(row: Row, shape: Callable[[list[Any]], Any], *, name: str = "train.json", **more: Any) -> Layout:
    def write(folder: Path) -> None:
        _pictures(folder)
        (folder / name).write_text(json.dumps(shape([row(item) for item in ROWS])))

    return Layout(write, **more)


def table(
    row: Row, *, delimiter: str = ",", encoding: str = "utf-8", rows: tuple[Item, ...] = ROWS, **more: Any
) -> Layout:
    """CSV or TSV: what only an import reads."""

    def write(folder: Path) -> None:
        _pictures(folder)
        cells = [row(item) for item in rows]
        columns = list(dict.fromkeys(name for each in cells for name in each))
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(cells)
        suffix = "tsv" if delimiter == "\t" else "csv"
        (folder / f"train.{suffix}").write_bytes(file.getvalue().encode(encoding))

    return Layout(write, rows, trains=False, **more)


def parquet(row: Row, *, rows: tuple[Item, ...] = ROWS, **more: Any) -> Layout:
    def write(folder: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        cells = [row(item) for item in rows]
        columns = dict.fromkeys(name for each in cells for name in each)
        whole = pyarrow.table({name: [each.get(name) for each in cells] for name in columns})
        pyarrow.parquet.write_table(whole, folder / "train-00000-of-00001.parquet")

    return Layout(write, rows, **more)


def _saved(folder: Path) -> None:
    import datasets

    rows = [{**plain(item), "image": _struct(item)} for item in ROWS]
    kinds = {name: datasets.Value("string") for name in ("question", "answer", "reasoning")}
    features = datasets.Features({"image": datasets.Image(), **kinds})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder))


def _struct(item: Item) -> dict[str, Any] | None:
    return {"bytes": png(item.picture), "path": None} if item.picture else None


# --- conversations


def llava(item: Item, user: str = "human", model: str = "gpt") -> dict[str, Any]:
    turns = [
        {"from": user, "value": _place(item) + item.shown},
        {"from": model, "value": _thought(item)},
    ]
    return _given(id="1", image=_path(item), conversations=turns)


def _messages(item: Item, picture: dict[str, Any] | None = None, answer: Any = None) -> list[dict[str, Any]]:
    parts = [picture or {"type": "image"}] if item.picture else []
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": item.shown}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": _thought(item)}] if answer is None else answer,
        },
    ]


def openai(item: Item) -> dict[str, Any]:
    address = f"data:image/png;base64,{_text(item.picture)}" if item.picture else ""
    return {"messages": _messages(item, {"type": "image_url", "image_url": {"url": address}}, _thought(item))}


def trl(item: Item) -> dict[str, Any]:
    return _given(images=[_path(item)] if item.picture else [], messages=_messages(item))


def prompt(item: Item) -> dict[str, Any]:
    asked, said = _messages(item)
    return _given(images=[_path(item)] if item.picture else [], prompt=[asked], completion=[said])


def parts_with_null(item: Item) -> dict[str, Any]:
    """As parquet gives parts back: every key in every part."""
    empty = {"type": None, "text": None, "image": None}
    messages = [
        {
            **message,
            "name": None,
            "tool_calls": None,
            "content": [{**empty, **part} for part in message["content"]],
        }
        for message in _messages(item)
    ]
    return _given(images=[_struct(item)] if item.picture else [], messages=messages)


def nested(item: Item) -> dict[str, Any]:
    path = {"type": "image", "image": {"path": _path(item)}}
    return {"messages": _messages(item, path), "tools": None, "source": "x"}


def lists(item: Item) -> dict[str, Any]:
    """Turns as one list for each key, as `datasets` keeps lists of objects."""
    rows = llava(item)["conversations"]
    turns = {key: [row[key] for row in rows] for key in ("from", "value")}
    return _given(image=_struct(item), conversations=turns)


def qwen(item: Item) -> dict[str, Any]:
    picture = f"Picture 1: <img>{_path(item)}</img>\n" if item.picture else ""
    return {
        "conversations": [
            {"from": "user", "value": picture + item.shown},
            {"from": "assistant", "value": _thought(item)},
        ]
    }


def tagged(item: Item) -> dict[str, Any]:
    answer = (
        f"<SUMMARY>I look.</SUMMARY>\n<CAPTION>A chart.</CAPTION>\n<REASONING>{item.reasoning}</REASONING>\n"
        f"<CONCLUSION>{item.answer}</CONCLUSION>"
    )
    turns = [{"from": "human", "value": item.shown}, {"from": "gpt", "value": answer}]
    return _given(image=_path(item), conversations=turns)


# --- flat rows


def alpaca(item: Item) -> dict[str, Any]:
    words = item.shown.split("\n", 1)
    return _given(
        instruction=words[0], input="".join(words[1:]), output=item.answer, system="", history=[],
        images=[_path(item)] if item.picture else [], reasoning_content=item.reasoning,
    )  # fmt: skip


def vqa(item: Item) -> dict[str, Any]:
    people = [{"answer": item.answer, "answer_confidence": "yes", "answer_id": n} for n in range(3)]
    return _given(
        question_id=7, image=_path(item), question=item.shown, question_type="what", answer_type="other",
        multiple_choice_answer=item.answer, answers=people,
    )  # fmt: skip


def science(item: Item) -> dict[str, Any]:
    return _given(
        image=_struct(item), question=item.question, choices=list(item.options), answer=item.index, hint="",
        lecture="", solution=item.reasoning, task="closed choice", grade="grade2", subject="natural science",
    )  # fmt: skip


def mmmu(item: Item) -> dict[str, Any]:
    return _given(
        id="1", question=f"<image 1> {item.question}", options=str(list(item.options)), answer=item.letter,
        explanation=item.reasoning, image_1=_struct(item), image_2=None, question_type="multiple-choice",
    )  # fmt: skip


def mmbench(item: Item) -> dict[str, Any]:
    letters = dict(zip("ABCD", item.options))
    return {
        "index": 1, "image": _text(item.picture), "question": item.question, **letters, "answer": item.letter,
        "explanation": item.reasoning, "category": "x",
    }  # fmt: skip


def option_columns(item: Item) -> dict[str, Any]:
    named = {f"option_{letter.lower()}": option for letter, option in zip("ABCD", item.options)}
    return {
        "image": _path(item),
        "question": item.question,
        **named,
        "answer": item.letter,
        "rationale": item.reasoning,
    }


def lettered(item: Item) -> dict[str, Any]:
    options = [f"({letter}) {option}" for letter, option in zip("ABCD", item.options)]
    return {
        "image": _path(item), "question": item.question, "options": options, "reasoning": item.reasoning,
        "answer": f"({item.letter}) {item.answer}",
    }  # fmt: skip


def chosen_by(
    answer: Callable[[Item], Any],
    shape: Callable[[tuple[str, ...]], Any] = list,
    *,
    to: str = "answer",
    among: str = "options",
) -> Row:
    """A row of a question with options, whose answer (in column `to`) and options come in some form."""

    def row(item: Item) -> dict[str, Any]:
        columns = {among: shape(item.options), to: answer(item)}
        return {"image": _path(item), "question": item.question, "reasoning": item.reasoning, **columns}

    return row


def boxed(item: Item) -> dict[str, Any]:
    return _given(
        image=_path(item),
        problem=item.shown,
        solution=f"<think>{item.reasoning}</think> The answer is $\\boxed{{{item.answer}}}$.",
    )


def _renamed(row: Row, **names: str) -> Row:
    return lambda item: {names.get(name, name): value for name, value in row(item).items()}


def _changed(row: Row, **columns: Callable[[Item], Any]) -> Row:
    return lambda item: {**row(item), **{name: value(item) for name, value in columns.items()}}


def _chartqa(folder: Path) -> None:
    _pictures(folder, "train/png")
    rows = [{"imgname": item.picture, "query": item.shown, "label": item.answer} for item in WITH_PICTURES]
    (folder / "train" / "train_human.json").write_text(json.dumps(rows))


def _imagefolder(folder: Path) -> None:
    _pictures(folder, "train")
    rows = [{**plain(item), "file_name": item.picture} for item in WITH_PICTURES]
    lines = [json.dumps({name: value for name, value in row.items() if name != "image"}) for row in rows]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))


def _typed(item: Item) -> Any:
    """An answer as JSON keeps it: a number where it is one."""
    return float(item.answer) if item.answer.isdecimal() else item.answer


def _layouts() -> Iterator[tuple[str, Layout]]:
    yield "our rows", jsonl(plain)
    yield "an array", document(plain, list)
    yield "a keyed object", document(plain, lambda rows: {str(n): row for n, row in enumerate(rows)})
    yield "rows in an object", document(plain, lambda rows: {"info": {"v": 1}, "annotations": rows})
    yield "an array in .jsonl", document(plain, list, name="train.jsonl")
    yield "lines in .json", jsonl(plain, name="train.json")
    yield "one file, data.jsonl", jsonl(plain, name="data.jsonl")
    for encoding in ("utf-8-sig", "utf-16", "gbk"):
        yield encoding, jsonl(plain, encoding=encoding)
    yield "CSV", table(plain)
    yield "TSV", table(plain, delimiter="\t")
    yield (
        "CSV of a spreadsheet",
        table(
            _renamed(plain, question="Question", answer="ANSWER", image="Image Path"), encoding="utf-8-sig"
        ),
    )
    yield "CSV in GBK", table(plain, encoding="gbk")
    yield "MMBench", table(mmbench, delimiter="\t", rows=WITH_OPTIONS)
    yield (
        "CSV, options as Python",
        table(chosen_by(lambda item: item.letter, lambda options: str(list(options))), rows=WITH_OPTIONS),
    )
    yield (
        "CSV, options as numpy",
        table(
            chosen_by(lambda item: item.letter, lambda options: "[" + " ".join(map(repr, options)) + "]"),
            rows=WITH_OPTIONS,
        ),
    )
    yield (
        "CSV, messages as text",
        table(_changed(llava, conversations=lambda item: json.dumps(llava(item)["conversations"]))),
    )
    yield "parquet, structs", parquet(_changed(plain, image=_struct))
    yield (
        "parquet, binary",
        parquet(_changed(plain, image=lambda item: png(item.picture) if item.picture else None)),
    )
    yield (
        "parquet, lists",
        parquet(
            _changed(
                plain, image=lambda item: None, images=lambda item: [_struct(item)] if item.picture else []
            )
        ),
    )
    yield "parquet, messages", parquet(parts_with_null)
    yield "parquet, lists of turns", parquet(lists)
    yield "save_to_disk", Layout(_saved)
    yield "imagefolder", Layout(_imagefolder, WITH_PICTURES)
    yield "base64", jsonl(_changed(plain, image=lambda item: _text(item.picture) if item.picture else None))
    yield (
        "objects with a URL",
        jsonl(
            _changed(
                plain,
                image=lambda item: None,
                images=lambda item: [{"url": _path(item)}] if item.picture else None,
            )
        ),
    )
    yield (
        "Windows",
        jsonl(
            _changed(
                plain, image=lambda item: f"D:\\set\\images\\{item.picture.upper()}" if item.picture else None
            )
        ),
    )
    yield "LLaVA", document(llava, list, name="llava_train.json", trains=False)
    yield "LLaVA, .jsonl", jsonl(llava)
    yield "ShareGPT", jsonl(lambda item: llava(item, "USER", "Assistant"))
    yield "Vicuna", jsonl(lambda item: llava(item, "Human:", "<|assistant|>"))
    yield "Qwen-VL", jsonl(qwen)
    yield "OpenAI", jsonl(openai)
    yield "TRL", jsonl(trl)
    yield "TRL, prompt and completion", jsonl(prompt)
    yield (
        "TRL, texts",
        jsonl(_renamed(_changed(plain, answer=_thought), question="prompt", answer="completion")),
    )
    yield "parts with a path", jsonl(nested)
    yield (
        "the cauldron",
        jsonl(
            lambda item: {
                "images": [_path(item)] if item.picture else [],
                "texts": [{"user": item.shown, "assistant": _thought(item), "source": "x"}],
            }
        ),
    )
    yield "LLaVA-CoT", jsonl(tagged)
    yield "Alpaca", jsonl(alpaca)
    yield "VQA v2", jsonl(vqa, reasoning=False)
    yield "ScienceQA", parquet(science, rows=WITH_OPTIONS)
    yield "MMMU", parquet(mmmu, rows=WITH_OPTIONS)
    yield "ChartQA", Layout(_chartqa, WITH_PICTURES, reasoning=False, trains=False)
    yield (
        "ChartQA of the hub",
        parquet(
            lambda item: _given(
                image=_struct(item), query=item.shown, label=[item.answer], human_or_machine=0
            ),
            reasoning=False,
        ),
    )
    yield "DocVQA", jsonl(_changed(plain, answer=lambda item: None, answers=lambda item: [item.answer]))
    yield (
        "SQuAD",
        jsonl(
            _changed(
                plain,
                answer=lambda item: None,
                answers=lambda item: {"text": [item.answer], "answer_start": [3]},
            )
        ),
    )
    yield (
        "R1-V",
        jsonl(
            _renamed(
                _changed(plain, answer=_thought, reasoning=lambda item: None),
                question="problem",
                answer="solution",
            )
        ),
    )
    yield "boxed", jsonl(boxed)
    yield (
        "reasoning in tags",
        jsonl(_changed(plain, reasoning=lambda item: f"<think>{item.reasoning}</think>")),
    )
    yield "numbers", jsonl(_changed(plain, answer=_typed))
    yield (
        "objects",
        jsonl(
            _changed(
                plain, answer=lambda item: {"text": item.answer, "span": None}, extra=lambda item: {"x": 1}
            )
        ),
    )
    yield "option columns", jsonl(option_columns, rows=WITH_OPTIONS)
    yield "lettered options", jsonl(lettered, rows=WITH_OPTIONS)
    yield (
        "options by letter",
        jsonl(
            chosen_by(lambda item: item.letter, lambda options: dict(zip("ABCD", options)), among="choices"),
            rows=WITH_OPTIONS,
        ),
    )
    yield (
        "options as objects",
        jsonl(
            chosen_by(
                lambda item: f"{item.letter}.",
                lambda options: [{"label": letter, "text": each} for letter, each in zip("ABCD", options)],
            ),
            rows=WITH_OPTIONS,
        ),
    )
    yield "options by index", jsonl(chosen_by(lambda item: item.index), rows=(WITH_OPTIONS[0],))
    yield "options by index as text", jsonl(chosen_by(lambda item: str(item.index)), rows=(WITH_OPTIONS[0],))
    yield (
        "options and an index column",
        jsonl(chosen_by(lambda item: item.index, to="answer_index"), rows=WITH_OPTIONS),
    )
    yield (
        "options in text",
        jsonl(chosen_by(lambda item: f"The answer is {item.letter}.", json.dumps), rows=WITH_OPTIONS),
    )


LAYOUTS = dict(_layouts())

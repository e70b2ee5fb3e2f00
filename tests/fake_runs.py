"""Runs without a model: folders as `toasterft eval` and trainings leave them, with answers and figures of one's own.

`folders` and `samples` read such folders, and those of real runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

# What a model might write, by accident or because it was taught to.
HOSTILE = {
    "script": "<script>window.broken = 1</script>",
    "handler": '<img src=x onerror="window.broken = 2">',
    "svg": "<svg onload=window.broken=3><style>*{display:none!important}</style>",
    "markdown": "![x](http://192.0.2.1/pixel.png) [y](javascript:window.broken=4)",
    "closing": "</div></article></main><h1>You won</h1><!--",
    "long": "9" * 3000,
    "rtl": "\u202eevil gnitirw\u202c العربية תשובה 42",
    "zalgo": "a" + "\u0301\u0323\u0330" * 60,
    "lines": "one\n\n\n\n\ntwo\ttabs\x00null\x07",
    "template": "{{7*7}} ${7*7} %7B%7D &lt;b&gt; &amp;",
}


def data_folder(folder: Path, count: int) -> Path:
    """`count` questions, each about a picture of its own that shows its number."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for k in range(count):
        picture = Image.new("RGB", (320, 200), (250 - 5 * k % 100, 245, 235))
        ImageDraw.Draw(picture).text((150, 90), str(k), fill="black")
        picture.save(folder / "images" / f"{k}.png")
        rows.append(
            {"id": f"q{k}", "image": f"images/{k}.png", "question": f"Question {k}?", "answer": str(k)}
        )
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluation(
    runs: Path,
    name: str,
    data: Path,
    answer: Callable[[int], dict[str, Any]],
    rows: range,
    *,
    record: dict[str, Any] | None = None,
    **settings: Any,
) -> str:
    """A finished evaluation of a model called `name`; `answer(k)` gives fields of the k-th sample.

    Args:
        record: further fields of run.json.

    Returns:
        The run's id.
    """
    folder = runs / f"20261121-120000-eval-{name}"
    folder.mkdir(parents=True)
    told = {"id": folder.name, "method": "eval", "status": "done", **(record or {})}
    (folder / "run.json").write_text(json.dumps(told))
    recipe = {"method": "eval", "model": name, "data": str(data), **settings}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for k in rows:
            row = {"id": f"q{k}", "question": f"Question {k}?", "gold": str(k), "images": [f"images/{k}.png"]}
            row |= {"reasoning": None, "well_formed": True, "finished": True} | answer(k)
            row.setdefault("text", f"<think>{row['reasoning']}</think><answer>{row['answer']}</answer>")
            file.write(json.dumps(row) + "\n")
    return folder.name


def training(
    folder: Path,
    data: Path,
    metrics: list[dict[str, Any]],
    *,
    method: str = "sft",
    record: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A training of toast-tiny that took 200 seconds and $0.50; `record` holds further fields of run.json.

    Returns:
        The run's folder.
    """
    folder.mkdir(parents=True)
    told = {
        "id": folder.name, "toasterft": "0.1.0", "method": method, "status": "done", "started_at": "2026-11-21T11:00:00",
        "model_base": "toast-tiny", "model_adapter": None, "machine": {"cpus": 2, "python": "3.11.9"},
        "versions": {"torch": "2.13.0"}, "data_count": 40, "data_split": "train", "gpu": None, "usd_per_hour": 9.0,
        "measured": {"seconds": 200.0, "usd": 0.5, "peak_memory_bytes": 7e8, "phases": {}},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(told | (record or {})))
    recipe = {"method": method, "model": "toast-tiny", "data": str(data), **settings}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return folder


def three(folder: Path, count: int = 6) -> tuple[Path, Path, list[str]]:
    """Data, runs folder, and the ids of a right, a wrong, and a hostile model's evaluation."""
    data, runs = data_folder(folder / "data", count), folder / "runs"
    hostile = list(HOSTILE.values())
    ids = [
        evaluation(runs, "right", data, lambda k: {"answer": str(k), "reasoning": f"I read {k}."}, range(count)),
        evaluation(runs, "wrong", data, lambda k: {"answer": str(k + 1), "reasoning": f"It says {k + 1}."}, range(count)),
        evaluation(
            runs,
            "hostile",
            data,
            lambda k: {"answer": hostile[k % len(hostile)], "reasoning": hostile[(k + 1) % len(hostile)]},
            range(count),
            step=True,
        ),
    ]  # fmt: skip
    return data, runs, ids


def folders(runs: Path) -> list[Path]:
    """Folders of all runs, oldest first."""
    return sorted(file.parent for file in runs.glob("*/run.json"))


def samples(run: Path) -> list[dict[str, Any]]:
    """A run's answers."""
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]

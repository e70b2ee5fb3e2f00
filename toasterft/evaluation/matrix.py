"""Models × prompt conditions: every cell an evaluation of its own, and one table of all.

    <runs>/<name>/          recipe.yaml; table.json, table.md, accuracy.png: renewed as cells end
    <runs>/<time>-eval-…/   the cells: ordinary runs, for `compare`, `arena`, `show`

There is no list of finished cells: run folders are searched for an evaluation of the same weights, questions
and settings (`dedupe.reuse_or_evaluate`). So a killed matrix goes on when it is started again, a cell whose
model was retrained is evaluated again, and an evaluation made by hand counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import paths, recipe
from toasterft.data.selection import evaluation_rows
from toasterft.errors import ModelError, ToasterError, UserError
from toasterft.evaluation import dedupe
from toasterft.jobs.prepare import Job, prepare_use
from toasterft.recipe import Eval, Matrix, Trained
from toasterft.runs.run_folder import RECIPE_FILE, RUN_FILE, Run

TABLE_FILE = "table.json"
MARKDOWN_FILE = "table.md"
CHART_FILE = "accuracy.png"

Evaluate = Callable[[Job], Run]


@dataclass
class Cell:
    """One model under one prompt condition, and what became of it."""

    model: str
    prompt: str
    load_in_4bit: bool | None
    recipe: Eval
    run: Run | None = None
    problem: Exception | None = None

    @property
    def name(self) -> str:
        held = {None: [], True: ["4-bit"], False: ["16-bit"]}[self.load_in_4bit]
        return ", ".join([self.model, self.prompt, *held])

    @property
    def status(self) -> str:
        if self.run is not None:
            return "done"
        if self.problem is None:
            return "waiting"
        if isinstance(self.problem, ModelError):
            return "missing"
        return "refused" if isinstance(self.problem, UserError) else "failed"


def cells(wanted: Matrix) -> list[Cell]:
    """Every cell; those that share a model follow each other."""
    axes = wanted.matrix
    return [
        Cell(model, prompt, held, wanted.cell(model, prompt, held))
        for model in axes.models
        for held in axes.load_in_4bit or (None,)
        for prompt in axes.prompts
    ]


def folder(name: str, runs_dir: Path, out: Path | None) -> Path:
    """Where a matrix puts its table; one that is there already is renewed.

    Raises:
        UserError: the folder holds something else.
    """
    path = out or runs_dir / name
    if path.exists() and any(path.iterdir()) and not (path / TABLE_FILE).exists():
        what = "a run" if (path / RUN_FILE).exists() else "something else"
        raise UserError(f"this folder holds {what}", where=str(path), next_step="--out elsewhere")
    return path


def run(
    wanted: Matrix, path: Path, runs_dir: Path, evaluate: Evaluate, on_cell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Evaluate what is not evaluated yet, cell by cell; the table after each.

    A cell that is missing or fails leaves its reason in the table, and the others go on.

    Args:
        path: the matrix's folder.
        on_cell: called with a line about every cell before it starts.

    Raises:
        UserError: the data cannot be had.
        Exception: a bug of ours, once the other cells are through.
    """
    data = evaluation_rows(wanted)
    keys = [example.key for example in data.examples]  # a damaged image stops the matrix, not cell after cell
    _write(path, RECIPE_FILE, recipe.dump(wanted))
    all_cells = cells(wanted)
    absent: dict[tuple[str, str | None], ModelError] = {}
    bugs: list[Exception] = []
    for number, cell in enumerate(all_cells, 1):
        on_cell(f"cell {number} of {len(all_cells)}: {cell.name}")
        needed = cell.recipe.model, cell.recipe.reasoner
        try:
            cell.problem = absent.get(needed)  # one request to the hub for what it lacks
            if cell.problem is None:
                job = prepare_use(cell.recipe, runs_dir)
                cell.run = dedupe.reuse_or_evaluate(job, data, evaluate)
        except ModelError as problem:
            cell.problem = absent[needed] = _with_remedy(problem, runs_dir)
        except ToasterError as problem:
            cell.problem = problem
        except Exception as bug:
            cell.problem = bug
            bugs.append(bug)
        found = table(path, wanted, len(keys), all_cells)
        paths.write_json(path / TABLE_FILE, found)
        yield found
    if bugs:
        raise bugs[0]


def _write(path: Path, name: str, text: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise paths.disk_error(error, path) from error
    paths.write_atomic(path / name, text)


def _with_remedy(problem: ModelError, runs_dir: Path) -> ModelError:
    """Where a shipped recipe is named like a run that is missing, it is what trains it."""
    model = str(problem.where)
    name = Path(model).name
    file = recipe.shipped().get(name)
    if file is None or (runs_dir / name).exists() or Path(model).exists():
        return problem
    method = str(recipe.read_yaml(file).get("method"))
    schema = recipe.RECIPES.get(method)
    if schema is None or not issubclass(schema, Trained):
        return problem
    return ModelError(
        "not trained yet", where=model, next_step=f"toasterft {method} {name} --out {runs_dir / name}"
    )


# --- the table -------------------------------------------------------------------------------


def table(path: Path, wanted: Matrix, count: int, all_cells: Sequence[Cell]) -> dict[str, Any]:
    """All cells, JSON-ready."""
    # Two names may stand for one model: its run is counted, and paid for, once.
    done = [run.record for run in {cell.run.id: cell.run for cell in all_cells if cell.run}.values()]
    usd = [record["measured"]["usd"] for record in done]
    return {
        "name": path.name,
        "folder": str(path),
        "data": wanted.data,
        "split": done[0]["data_split"] if done else wanted.split,
        "n": count,
        "task": done[0]["eval"]["task"] if done else None,
        "complete": all(cell.run is not None for cell in all_cells),
        "seconds": sum(record["measured"]["seconds"] for record in done),
        "usd": None if None in usd else sum(usd),
        "cells": [_row(cell, wanted.price) for cell in all_cells],
    }


def _row(cell: Cell, price: float | None) -> dict[str, Any]:
    settings = cell.recipe
    row: dict[str, Any] = {
        "model": cell.model,
        "prompt": cell.prompt,
        "load_in_4bit": cell.load_in_4bit,
        "status": cell.status,
        "asked": {name: getattr(settings, name) for name in ("model", "reasoner", "step", "suffix")},
    }
    if cell.run is not None:
        record = cell.run.record
        seconds = record["measured"]["seconds_per_1000_answers"]
        per_hour = record["usd_per_hour"] if price is None else price
        unknown = seconds is None or per_hour is None
        return row | {
            "run": cell.run.id,
            "gpu": record["gpu"],
            "seconds_per_1000_answers": seconds,
            "usd_per_1000_answers": None if unknown else seconds / 3600 * per_hour,
            "eval": record["eval"],
        }
    if isinstance(cell.problem, ToasterError):
        keys = ("where", "what", "why", "next_step")
        row["problem"] = {key: getattr(cell.problem, key) for key in keys}
    elif cell.problem is not None:
        row["problem"] = {"what": f"{type(cell.problem).__name__}: {cell.problem}"}
    return row

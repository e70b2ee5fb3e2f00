"""The commands as Python functions of the same names: what a notebook or a script calls.

    from pathlib import Path
    from toasterft import Recipe, charts, estimate, evaluate, train

    data = charts.write_dataset(Path("drawn"), n=30, seed=0)
    recipe = Recipe("sft", model="toast-tiny", data=data, max_steps=4, gradient_accumulation_steps=4, eval_limit=4)
    planned = estimate(recipe, gpu="A40")
    print(f"{planned.peak_bytes / 1e9:.1f} GB, ${planned.usd.likely:.3f}")
    run = train(recipe, price=0.44, budget=0.50)
    scores = evaluate(run, data=data, limit=4, max_completion_length=32)
    print(run.path, scores["scores"]["robust"])

Settings have the names they have on the command line (`toasterft recipes fields sft`), and mistakes raise the same
`toasterft.errors.ToasterError`. Importing this loads no torch; `train` and `evaluate` do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toasterft import paths, terminal
from toasterft import recipe as recipes
from toasterft.errors import RecipeError
from toasterft.estimation import Estimate
from toasterft.jobs import execute, guards, prepare
from toasterft.recipe import Section, Trained
from toasterft.runs.run_folder import Run


def Recipe(method: str, source: str | os.PathLike[str] | None = None, /, **settings: Any) -> Trained:
    """A training recipe, validated: what `toasterft METHOD [SOURCE] key=value …` would run.

    Args:
        method: sft, grpo, dyme … as on the command line.
        source: a YAML file or the name of a shipped recipe, whose settings come first.
        settings: fields of the method. Sections take a dict: `lora={"r": 8}` leaves their other fields as they
            are. `model` takes a `Run` too, and paths need not be strings.

    Raises:
        RecipeError: with every mistake in it.
    """
    if method not in recipes.TRAININGS:
        raise RecipeError(f"no training method {method!r}", why=f"there are: {', '.join(recipes.TRAININGS)}")
    words, fields = _as_typed(recipes.TRAININGS[method], settings)
    found: Trained = recipes.load(method, None if source is None else str(source), words, fields)
    return found


def estimate(
    recipe: Trained,
    *,
    gpu: str | None = None,
    price: float | None = None,
    runs_dir: str | os.PathLike[str] | None = None,
) -> Estimate:
    """What a training takes: `peak_bytes`, and `seconds` and `usd` as low, likely and high. No GPU, no torch.

    Args:
        gpu: GPU to plan for (`toasterft gpus`); the one present, else an A40.
        price: dollars per hour instead of the catalog's.

    Raises:
        UserError: the data or the model cannot be had.
    """
    planned = prepare.prepare_training(_with(recipe, gpu=gpu, price=price), paths.runs_dir(runs_dir)).estimate
    assert planned is not None
    return planned


def train(
    recipe: Trained,
    *,
    price: float | None = None,
    budget: float | None = None,
    max_hours: float | None = None,
    out: str | os.PathLike[str] | None = None,
    runs_dir: str | os.PathLike[str] | None = None,
    yes: bool = False,
    quiet: bool = False,
) -> Run:
    """Train, and return the run: `path`, `record` (the content of run.json), `metrics()`, `samples()`.

    Args:
        price: dollars per hour of this machine; `budget` needs it.
        budget, max_hours: refused if more is likely (unless `yes`), stopped before more is used.
        out: the run's folder, new or empty; a new one in `runs_dir` otherwise.
        quiet: no progress on stderr.

    Raises:
        UserError: nothing was run.
        CapReached, Interrupted: stopped, with checkpoint and adapter saved.
        RunFailed: the run went wrong.
    """
    prepared = prepare.prepare_training(
        _with(recipe, price=price), paths.runs_dir(runs_dir), out=None if out is None else Path(out)
    )
    prepared = guards.with_caps(prepared, budget, max_hours)
    guards.require_ready(prepared)
    guards.require_within_caps(prepared, over=yes)
    found: Run = execute.launch(prepared, terminal.reporter(quiet=quiet))
    return found


def evaluate(
    model: Run | str | os.PathLike[str],
    *,
    runs_dir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Scores with 95 % intervals, and the folder of the evaluation under `run`: what `eval --json` prints.

    Args:
        model: a run, a folder, a catalog name, or a hub id.
        settings: fields of `eval`, first of all `data`; then `limit`, `split`, `step` …

    Raises:
        UserError: nothing was run.
    """
    words, fields = _as_typed(recipes.Eval, {"model": model, **settings})
    wanted = recipes.load("eval", None, words, fields)
    prepared = prepare.prepare_use(wanted, paths.runs_dir(runs_dir))
    found = execute.launch(prepared, terminal.reporter(quiet=quiet))
    return {**found.record["eval"], "run": str(found.path)}


def _with(recipe: Trained, **changes: Any) -> Trained:
    """The recipe with those settings that were given, validated again."""
    given = {key: value for key, value in changes.items() if value is not None}
    found: Trained = recipes.validate(type(recipe), {**recipe.model_dump(), **given}, "the recipe")
    return found


def _as_typed(schema: type[Section], settings: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Settings as `recipe.load` takes them from a command line: `key=value` words, and whole values."""
    words, fields = [], {}
    for key, value in settings.items():
        if isinstance(value, Run):
            value = value.path
        if isinstance(value, os.PathLike):
            value = str(value)
        if value is None:
            words.append(f"{key}=null")
        elif isinstance(value, Mapping) and _is_section(schema, key):
            words += [f"{key}.{name}={json.dumps(each)}" for name, each in value.items()]
        else:
            fields[key] = value
    return words, fields


def _is_section(schema: type[Section], key: str) -> bool:
    return any(name.startswith(f"{key}.") for name in recipes.fields(schema))

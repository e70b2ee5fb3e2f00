"""`toasterft demo`: the main job from drawn charts to a measured gain, in minutes, on any machine.

draw charts → plan → base accuracy → fine-tune → tuned accuracy → one picture with the model's own words.
Everything is real: the same commands a user types, on the embedded toast-tiny.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toasterft import recipe
from toasterft.data import charts
from toasterft.jobs import execute, prepare
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.runs.run_folder import Run

MODEL = "toast-tiny"
# Kinds that need a step of thought; transcribing and counting are what the base was taught.
REASONING = ("lookup", "highest", "lowest", "difference", "sum", "compare", "count_above")


@dataclass(frozen=True)
class Size:
    """How much the demo does."""

    charts: int
    questions_per_chart: int
    eval_limit: int
    max_steps: int


FULL = Size(charts=1500, questions_per_chart=3, eval_limit=300, max_steps=150)
QUICK = Size(charts=400, questions_per_chart=3, eval_limit=100, max_steps=40)


@dataclass
class Outcome:
    """The demo's plan, runs and scores."""

    out: Path
    data: Path
    plan: Job
    base: Run
    tuned: dict[str, Run] = field(default_factory=dict)
    scores: dict[str, Run] = field(default_factory=dict)


def play(
    out: Path,
    methods: list[str],
    size: Size,
    report: Reporter,
    show_plan: Callable[[Job], None],
    seed: int = 0,
) -> Outcome:
    """Draw, plan, evaluate, train and evaluate again, all in `out`.

    Raises:
        UserError: `out` holds something already.
    """
    report.phase("drawing", size.charts)
    data = charts.write_dataset(
        out / "charts", n=size.charts, seed=seed, kinds=REASONING, per_chart=size.questions_per_chart,
        progress=report.advance,
    )  # fmt: skip
    report.done()
    runs = out / "runs"
    plan = _training(methods[0], data, size, seed, runs)
    show_plan(plan)
    found = Outcome(out, data, plan, _evaluate(MODEL, data, size, runs, report, seed))
    for method in methods:
        training = plan if method == methods[0] else _training(method, data, size, seed, runs)
        found.tuned[method] = execute.launch(training, report)
        found.scores[method] = _evaluate(str(found.tuned[method].path), data, size, runs, report, seed)
    return found


def fresh_folder() -> Path:
    """`toasterft-demo`, or the first free name after it."""
    names = ("toasterft-demo", *(f"toasterft-demo-{number}" for number in range(2, 1000)))
    return next(path for path in map(Path, names) if not path.exists() or not any(path.iterdir()))


def as_json(found: Outcome) -> dict[str, Any]:
    """Scores before and after, by question kind, and the cost on a rented GPU."""
    planned = found.plan.estimate
    assert planned is not None
    return {
        "out": str(found.out),
        "data": str(found.data),
        "gpu": planned.gpu,
        "usd_on_default_gpu": planned.usd.likely if planned.usd else None,
        "base": found.base.record["eval"],
        "methods": {
            name: {
                "run": str(run.path),
                "eval": found.scores[name].record["eval"],
                "measured": run.record["measured"],
            }
            for name, run in found.tuned.items()
        },
    }


def sample(found: Outcome) -> dict[str, Any]:
    """One test question that the last method gets right and the base does not, with both outputs."""
    last = list(found.scores)[-1]
    base = {row["id"]: row for row in found.base.samples()}
    rows = found.scores[last].samples()
    # Right to the letter: a number within the scorer's 5 % would be a poor thing to show.
    gained = [
        row for row in rows if row["answer"] == row["gold"] and not base[row["id"]]["correct"]["robust"]
    ]
    row = next((row for row in gained if row["kind"] in ("difference", "sum")), (gained or rows)[0])
    return {
        **row,
        "image": str(found.data / row["images"][0]),
        "base_text": base[row["id"]]["text"],
        "method": last,
    }


def _training(method: str, data: Path, size: Size, seed: int, runs: Path) -> Job:
    settings = [
        f"max_steps={size.max_steps}",
        "per_device_train_batch_size=32",
        "gradient_accumulation_steps=1",
        # Learning from one's own samples is given smaller steps than learning from traces; not tuned.
        f"learning_rate={'3e-4' if issubclass(recipe.RECIPES[method], recipe.Policy) else '3e-3'}",
        "max_completion_length=64",
        "lora.r=32",
        "lora.lora_alpha=64",
        "gradient_checkpointing=false",  # the model is tiny: recomputing would only cost time
        "eval_limit=1",
        "save_steps=1000",
    ]
    wanted = recipe.load(method, None, settings, {"model": MODEL, "data": str(data), "seed": seed})
    assert isinstance(wanted, recipe.Trained)
    return prepare.prepare_training(wanted, runs)


def _evaluate(model: str, data: Path, size: Size, runs: Path, report: Reporter, seed: int) -> Run:
    settings = ["per_device_eval_batch_size=64", "max_completion_length=64"]
    flags: dict[str, Any] = {"model": model, "data": str(data), "limit": size.eval_limit, "seed": seed}
    wanted = recipe.load("eval", None, settings, flags)
    found: Run = execute.launch(prepare.prepare_use(wanted, runs), report)
    return found

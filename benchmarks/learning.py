"""What methods learn on toast-tiny: seeds, equal steps, fresh charts, intervals.

    python benchmarks/learning.py traces             # simplified or structured, 3k or 7k, --step or not
    python benchmarks/learning.py rates              # learning rate × {QLoRA, 16-bit LoRA, full}
    python benchmarks/learning.py policy-rates       # learning rate of GRPO from an SFT checkpoint; a tuning seed
    python benchmarks/learning.py grpo               # GRPO from an SFT checkpoint and from the raw base
    python benchmarks/learning.py methods            # SFT, GRPO, two-stage with and without KL, DyME

Each cell is one run of the command line's own code, on charts drawn from the study's seed. Finished cells are
kept under `--work`, so an interrupted study goes on where it was. Results land in `results/learning-<study>.json`
and `.md`: accuracy (robust scorer) pooled over seeds with Wilson 95 % intervals, and per seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import common

from toasterft import recipe, scoring
from toasterft.data import charts
from toasterft.jobs import execute, prepare
from toasterft.jobs.demo import REASONING
from toasterft.progress import Silent

COMMON = ("gradient_checkpointing=false", "eval_limit=1", "save_steps=100000", "max_length=1024")
SFT = (
    "per_device_train_batch_size=32", "gradient_accumulation_steps=1", "learning_rate=1e-3", "lora.r=32",
    "lora.lora_alpha=64",
)  # fmt: skip
POLICY = (
    "per_device_train_batch_size=64", "gradient_accumulation_steps=1", "num_generations=8", "lora.r=32",
    "lora.lora_alpha=64", "max_completion_length=64", "rollout_batch_size=64",
)  # fmt: skip

# The methods study: rows to learn from, optimizer steps, prompts per step, samples per prompt.
ROWS, STEPS, PROMPTS, GENERATIONS = 480, 100, 16, 4


@dataclass(frozen=True)
class Stage:
    """One training run; it starts from the one before, or from toast-tiny."""

    method: str
    settings: tuple[str, ...]
    data: str = "simplified"
    limit: int | None = None


@dataclass(frozen=True)
class Cell:
    """One line of a study's table."""

    name: str
    stages: tuple[Stage, ...]
    data: str = "simplified"
    steps: tuple[bool, ...] = (False,)
    splits: tuple[str, ...] = ("core",)
    sampled: bool = False  # the first split at temperature 1 as well


@dataclass
class Bench:
    """Data and folders of one study."""

    work: Path
    seed: int
    charts: int
    limit: int
    made: dict[str, Path] = field(default_factory=dict)

    def data(self, style: str, difficulty: str = "core", *, held_out: bool = False) -> Path:
        """A chart set; evaluation charts come from another seed, so that none was trained on."""
        name = f"{difficulty}-{style}-{'test' if held_out else 'train'}-{self.seed}"
        folder = self.work / "data" / name
        if not (folder / "card.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            charts.write_dataset(
                folder, n=200 if held_out else self.charts,
                splits=(0, 0, 1) if held_out else (0.8, 0.1, 0.1), seed=self.seed + (10_000 if held_out else 0),
                difficulty=difficulty, style=style, kinds=REASONING, per_chart=3,
            )  # fmt: skip
        return folder

    def folder(self, stages: tuple[Stage, ...], seed: int) -> Path:
        """Where the run of the last of some stages lies."""
        key = hashlib.sha256(repr((stages, self.seed, self.charts)).encode()).hexdigest()[:12]
        return self.work / "stages" / f"{stages[-1].method}-{key}-{seed}"

    def context(self, cell: Cell, seed: int) -> dict[str, list[float]]:
        """Figures of the cell's last run, each as the means of its first and last tenth of steps."""
        if not cell.stages:
            return {}
        lines = (self.folder(cell.stages, seed) / "metrics.jsonl").read_text().split("\n")
        steps = [json.loads(line) for line in lines if line]
        found = {}
        for name in ("rewards/accuracy/mean", "switch/memorise", "switch/explore", "entropy"):
            values = [step[name] for step in steps if step.get(name) is not None]
            tenth = max(1, len(values) // 10)
            if values:
                found[name] = [round(mean(part), 4) for part in (values[:tenth], values[-tenth:])]
        return found

    def trained(self, stages: tuple[Stage, ...], model: str, seed: int) -> tuple[str, float]:
        """The run of the last of some stages, and its seconds; cells that begin alike share what they share."""
        out, stage = self.folder(stages, seed), stages[-1]
        done = out / "seconds.json"
        if not done.exists():
            shutil.rmtree(out, ignore_errors=True)
            flags = {"model": model, "data": str(self.data(stage.data)), "seed": seed, "limit": stage.limit}
            wanted = recipe.load(stage.method, None, [*COMMON, *stage.settings], flags)
            began = time.monotonic()
            execute.launch(prepare.prepare_training(wanted, out.parent, out=out), Silent())
            done.write_text(json.dumps(time.monotonic() - began))
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        return str(out), float(json.loads(done.read_text()))

    def cell(self, cell: Cell, seed: int) -> dict[str, Any]:
        """Train and evaluate, apart from what an earlier call has measured."""
        folder = self.work / "cells" / f"{cell.name}-{seed}"
        done = folder / "result.json"
        result: dict[str, Any] = {"cell": cell.name, "seed": seed, "train_seconds": 0.0, "scores": {}}
        if done.exists():
            result = json.loads(done.read_text())
        ways = [(split, step, 0.0) for split in cell.splits for step in cell.steps]
        ways += [(cell.splits[0], False, 1.0)] if cell.sampled else []
        missing = [way for way in ways if way_name(*way) not in result["scores"]]
        model, seconds = "toast-tiny", 0.0
        for number in range(len(cell.stages) if missing else 0):
            model, took = self.trained(cell.stages[: number + 1], model, seed)
            seconds += took
            result["train_seconds"] = round(seconds, 1)
        folder.mkdir(parents=True, exist_ok=True)
        for split, step, temperature in missing:
            flags = {
                "model": model, "data": str(self.data(cell.data, split, held_out=True)),
                "limit": self.limit, "step": step, "seed": 0,
            }  # fmt: skip
            words = [
                "per_device_eval_batch_size=64", f"temperature={temperature}",
                f"max_completion_length={160 if cell.data == 'structured' else 64}",
            ]  # fmt: skip
            wanted = recipe.load("eval", None, words, flags)
            found = execute.launch(prepare.prepare_use(wanted, folder, data_name=split), Silent())
            result["scores"][way_name(split, step, temperature)] = found.record["eval"]
            done.write_text(json.dumps(result, indent=1))
        return result


def way_name(split: str, step: bool, temperature: float) -> str:
    """What a table calls an evaluation."""
    return f"{split}{'+step' if step else ''}{', sampled' if temperature else ''}"


def traces() -> list[Cell]:
    cells = [Cell("base", ())]
    for style in ("simplified", "structured"):
        for limit in (3000, 7000):
            steps = f"max_steps={limit // 32}"
            stage = Stage("sft", (*SFT, steps, "max_completion_length=160"), style, limit)
            cells.append(Cell(f"{style}-{limit // 1000}k", (stage,), style, steps=(False, True)))
    return cells


def rates() -> list[Cell]:
    cells = [Cell("base", ())]
    ways = {"qlora": (), "lora16": ("load_in_4bit=false",), "full": ("load_in_4bit=false", "lora=null")}
    for way, settings in ways.items():
        for rate in ("3e-5", "1e-4", "3e-4", "1e-3"):
            words = [word for word in SFT if way != "full" or not word.startswith("lora")]
            stage = Stage("sft", (*words, *settings, f"learning_rate={rate}", "max_steps=60"))
            cells.append(Cell(f"{way}-{rate}", (stage,)))
    return cells


def policy_rates() -> list[Cell]:
    """What GRPO from an SFT checkpoint can use, on tuning seeds: learning rate, and group size at equal samples."""
    sft = Stage("sft", (*SFT, "max_steps=218"))
    cells = [Cell("sft", (sft,))]
    for rate in ("1e-4", "3e-4", "1e-3"):
        cells.append(
            Cell(f"grpo-{rate}", (sft, Stage("grpo", (*POLICY, f"learning_rate={rate}", "max_steps=60"))))
        )
    words = (*POLICY, "per_device_train_batch_size=128", "rollout_batch_size=128")
    for rate, steps in (("1e-4", 150), ("3e-5", 150)):
        stage = Stage("grpo", (*words, f"learning_rate={rate}", f"max_steps={steps}"))
        cells.append(Cell(f"grpo-128-{rate}", (sft, stage)))
    return cells


def whole(method: str, rate: str, *words: str, steps: int = STEPS) -> Stage:
    """One run of the methods study: the language model tuned whole, as the paper does, on the same few rows."""
    if method == "sft":
        sizes: tuple[str, ...] = (f"per_device_train_batch_size={PROMPTS}",)
    else:
        samples = PROMPTS * GENERATIONS
        sizes = (
            f"per_device_train_batch_size={samples}", f"rollout_batch_size={samples}",
            f"num_generations={GENERATIONS}", "max_completion_length=48",
            "rewards={accuracy: 1, format: 1, thinking: 1}",
        )  # fmt: skip
    fixed = ("gradient_accumulation_steps=1", "load_in_4bit=false", "lora=null", f"max_steps={steps}")
    return Stage(method, (*sizes, *fixed, f"learning_rate={rate}", *words), limit=ROWS)


# Of dyme-pure: the thinking reward is word overlap with the reference, and no facts are used.
PURE = ("rewards={accuracy: 1, format: 1, thinking_lemma: 1}", "refiner=none")


# Of dyme-pure: the thinking reward is word overlap with the reference, and no facts are used.
PURE = ("rewards={accuracy: 1, format: 1, thinking_lemma: 1}", "refiner=none")
SOFT = ("soft_power=1",)


def tune() -> list[Cell]:
    """Four settings of every method, on a tuning seed and tuning charts; `methods` takes the best of each."""
    cells = [Cell(f"sft {rate}", (whole("sft", rate),)) for rate in ("5e-4", "1e-3", "2e-3", "4e-3")]
    cells += [Cell(f"grpo {rate}", (whole("grpo", rate),)) for rate in ("1e-4", "3e-4", "1e-3", "2e-3")]
    for first, second in (("1e-3", "1e-4"), ("1e-3", "3e-4"), ("2e-3", "1e-4"), ("2e-3", "3e-4")):
        cells.append(Cell(f"two-stage {first} {second}", two_stages(first, second)))
        cells.append(Cell(f"two-stage+kl {first} {second}", two_stages(first, second, "beta=0.04")))
    for name, words in (("dyme-pure", PURE), ("dyme", ()), ("dyme-soft", SOFT)):
        for rate, weight in (("1e-3", 4), ("1e-3", 16), ("2e-3", 4), ("2e-3", 16)):
            stage = whole("dyme", rate, f"sft_weight={weight}", *words)
            cells.append(Cell(f"{name} {rate} weight {weight}", (stage,)))
    return cells


def two_stages(first: str, second: str, *words: str) -> tuple[Stage, ...]:
    """Half of the steps SFT, half GRPO."""
    return whole("sft", first, steps=STEPS // 2), whole("grpo", second, *words, steps=STEPS // 2)


# What `tune` found best (results/learning-tune.md). With 16 of G = 4, a memorised prompt weighs four times an explored one.
SFT_RATE, GRPO_RATE, DYME_RATE, SOFT_RATE, WEIGHT = "2e-3", "2e-3", "1e-3", "2e-3", "sft_weight=16"
TWO_STAGES, TWO_STAGES_KL = ("1e-3", "1e-4"), ("2e-3", "1e-4")
# Steps of SFT in the seconds that DyME takes on an otherwise idle core.
AS_LONG = 350
ALL = ("core", "full", "hard")


def grpo() -> list[Cell]:
    """What GRPO adds to an SFT checkpoint in five minutes of a core, greedy and sampled; and to the raw base."""
    samples = (
        "per_device_train_batch_size=128", "rollout_batch_size=128", "num_generations=8", "max_completion_length=48",
        "gradient_accumulation_steps=1", "load_in_4bit=false", "lora=null", "rewards={accuracy: 1, format: 1, thinking: 1}",
        "learning_rate=1e-4",
    )  # fmt: skip
    sft = whole("sft", "1e-3", steps=340)
    policy = Stage("grpo", (*samples, "max_steps=80"))
    clip_low = Stage("grpo", (*samples, "max_steps=160", "num_iterations=2", "epsilon_high=0.1"))
    cells = {"sft": (sft,), "sft+grpo": (sft, policy), "sft+cliplow": (sft, clip_low), "grpo": (policy,)}
    return [Cell(name, stages, sampled=True) for name, stages in cells.items()]


def methods() -> list[Cell]:
    """Every method at its best setting of `tune`, in as many steps; and SFT in as many seconds as DyME takes."""
    kinds = {
        "base": (),
        "sft": (whole("sft", SFT_RATE),),
        "grpo": (whole("grpo", GRPO_RATE),),
        "two-stage": two_stages(*TWO_STAGES),
        "two-stage+kl": two_stages(*TWO_STAGES_KL, "beta=0.04"),
        "dyme-pure": (whole("dyme", DYME_RATE, WEIGHT, *PURE),),
        "dyme": (whole("dyme", DYME_RATE, WEIGHT),),
        "dyme-soft": (whole("dyme", SOFT_RATE, WEIGHT, *SOFT),),
        "sft, as long as dyme": (whole("sft", SFT_RATE, steps=AS_LONG),),
    }
    return [Cell(name, stages, splits=ALL, sampled=True) for name, stages in kinds.items()]


def ablations() -> list[Cell]:
    """DyME with one thing changed, and its soft form likewise."""
    changes: dict[str, tuple[str, ...]] = {
        "dyme": (),
        "no explore": ("explore=false",),
        "no memorise": ("memorise=false",),
        "sft_weight=1": ("sft_weight=1",),
        "no refiner": ("refiner=none",),
        "no checker": ("rewards={accuracy: 1, format: 1}",),
        "threshold 0.8": ("switch_threshold=0.8",),
        "annealed": ("anneal=true",),
        "budgeted": ("memorise_until=0.5",),
    }
    soft: dict[str, tuple[str, ...]] = {
        "dyme-soft": (),
        "soft, no explore": ("explore=false",),
        "soft, no refiner": ("refiner=none",),
    }
    stages = {name: whole("dyme", DYME_RATE, WEIGHT, *words) for name, words in changes.items()}
    stages |= {name: whole("dyme", SOFT_RATE, WEIGHT, *SOFT, *words) for name, words in soft.items()}
    return [Cell(name, (stage,), sampled=True) for name, stage in stages.items()]


STUDIES = {
    "traces": traces, "rates": rates, "grpo": grpo, "policy-rates": policy_rates, "tune": tune, "methods": methods,
    "ablations": ablations,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="tuning takes other seeds than the result")
    parser.add_argument("--work", type=Path, help="where cells are kept between calls")
    parser.add_argument("--data-seed", type=int, default=1)
    parser.add_argument("--charts", type=int, default=3000)
    parser.add_argument("--limit", type=int, default=300, help="questions per evaluation")
    parser.add_argument("--only", nargs="*", help="cells to run; the others are left out")
    given = parser.parse_args()
    bench = Bench(given.work or Path("work") / given.study, given.data_seed, given.charts, given.limit)
    rows = []
    for cell in STUDIES[given.study]():
        if given.only and cell.name not in given.only:
            continue
        first = given.first_seed
        for seed in range(first, first + (1 if not cell.stages else given.seeds)):
            rows.append(bench.cell(cell, seed) | {"course": bench.context(cell, seed)})
            told = {
                name: round(100 * each["scores"]["robust"]["value"], 1)
                for name, each in rows[-1]["scores"].items()
            }
            print(cell.name, seed, told, f"{rows[-1]['train_seconds']} s", flush=True)
    result = {
        "study": given.study,
        "seeds": given.seeds,
        "questions": given.limit,
        "rows": pooled(rows),
        "cells": brief(rows),
    }
    path = common.write(f"learning-{given.study}", result)
    path.with_suffix(".md").write_text(markdown(given.study, result))


def pooled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy over all seeds of a cell, with the interval of that many answers."""
    found = []
    for name in dict.fromkeys(row["cell"] for row in rows):
        same = [row for row in rows if row["cell"] == name]
        for split in same[0]["scores"]:
            evals = [row["scores"][split] for row in same]
            right = sum(round(each["scores"]["robust"]["value"] * each["n"]) for each in evals)
            count = sum(each["n"] for each in evals)
            low, high = scoring.wilson(right, count)
            found.append(
                {
                    "cell": name, "split": split, "accuracy": right / count, "low": low, "high": high, "n": count,
                    "per_seed": [round(each["scores"]["robust"]["value"], 4) for each in evals],
                    "format_rate": mean(each["format_rate"]["value"] for each in evals),
                    "valid_traces": mean(valid(each) for each in evals),
                    "trace_tokens": mean((each["traces"]["tokens"] or {"median": 0})["median"] for each in evals),
                    "mean_completion_tokens": mean(each["mean_completion_tokens"] for each in evals),
                    "train_seconds": mean(row["train_seconds"] for row in same),
                    "memorised": [
                        mean(row["course"]["switch/memorise"][end] for row in same)
                        for end in (0, 1)
                        if "switch/memorise" in same[0]["course"]
                    ],
                }
            )  # fmt: skip
    return found


def valid(scores: dict[str, Any]) -> float:
    """Share of traces with facts and arithmetic right and the conclusion that was answered; none are none."""
    checked = scores["traces"]["checked"]
    return float(checked["valid"]["value"]) if checked else 0.0


def brief(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every cell by question kind."""
    return [
        {
            "cell": row["cell"], "seed": row["seed"], "train_seconds": row["train_seconds"],
            "course": row["course"],
            "by_kind": {split: each.get("by_kind") for split, each in row["scores"].items()},
        }
        for row in rows
    ]  # fmt: skip


def markdown(study: str, result: dict[str, Any]) -> str:
    lines = [
        f"# learning: {study}", "",
        f"toast-tiny, {result['seeds']} seed(s), at most {result['questions']} questions each;",
        f"`python benchmarks/learning.py {study}`.", "",
        "| cell | split | accuracy (95 %) | per seed | form kept | valid traces | tokens | seconds | memorised |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["rows"]:
        seeds = " ".join(f"{100 * value:.0f}" for value in row["per_seed"])
        lines.append(
            f"| {row['cell']} | {row['split']} "
            f"| {100 * row['accuracy']:.1f} % ({100 * row['low']:.1f}–{100 * row['high']:.1f}) | {seeds} "
            f"| {100 * row['format_rate']:.0f} % | {100 * row['valid_traces']:.0f} % "
            f"| {row['mean_completion_tokens']:.0f} | {row['train_seconds']:.0f} "
            f"| {' → '.join(f'{100 * share:.0f} %' for share in row['memorised'])} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

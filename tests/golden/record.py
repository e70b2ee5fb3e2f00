"""What must stay equal while the house is rebuilt.

    python tests/golden/record.py                      compare all with what is stored, and name what differs
    python tests/golden/record.py traces frozen        compare these parts
    python tests/golden/record.py --write traces       store what today's code gives instead
    python tests/golden/record.py --all traces         every difference, not the first thirty of a part

The parts are the functions in `PARTS`. Each gives plain JSON without paths, dates or speeds; numbers are compared to
1e-5. Two files beside the goldens were made once, on 2026-11-28 by commit 3bfaad6, and are never made again:

    corpus.jsonl.gz         1,200 traces of `charts.stream(77, …)`, each followed by a copy with one planted fault
                            (the four kinds of tests/unit/test_checker.py, in turn)
    run-2026-11-28.tar.gz   charts drawn then, a training that was interrupted at step 4 of 6 with its checkpoint, an
                            adapter that was taught the form of an answer, an evaluation, the features of every
                            picture, and answers that a teacher was paid for. A resume, an evaluation and `cot build`
                            must find them. Paths of the machine were taken out.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import hashlib
import io
import json
import math
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# First of all: the package of this checkout, whatever else is installed, and no hub.
sys.path[:0] = [str(ROOT), str(HERE)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import adapter  # noqa: E402
import yaml  # noqa: E402

SHARED = Path(os.environ.get("TOASTERFT_SHARED", ROOT.parent / "shared" / "data")) / "chartqa"
FROZEN = HERE / "run-2026-11-28.tar.gz"
SHOWN = 30
RELATIVE = 1e-5
# A loss that is zero on paper, such as that of samples on the policy they came from.
ABSOLUTE = 1e-6


class NotHere(Exception):
    """What a part needs is not on this machine."""


# --- the command line in this process --------------------------------------------------------


@contextlib.contextmanager
def home(folder: Path) -> Iterator[Path]:
    """Work in a folder, with runs, cache and data sets below it: paths are then the same everywhere."""
    before, environment = Path.cwd(), dict(os.environ)
    os.environ |= {f"TOASTERFT_{name}": name.lower() for name in ("RUNS", "CACHE", "DATA")}
    os.environ.pop("COLUMNS", None)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ |= environment


def said(*words: Any, code: int = 0) -> str:
    """What a command prints on stdout.

    Raises:
        AssertionError: with its messages, where it ends in another way.
    """
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["toasterft", *map(str, words)]
    ended: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            adapter.main()
    except SystemExit as stop:
        ended = stop.code or 0
    finally:
        sys.argv = argv
    assert ended == code, f"{' '.join(sys.argv)} {words} ended with {ended}\n{err.getvalue()}{out.getvalue()}"
    return out.getvalue()


def as_json(*words: Any) -> Any:
    return json.loads(said(*words, "--json"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digest(text: str, length: int = 10) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def keys(value: Any) -> Any:
    """The nested keys of a document; the items of a list are taken together."""
    if isinstance(value, dict):
        return {str(key): keys(each) for key, each in value.items()}
    if isinstance(value, list):
        merged: dict[str, Any] = {}
        for each in value:
            found = keys(each)
            merged |= found if isinstance(found, dict) else {}
        return [merged] if merged else []
    return None


# --- parts: names and plans ------------------------------------------------------------------


def commands(_: Path) -> Any:
    """Names, options and defaults of every command."""
    return _command(adapter.command_tree())


def _command(command: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in command.params:
        annotation = one.type_descriptor.annotation
        fields = {
            "type": annotation.__name__ if isinstance(annotation, type) else str(annotation),
            "required": one.required,
            "many": one.multiple or one.nargs != 1,
        }
        if isinstance(one.default, (str, int, float)):
            fields["default"] = one.default
        option = one.param_type_name == "option"
        found[" ".join([*one.opts, *one.secondary_opts]) if option else one.name] = fields
    below = {name: _command(each) for name, each in sorted(getattr(command, "commands", {}).items())}
    return {"params": found, "commands": below} if below else {"params": found}


RECIPES = (
    "sft-smolvlm",
    "toaster-256m-3k",
    "toaster-256m-7k",
    "toaster-500m-3k",
    "toaster-500m-7k",
    "dyme",
    "dyme-pure",
)
STAGED = ("clgrpo-4stage", "two-stage", "two-stage-kl")
MODELS = ("SmolVLM-256M", "SmolVLM2-2.2B", "Qwen2.5-VL-3B", "InternVL3-1B", "LLaVA-OneVision-0.5B")
METHODS = ("sft", "grpo", "dyme", "dpo", "eval")
# One each of what changes a plan.
VARIANTS = (
    ("sft", "load_in_4bit=false"), ("sft", "lora=null", "load_in_4bit=false"), ("sft", "train_connector=true"),
    ("sft", "lora=null", "load_in_4bit=false", "train_vision=true"),
    ("sft", "image_longest_edge=512"), ("sft", "gradient_checkpointing=false", "per_device_train_batch_size=16"),
    ("sft", "optim=adamw_torch", "eval_steps=20"), ("grpo", "num_iterations=2", "beta=0.04"), ("grpo", "--clip-low"),
    ("dyme", "soft_power=1"), ("dyme", "lora=null", "load_in_4bit=false", "num_generations=4"), ("eval", "temperature=0.7"),
)  # fmt: skip
# Texts for people, and what depends on the day.
UNSTABLE = {"notes", "provenance", "price_flag", "flag", "status", "as_of", "source"}


def estimates(folder: Path) -> Any:
    """`estimate … --json` over recipes, methods, models and GPUs; numbers and settings, not the texts around them."""
    found: dict[str, Any] = {}

    def ask(*words: str) -> None:
        found[" ".join(words)] = without(as_json("estimate", *words), UNSTABLE)

    with home(folder), on_the_day():
        for name in RECIPES:
            ask("dyme" if name.startswith("dyme") else "sft", name, "--data", "smolcot-7k", "--gpu", "all")
        for name in STAGED:
            ask("train", name, "--gpu", "all")
        ask(
            "grpo",
            "grpo-cliplow",
            "--model",
            "SmolVLM-500M",
            "--data",
            "smolcot-3k",
            "--gpu",
            "T4",
            "--budget",
            "0.5",
        )
        for method, model in product(METHODS, MODELS):
            longest = () if method == "eval" else ("max_length=8192",)
            ask(method, *longest, "--model", model, "--data", "chartqa", "--gpu", "A40")
        for method, *more in VARIANTS:
            ask(
                method,
                *more,
                "--model",
                "SmolVLM-500M",
                "--data",
                "smolcot-3k",
                "--gpu",
                "T4",
                "--budget",
                "0.05",
            )
        ask("cot", "--data", "chartqa", "--rows", "7000")
        for recipe in ("sft", "grpo", "dyme", "dpo", "eval", "train"):
            found[f"recipes fields {recipe}"] = without(
                json.loads(said("recipes", "fields", recipe, "--json")), {"help", "about", "says"}
            )
        found["models"] = [without(row, {"verified"}) for row in as_json("models")["models"]]
    return found


@contextlib.contextmanager
def on_the_day() -> Iterator[None]:
    """Prices are those of the day on which the goldens were recorded."""

    class Day(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return cls(2026, 11, 28)

    real, datetime.date = datetime.date, Day  # type: ignore[misc]
    try:
        yield
    finally:
        datetime.date = real  # type: ignore[misc]


def without(value: Any, names: set[str]) -> Any:
    """A document without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(each, names) for key, each in value.items() if key not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value


TILE_TOKENS = {"SmolVLM-256M": (64, 5), "SmolVLM-500M": (64, 5), "LLaVA-OneVision-0.5B": (729, 1)}
QUESTION_TOKENS = 60


def memory(_: Path) -> Any:
    """The grid of benchmarks/memory_grid.py: all of it by the closed form, one step replayed as well."""
    closed, replay = {}, {}
    for name, tiles, batch, length, checkpointing, rank in product(
        TILE_TOKENS, (1, 5, 13), (1, 2, 8), (64, 256), (True, False), (None, 8, 64)
    ):
        features, tags = (tiles * each for each in TILE_TOKENS[name])
        tokens = features + tags + QUESTION_TOKENS + length
        settings = {
            "load_in_4bit": rank is not None,
            "optim": "paged_adamw_8bit" if batch == 1 else "adamw_torch",
        }
        case = f"step {name} {tiles} tiles, batch {batch}, {length} new, {checkpointing=}, {rank=}"
        sizes = {"checkpointing": checkpointing, "rank": rank, "batch": batch, "tokens": tokens}
        closed[case] = adapter.closed_form(
            "step", name, **sizes, trained=batch * length, image_tokens=batch * features, settings=settings
        )
        if (
            tiles == 1
            and batch == 2
            and length == 64
            and rank == 8
            and name == "SmolVLM-256M"
            and checkpointing
        ):
            replay[case] = adapter.replayed(
                name, **sizes, image_tokens=features, completion_tokens=length, flash=True, **settings
            )
    for name, groups, length, checkpointing in product(TILE_TOKENS, (1, 4), (64, 256), (True, False)):
        features, tags = (5 * each for each in TILE_TOKENS[name])
        sizes = {
            "groups": groups, "branches": 8, "prompt_tokens": features + tags + QUESTION_TOKENS,
            "completion_tokens": length, "image_tokens": features, "checkpointing": checkpointing,
        }  # fmt: skip
        case = f"update {name} {groups} groups, {length} new, {checkpointing=}"
        closed[case] = adapter.closed_form("update", name, **sizes)
    for name, (rows, prompts), top_p in product(TILE_TOKENS, ((8, 1), (64, 8), (16, 16)), (1.0, 0.9)):
        features, tags = (5 * each for each in TILE_TOKENS[name])
        sizes = {
            "rows": rows, "prompts": prompts, "prompt_tokens": features + tags + QUESTION_TOKENS,
            "completion_tokens": 256, "image_tokens": features, "top_p": top_p,
        }  # fmt: skip
        closed[f"generation {name} {rows} rows of {prompts} prompts, {top_p=}"] = adapter.closed_form(
            "generation", name, **sizes
        )
    for name, tiles in product((*TILE_TOKENS, "SmolVLM2-2.2B", "InternVL3-1B"), (1, 8)):
        closed[f"encoding {name} {tiles} tiles"] = adapter.closed_form("encoding", name, tiles=tiles)
    return {"closed form": closed, "replay": replay}


# --- parts: reasoning ------------------------------------------------------------------------


@cache
def corpus() -> tuple[dict[str, Any], ...]:
    """Question, answer, table, trace and planted fault (or None) of 2,400 traces."""
    with gzip.open(HERE / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        return tuple(map(json.loads, file))


def traces(_: Path) -> Any:
    """What the verifier, lenient and strict, and the refiner make of every trace of the corpus."""
    rows = corpus()
    template = adapter.template_learned(
        [row["trace"] for row in rows if row["style"] == "structured" and not row["fault"]]
    )
    found: dict[str, Any] = {"template": template}
    for n, row in enumerate(rows):
        trace = row["trace"]
        name = f"{n:04d} {row['fault'] or 'clean'}, {row['kind']}, {row['difficulty']}, {row['style']}"
        found[name] = {
            "checker": adapter.checker_says(row, trace),
            "strict": adapter.strict_passes(row, trace),
        }
        if row["fault"] in (None, "wrong_arithmetic"):
            found[name]["refined"] = adapter.refined(row, trace)
        if row["style"] == "simplified" and not row["fault"]:
            found[name] |= {
                "refined from nothing": adapter.refined(row, None),
                "refined with headings": adapter.refined(row, trace, template),
            }
    return found


def rules(folder: Path) -> Any:
    """`cot build --teacher rules` on the questions of the corpus: seeing the answer and blind, in both styles."""
    rows = [row for row in corpus() if row["style"] == "simplified" and not row["fault"]]
    return {
        name: _by_rules(folder / name.replace(" ", "-"), rows, *options)
        for name, options in {
            "simplified": (),
            "structured": ("--style", "structured"),
            "blind": ("--blind",),
        }.items()
    }


def _by_rules(folder: Path, rows: list[dict[str, Any]], *options: str) -> dict[str, str]:
    """The trace of each row, or `! reason` where there is none."""
    with home(folder):
        text = (
            {"id": f"{n:04d}", "question": row["question"], "answer": row["answer"], "facts": row["table"]}
            for n, row in enumerate(rows)
        )
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text), encoding="utf-8")
        said("cot", "build", "built", "--from", "rows.jsonl", "--teacher", "rules", "--quiet", *options)
        kept = {row["id"]: row["reasoning"] for row in lines(Path("data/built/train.jsonl"))}
        rejects = {row["id"]: f"! {row['reason']}" for row in lines(Path("data/built/rejects.jsonl"))}
    return dict(sorted({**kept, **rejects}.items()))


def chartqa(folder: Path) -> Any:
    """The rules, the refiner and the checker on ChartQA's own tables: digests and scores, none of its texts."""
    return _chartqa(folder, "items.jsonl", "question", "answer", ())


def chartqa_blind(folder: Path) -> Any:
    """The same without seeing the answers."""
    return _chartqa(folder, "items.jsonl", "question", "answer", ("--blind",))


def chartqa_text(folder: Path) -> Any:
    """The same on ChartQA's questions by people that came without their pictures; minutes."""
    return _chartqa(folder, "train_human_text_only.jsonl", "query", "label", ())


def _chartqa(folder: Path, name: str, question: str, answer: str, options: tuple[str, ...]) -> Any:
    """Of each row with a table: [trace, refined trace, scores of the trace, scores of the row's hint].

    Raises:
        NotHere: the data is not part of this repository.
    """
    whole = SHARED / name
    if not whole.is_file():
        raise NotHere("the shared ChartQA sample is not here")
    rows = [
        {"question": row[question], "answer": row[answer], "table": row["table"], "hint": row.get("hint")}
        for row in lines(whole)
        if row.get("table")
    ]
    found: dict[str, Any] = {"sha256": hashlib.sha256(whole.read_bytes()).hexdigest()}
    for row, (key, trace) in zip(rows, _by_rules(folder, rows, *options).items()):
        reject = trace.startswith("! ")
        refined = adapter.refined(row, row["hint"])
        found[key] = [
            trace if reject else digest(trace),
            None if refined is None else digest(refined),
            None if reject else rounded(adapter.checker_says(row, trace)),
            None if row["hint"] is None else rounded(adapter.checker_says(row, row["hint"])),
        ]
    return found


def rounded(parts: list[float | None]) -> list[float | None]:
    return [None if part is None else round(part, 6) for part in parts]


def requests(_: Path) -> Any:
    """Request keys that need no command; those of `cot build`, `cot facts` and a refiner are held by `frozen`."""
    return adapter.request_keys(corpus()[:6])


def weights(_: Path) -> Any:
    """SHA-256 of toast-tiny's files."""
    [folder] = ROOT.glob("toasterft/**/toast-tiny")
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.suffix != ".md"
    }


# --- parts: trainings ------------------------------------------------------------------------

TRAINED = (
    "max_steps=2", "save_steps=2", "per_device_train_batch_size=2", "gradient_accumulation_steps=1",
    "max_completion_length=24", "eval_limit=2", "lora.r=1", "lora.lora_alpha=2", "learning_rate=1e-3",
    "optim=adamw_torch", "dtype=float32", "load_in_4bit=false",
)  # fmt: skip
# From the run that was taught: its samples have the form, and differ in what they earn.
SAMPLED = (
    "--model", "runs/taught", "max_completion_length=32", "per_device_train_batch_size=8", "num_generations=4",
    "rewards={accuracy: 1, format: 1, thinking: 1}",
)  # fmt: skip
TRAININGS = {
    "sft": (),
    "dpo": ("eval_data=charts",),
    "grpo": (*SAMPLED, "num_iterations=2", "beta=0.04"),
    "dyme": (*SAMPLED, "soft_power=1", "temperature=1.5"),
}


def unpacked(folder: Path) -> None:
    """The frozen folder's content, and its rows as pairs whose worse half is the next row's trace."""
    with tarfile.open(FROZEN) as file:
        file.extractall(folder, filter="data")
    rows = lines(folder / "charts" / "train.jsonl")
    pairs = (
        {**row, "image": f"charts/{row['image']}"}
        | {"rejected": f"<think>{other['reasoning']}</think><answer>no {row['answer']}</answer>"}
        for row, other in zip(rows, [*rows[1:], rows[0]])
    )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")


def losses(run: Path) -> dict[str, dict[str, Any]]:
    """All figures of each step that do not measure the machine."""
    measured = ("seconds", "memory", "rollout_tokens", "usd")
    return {
        str(row["step"]): {name: value for name, value in row.items() if not name.startswith(measured)}
        for row in lines(run / "metrics.jsonl")
        if "grad_norm" in row
    }


def trainings(folder: Path) -> Any:
    """Two seeded steps of every method on toast-tiny: losses, and the keys of all that a run leaves."""
    found: dict[str, Any] = {}
    with home(folder):
        unpacked(folder)
        for method, more in TRAININGS.items():
            run, data = Path("runs", method), "pairs.jsonl" if method == "dpo" else "charts"
            model = () if "--model" in more else ("--model", "toast-tiny")
            said(method, *model, "--data", data, "--out", run, "--quiet", *TRAINED, *more)
            found[method] = {"losses": losses(run), **_left(run)}
        found["cards"] = {"charts": keys(json.loads(Path("charts/card.json").read_text()))}
        said("charts", "make", "drawn", "--n", 4, "--seed", 3)
        said("cot", "build", "built", "--from", "charts", "--teacher", "rules", "--quiet")
        said(
            "cot",
            "pairs",
            "pairs",
            "--from",
            "charts",
            "--model",
            "toast-tiny",
            "--n",
            "2",
            "--quiet",
            *PAIRED,
        )
        for name in ("drawn", "data/built", "data/pairs"):
            card = json.loads(Path(name, "card.json").read_text())
            found["cards"][name] = {
                "keys": keys(without(card, {"versions"})),
                "resume identity": card.get("build"),
            }
    return found


PAIRED = ("max_completion_length=24", "limit=4", "dtype=float32", "load_in_4bit=false")


def _left(run: Path) -> dict[str, Any]:
    """Files of a run, the keys in them, its settings, and what a resume compares."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    notes = run / "toasterft.json"
    # What is installed, and what a plan has to say, depend on the machine.
    return {
        "files": sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()),
        "run.json": keys(
            {name: value for name, value in record.items() if name not in ("versions", "notes")}
        ),
        "metrics.jsonl": keys(lines(run / "metrics.jsonl")) if (run / "metrics.jsonl").exists() else None,
        "samples.jsonl": keys(lines(run / "samples.jsonl")) if (run / "samples.jsonl").exists() else None,
        "toasterft.json": json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else None,
        "recipe.yaml": yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")),
        "resume identity": [record["data_sha256"], record["data_count"], record["data_split"]],
    }


EVALUATED = ("--quiet", "max_completion_length=24", "load_in_4bit=false", "dtype=float32")
BUILDS = {
    "plain": ("--teacher", "teacher.yaml"),
    "blind": ("--teacher", "teacher.yaml", "--blind", "--tries", "1"),
    "judged": ("--generators", "teacher.yaml", "--judges", "judge.yaml"),
}


def frozen(folder: Path) -> Any:
    """What was made on 2026-11-28 is used: a run goes on, is evaluated and reported; features and paid answers hold."""
    found: dict[str, Any] = {}
    with home(folder):
        unpacked(folder)
        [space] = Path("cache/features").iterdir()
        about = json.loads((space / "space.json").read_text(encoding="utf-8"))
        said("sft", "--resume", "runs/interrupted", "--quiet")
        record = json.loads(Path("runs/interrupted/run.json").read_text(encoding="utf-8"))
        found["resumed"] = {"losses": losses(Path("runs/interrupted")), "status": record["status"]}
        spaces = sorted(Path("cache/features").iterdir())
        # Another release of transformers prepares pictures for itself.
        if about["transformers"] == json.loads((spaces[-1] / "space.json").read_text())["transformers"]:
            assert spaces == [space], "the features of 2026-11-28 were not found"
            assert record["images_encoded"] == 0, "pictures were encoded again"
        del about["model"]
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        found["features"] = {"key": space.name, "is the digest of": about, "digest": key}
        # On that day `--limit 2` took the first two rows; today it draws two.
        asked = Path("charts/first.jsonl")
        asked.write_text("".join(Path("charts/test.jsonl").read_text().splitlines(keepends=True)[:2]))
        for name, model in {
            "resumed": "runs/interrupted",
            "of-taught": "runs/taught",
            "again": "toast-tiny",
        }.items():
            said("eval", model, "--data", asked, "--out", f"runs/{name}", *EVALUATED)
        first, again, resumed = (Path("runs", name) for name in ("evaluated", "again", "resumed"))
        identities = [json.loads((run / "run.json").read_text())["identity"] for run in (first, again)]
        found["evaluated"] = {
            "identities": identities,
            "answers": [
                [row["id"], row["item"], row["text"], row["correct"]]
                for row in lines(again / "samples.jsonl")
            ],
            "answers of the resumed": [row["text"] for row in lines(resumed / "samples.jsonl")],
            "answers of the taught": [
                without(row, {"images", "question"}) for row in lines(Path("runs/of-taught/samples.jsonl"))
            ],
            **_left(again),
        }
        found["shown"] = keys(without(as_json("show", "runs/interrupted"), {"versions", "notes"}))
        found["listed"] = [[row["id"], row["method"], row["status"]] for row in as_json("runs")["runs"]]
        found["compared"] = keys(as_json("compare", first, again))
        said("report", "runs/interrupted", "runs/evaluated", "-o", "report.html")
        page = Path("report.html").read_text(encoding="utf-8")
        found["report"] = [row["question"] in page for row in lines(first / "samples.jsonl")]
        for name, options in BUILDS.items():
            said("cot", "build", name, "--from", "bare.jsonl", "--budget", 1, "--quiet", *options)
            found[f"cot build {name}"] = _paid(Path("data", name), "reasoning")
        said(
            "cot",
            "facts",
            "bare.jsonl",
            "--name",
            "seen",
            "--teacher",
            "teacher.yaml",
            "--budget",
            1,
            "--quiet",
        )
        found["cot facts"] = _paid(Path("data", "seen"), "facts")
        said(
            "dyme", "--model", "toast-tiny", "--data", "charts", "--out", "runs/helped", "--quiet", *TRAINED,
            "max_steps=1", "num_generations=2", "per_device_train_batch_size=4", "max_completion_length=6",
            "eval_limit=1", "refiner=teacher.yaml", "teachers_usd=1",
        )  # fmt: skip
        step = lines(Path("runs/helped/metrics.jsonl"))[0]
        found["dyme with a refiner"] = {name: step[name] for name in step if name.startswith("refiner/")}
    return found


def _paid(folder: Path, column: str) -> dict[str, Any]:
    """A build that must have found all its answers: nobody listens where its teacher was."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return {
        "resume identity": card["build"],
        "counts": card["counts"],
        "rows": [[row["id"], row[column]] for row in lines(folder / "train.jsonl")],
    }


PARTS: dict[str, Callable[[Path], Any]] = {
    part.__name__: part
    for part in (
        commands, estimates, memory, traces, rules, chartqa, chartqa_blind, chartqa_text, requests, weights,
        trainings, frozen,
    )
}  # fmt: skip
SMALL = {"requests", "weights"}
# Of these `make soak` runs the tests; `make test` has rates on the same questions.
SLOW = {"chartqa", "chartqa_blind", "chartqa_text"}


# --- storing and comparing -------------------------------------------------------------------


def golden(name: str) -> Path:
    return HERE / (f"{name}.json.gz" if name not in SMALL else f"{name}.json")


def stored(name: str) -> Any:
    data = golden(name).read_bytes()
    return json.loads(data if name in SMALL else gzip.decompress(data))


def store(name: str, value: Any) -> None:
    if name not in SMALL:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        golden(name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    else:
        golden(name).write_text(json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1) + "\n")


def measured(name: str) -> Any:
    """What today's code gives, as it would be read back."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(json.dumps(PARTS[name](Path(folder))))


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """A line for each thing that is another one now."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            below = f"{where} / {key}" if where else key
            if key not in new:
                yield f"{below}: gone ({short(old[key])})"
            elif key not in old:
                yield f"{below}: new ({short(new[key])})"
            else:
                yield from differences(old[key], new[key], below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for n, pair in enumerate(zip(old, new)):
            yield from differences(*pair, f"{where}[{n}]")
    elif not alike(old, new):
        yield f"{where}: {short(old)} → {short(new)}"


def alike(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, float) or isinstance(new, float):
        numbers = isinstance(old, (int, float)) and isinstance(new, (int, float))
        return numbers and math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(old == new)


def short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"


def compare(name: str) -> list[str]:
    """Differences of one part from what is stored."""
    return list(differences(stored(name), measured(name)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--write", action="store_true", help="store what today's code gives")
    parser.add_argument("--all", action="store_true", help="show every difference")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    different = 0
    for name in given.parts or PARTS:
        try:
            if given.write:
                store(name, measured(name))
                print(f"{name}: written, {golden(name).stat().st_size:,} bytes")
                continue
            found = compare(name)
        except NotHere as missing:
            print(f"{name}: skipped, {missing}")
            continue
        print(f"{name}: {len(found) or 'no'} difference{'' if len(found) == 1 else 's'}")
        for line in found if given.all else found[:SHOWN]:
            print(f"  {line}")
        if len(found) > SHOWN and not given.all:
            print(f"  … {len(found) - SHOWN} more (--all)")
        different += bool(found)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())

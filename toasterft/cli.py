"""The commands: parse, one call, show. Nothing here imports torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import toasterft
from toasterft import cache, catalog, job, ledger, places, recipe, show
from toasterft.errors import ToasterError, UserError
from toasterft.recipe import Trained

app = typer.Typer(
    help="Fine-tune small vision-language models on one cheap GPU, with the bill known before the start.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(help="The recipes that come with toasterft.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
charts_app = typer.Typer(
    help="Charts drawn on demand, with questions whose answers can be checked.", no_args_is_help=True
)
app.add_typer(charts_app, name="charts")

Words = Annotated[
    list[str] | None,
    typer.Argument(help="A recipe (file or shipped name) and key=value settings.", show_default=False),
]
Model = Annotated[str | None, typer.Option("--model", help="Folder, earlier run, catalog name, or hub id.")]
Data = Annotated[str | None, typer.Option("--data", help="Folder, .jsonl/.json, catalog name, or hub id.")]
GpuName = Annotated[str | None, typer.Option("--gpu", help="GPU to plan for.")]
Price = Annotated[float | None, typer.Option("--price", help="Dollars per hour, instead of the catalog's.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Use only the first N examples.")]
Seed = Annotated[int | None, typer.Option("--seed")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder to use; must be new or empty.")]
RunsDir = Annotated[Path | None, typer.Option("--runs-dir", help="Where runs are kept (TOASTERFT_RUNS).")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan and stop; needs no torch, data or weights.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Step = Annotated[bool, typer.Option("--step", help='Append "Let\'s think step by step." to the question.')]
Suffix = Annotated[str | None, typer.Option("--suffix", help="Append this text to the question.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        show.version_line(toasterft.__version__)
        raise typer.Exit


# --- training --------------------------------------------------------------------------------


@app.command()
def sft(
    words: Words = None,
    model: Model = None,
    data: Data = None,
    gpu: GpuName = None,
    price: Price = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    runs_dir: RunsDir = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Supervised fine-tuning (4-bit QLoRA) on questions with reasoning and answers."""
    flags = {"model": model, "data": data, "gpu": gpu, "price": price, "limit": limit, "seed": seed}
    train("sft", words, flags, out=out, runs_dir=runs_dir, dry_run=dry_run, json=json, quiet=quiet)


def train(
    method: str,
    words: list[str] | None,
    flags: dict[str, Any],
    *,
    out: Path | None,
    runs_dir: Path | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
) -> None:
    """What every training command does: plan, show, and unless it is a dry run, launch."""
    source, settings = split_words(words)
    wanted = recipe.load(method, source, settings, flags)
    assert isinstance(wanted, Trained)
    prepared = job.prepare_training(wanted, places.runs_dir(runs_dir), out=out)
    edges = job.edges(prepared) if dry_run else []
    if not json and not quiet:
        show.plan(prepared, edges)
    if dry_run:
        if json:
            show.as_json(plan_json(prepared, edges))
        return
    job.require_ready(prepared)
    from toasterft import run

    record = run.launch(prepared, show.reporter(quiet=quiet))
    if json:
        show.as_json(record.record)
    elif not quiet:
        show.summary(record.record, str(record.path))


def plan_json(prepared: job.Job, edges: list[dict[str, Any]]) -> dict[str, Any]:
    """The plan as `--dry-run --json` prints it."""
    assert prepared.estimate is not None
    return {
        "method": prepared.recipe.method,
        "model": prepared.model.name,
        "data": prepared.data_name,
        "engine": prepared.engine,
        "survey": vars(prepared.survey),
        "rows": [prepared.estimate.as_json()],
        "image_longest_edges": edges,
        "recipe": prepared.recipe.model_dump(mode="json"),
    }


def split_words(words: list[str] | None) -> tuple[str | None, list[str]]:
    """The recipe among the words, and the key=value settings."""
    sources = [word for word in words or [] if "=" not in word]
    if len(sources) > 1:
        raise UserError(
            f"more than one recipe: {', '.join(sources)}",
            next_step="one recipe file, then key=value settings",
        )
    return (sources[0] if sources else None), [word for word in words or [] if "=" in word]


# --- using a model ---------------------------------------------------------------------------


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Run or model to evaluate.")],
    words: Words = None,
    data: Data = None,
    step: Step = False,
    suffix: Suffix = None,
    gpu: GpuName = None,
    price: Price = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy with 95 % intervals, by three scorers."""
    source, settings = split_words(words)
    flags = {
        "model": model,
        "data": data,
        "step": step or None,
        "suffix": suffix,
        "gpu": gpu,
        "price": price,
        "limit": limit,
        "seed": seed,
    }
    wanted = recipe.load("eval", source, settings, flags)
    assert isinstance(wanted, recipe.Eval)
    prepared = job.prepare_use(wanted, places.runs_dir(runs_dir), data_name=Path(wanted.data).stem, out=out)
    from toasterft import run

    record = run.launch(prepared, show.reporter(quiet=quiet))
    if json:
        show.as_json({**record.record["eval"], "run": str(record.path)})
    else:
        show.scores(record.record["eval"])
        show.line(f"answers in {record.path / ledger.SAMPLES_FILE}", "dim")


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="Run or model to ask.")],
    image: Annotated[Path, typer.Argument(help="Image file.")],
    question: Annotated[str, typer.Argument(help="Question about it.")],
    words: Words = None,
    step: Step = False,
    suffix: Suffix = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One question about one image."""
    _, settings = split_words(words)
    wanted = recipe.load("ask", None, settings, {"model": model, "step": step or None, "suffix": suffix})
    prepared = job.prepare_use(wanted, places.runs_dir(runs_dir))
    from toasterft import run

    answer = run.launch(prepared, show.reporter(quiet=quiet), image=image, question=question)
    if json:
        show.as_json(answer)
        return
    if answer["reasoning"]:
        show.line(answer["reasoning"].strip(), "dim")
    show.line(answer["answer"], "bold")


# --- looking around --------------------------------------------------------------------------


@app.command()
def runs(runs_dir: RunsDir = None, json: Json = False) -> None:
    """All runs, oldest first."""
    found = ledger.runs(places.runs_dir(runs_dir))
    if json:
        show.as_json({"runs": [run.record for run in found]})
        return
    rows = []
    for run in found:
        record = run.record
        measured, score = (
            record.get("measured") or {},
            (record.get("eval") or {}).get("scores", {}).get("robust"),
        )
        rows.append(
            [
                run.id,
                record["status"],
                show.duration(measured.get("seconds")),
                show.dollars(measured.get("usd")),
                show.percent(score),
            ]
        )
    show.table(["run", "status", ">time", ">dollars", ">accuracy (95 %)"], rows)


@app.command("show")
def show_run(
    name: Annotated[str, typer.Argument(help="Run name or folder.")],
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """One run: what was asked, what it took, what came out."""
    found = ledger.open_run(name, places.runs_dir(runs_dir))
    if json:
        show.as_json(found.record)
    else:
        show.summary(found.record, str(found.path))


@app.command()
def models(json: Json = False) -> None:
    """The models that have a catalog name."""
    from toasterft.shapes import shape_from_config

    rows = list(catalog.models().values())
    shapes = {row.name: shape_from_config(row.config, row.preprocessor) for row in rows}
    if json:
        show.as_json(
            {"models": [{**vars(row), "total_params": shapes[row.name].total_params} for row in rows]}
        )
        return
    show.table(
        ["name", "hub id", "architecture", ">parameters", ">800×557 chart", "checked"],
        [
            [
                row.name,
                row.hub_id,
                shapes[row.name].model_type,
                f"{shapes[row.name].total_params / 1e6:,.0f} M",
                f"{shapes[row.name].geometry.image_tokens(800, 557):,} tokens",
                row.verified,
            ]
            for row in rows
        ],
    )


@app.command()
def gpus(json: Json = False) -> None:
    """The GPUs a plan can be made for, with dated prices."""
    import datetime

    today = datetime.date.today()
    rows = list(catalog.gpus().values())
    if json:
        show.as_json(
            {"gpus": [{**vars(row), "offers": [vars(offer) for offer in row.offers]} for row in rows]}
        )
        return
    table = []
    for row in rows:
        offer = row.default_offer
        price = "–" if offer is None else f"${offer.usd_per_hour:.2f}"
        dated = "no offer: give --price" if offer is None else f"{offer.provider}, {offer.as_of or 'undated'}"
        flag = offer.flag(today) if offer is not None and offer.as_of is not None else None
        table.append(
            [
                row.name,
                f"{row.vram_gb:.0f} GB",
                "yes" if row.bf16 else "no",
                f"{row.half_tflops:.0f}",
                f"{row.bandwidth_gb_s:,.0f} GB/s",
                price,
                dated + (f" ({flag})" if flag else ""),
            ]
        )
    show.table(["GPU", ">memory", "bf16", ">TFLOP/s", ">bandwidth", ">$/h", "price from"], table)


@app.command()
def doctor(runs_dir: RunsDir = None, json: Json = False) -> None:
    """What is installed here, what is missing, and what to do about it."""
    from toasterft import health

    checks = health.checks(places.runs_dir(runs_dir))
    if json:
        show.as_json({"checks": [vars(check) for check in checks], "ok": all(check.ok for check in checks)})
    else:
        show.table(
            ["", "what", "found", "remedy"],
            [["✓" if check.ok else "!", check.name, check.found, check.remedy] for check in checks],
        )


@app.command("cache")
def cache_command(
    action: Annotated[str, typer.Argument(help="`show` or `clear`.")] = "show", json: Json = False
) -> None:
    """The image-feature cache: what it holds, and a way to empty it."""
    if action not in ("show", "clear"):
        raise UserError(
            f"unknown action {action!r}", next_step="toasterft cache   or   toasterft cache clear"
        )
    spaces = cache.spaces()
    freed = cache.clear() if action == "clear" else 0
    if json:
        show.as_json(
            {
                "root": str(cache.root()),
                "limit_bytes": cache.default_limit_bytes(),
                "freed_bytes": freed,
                "spaces": [vars(space) for space in spaces],
            }
        )
    elif action == "clear":
        show.line(f"freed {show.size(freed)} in {cache.root()}")
    else:
        show.table(
            ["model", "dtype", ">images", ">size"],
            [
                [
                    str(space.about.get("model")),
                    str(space.about.get("dtype")),
                    f"{space.entries:,}",
                    show.size(space.size_bytes),
                ]
                for space in spaces
            ],
        )
        show.line(f"in {cache.root()}; default limit {show.size(cache.default_limit_bytes())}", "dim")


@recipes_app.command("list")
def recipes_list(json: Json = False) -> None:
    """Names and purposes."""
    found = {name: _purpose(path) for name, path in recipe.shipped().items()}
    if json:
        show.as_json({"recipes": found})
    else:
        show.table(["recipe", "purpose"], [[name, purpose] for name, purpose in found.items()])


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="Shipped recipe.")],
    to: Annotated[
        Path | None, typer.Argument(help="File to write; here under its own name by default.")
    ] = None,
) -> None:
    """An editable copy."""
    source = recipe.find(name)
    target = to or Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise UserError(
            "this file exists; nothing is overwritten", where=str(target), next_step="name another file"
        )
    places.write_atomic(target, source.read_text(encoding="utf-8"))
    show.line(f"wrote {target}")


@recipes_app.command("fields")
def recipes_fields(
    method: Annotated[str, typer.Argument(help="A command such as sft.")], json: Json = False
) -> None:
    """Every key of a command's recipe, with its default."""
    if method not in recipe.RECIPES:
        raise UserError(f"no recipe for {method!r}", why=f"there are: {', '.join(recipe.RECIPES)}")
    found = recipe.fields(recipe.RECIPES[method])
    if json:
        show.as_json({name: {"default": default, "about": about} for name, (default, about) in found.items()})
    else:
        show.table(
            ["key", "default", "what it does"],
            [[name, str(default), about] for name, (default, about) in found.items() if name != "method"],
        )


def _purpose(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


# --- charts and the demo ---------------------------------------------------------------------


@charts_app.command("make")
def charts_make(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Charts.")] = 2000,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    difficulty: Annotated[Literal["core", "full", "hard"], typer.Option("--difficulty")] = "core",
    style: Annotated[
        Literal["simplified", "structured", "none"], typer.Option("--style", help="Trace to write.")
    ] = "simplified",
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="Comma-separated question kinds; all by default.")
    ] = None,
    per_chart: Annotated[int, typer.Option("--per-chart", min=1, help="Questions per chart.")] = 3,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a data set of charts with questions, answers, reasoning and the tables behind them."""
    from toasterft import charts

    report = show.reporter(quiet=quiet)
    report.phase("drawing", n)
    try:
        charts.write_dataset(
            folder, n=n, seed=seed, difficulty=difficulty, style=style, per_chart=per_chart, progress=report.advance,
            kinds=kinds.split(",") if kinds else None,
        )  # fmt: skip
    finally:
        report.done()
    card = places.read_json(folder / "card.json")
    if json:
        show.as_json(card)
    else:
        show.line(f"wrote {folder}: {n:,} charts, train/validation/test")
        show.line(f"next  toasterft sft --model toast-tiny --data {folder}", "dim")


@charts_app.command("pretrain")
def charts_pretrain(
    words: Words = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the model.")] = Path("toast-tiny"),
    seed: Seed = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Teach toast-tiny to see, from random weights: an hour or two on two CPU cores."""
    source, settings = split_words(words)
    wanted = recipe.load("pretrain", source, settings, {"seed": seed})
    from toasterft.methods import pretrain

    pretrain.run(wanted, out, show.reporter(quiet=quiet), resume=resume)
    if not quiet:
        show.line(f"wrote {out}")
        show.line(f"next  toasterft eval {out} --data <charts>", "dim")


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; must be new or empty.")] = None,
    methods: Annotated[str, typer.Option("--methods", help="Comma-separated training methods.")] = "sft",
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of five.")] = False,
    seed: Seed = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The main job on charts drawn here, with the embedded model: no GPU, no hub, no data needed."""
    from toasterft import demo as story

    known = [name for name, schema in recipe.RECIPES.items() if issubclass(schema, Trained)]
    wanted = methods.split(",")
    for method in wanted:
        if method not in known:
            raise UserError(f"unknown method {method!r}", why=f"there are: {', '.join(known)}")
    folder = out or story.fresh_folder()
    size = story.QUICK if quick else story.FULL
    plan = (lambda _: None) if json or quiet else (lambda prepared: show.plan(prepared, []))
    found = story.play(folder, wanted, size, show.reporter(quiet=quiet), plan, seed=seed or 0)
    if json:
        show.as_json(story.as_json(found))
    else:
        show.story(story.as_json(found), story.told(found))


# --- the way in ------------------------------------------------------------------------------


def main() -> None:
    """Run the command line; every explained ending prints one message and has its own exit code."""
    json_output = "--json" in sys.argv[1:]
    try:
        app()
    except ToasterError as problem:
        show.error(problem, json_output=json_output)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        show.err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing is wrong, and nobody is listening.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

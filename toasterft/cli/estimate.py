"""`toasterft estimate …`: memory, hours and dollars of any run, before anything runs. No torch, no GPU."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from toasterft import catalog, paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.cli.train import CLIP_LOW, CLIP_LOW_HELP
from toasterft.errors import BudgetError, UserError
from toasterft.estimation import fit, plan, suggest
from toasterft.estimation import teachers as teaching
from toasterft.jobs import calibrate
from toasterft.jobs import prepare as job
from toasterft.models import lookup
from toasterft.recipe import Eval, Trained

app = typer.Typer()
estimate_app = typer.Typer(
    help="Memory, hours and dollars of a run before it starts, on any GPU.", no_args_is_help=True
)
app.add_typer(estimate_app, name="estimate")

Simulate = Annotated[
    bool,
    typer.Option(
        "--simulate", help="Replay the steps on torch's meta device and count live bytes (imports torch)."
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure",
        help="Run a few worst-case steps on this machine first; later estimates use what they measured.",
    ),
]
AnyGpu = Annotated[
    str | None,
    typer.Option("--gpu", help="GPU to plan for, `cpu` for this processor, or `all` to compare them."),
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Dollars: say what would fit, where the run does not.")
]


def command(method: str, about: str) -> None:
    """Add the estimate of one command; they share every flag."""

    @estimate_app.command(
        method,
        help=about,
        epilog=opt.example(f"estimate {method} --model SmolVLM-256M --data smolcot-7k --gpu all"),
    )
    def _(
        words: opt.Words = None,
        model: opt.Model = None,
        data: opt.Data = None,
        clip_low: Annotated[
            bool, typer.Option("--clip-low", help=CLIP_LOW_HELP, hidden=method != "grpo")
        ] = False,
        gpu: AnyGpu = None,
        price: opt.Price = None,
        usd: Budget = None,
        limit: opt.Limit = None,
        runs_dir: opt.RunsDir = None,
        simulate: Simulate = False,
        measure: Measure = False,
        json: opt.Json = False,
    ) -> None:
        if clip_low and method != "grpo":
            raise UserError(f"--clip-low is a setting of grpo, not of {method}")
        preset = [f"{key}={value}" for key, value in CLIP_LOW.items()] if clip_low else []
        flags = {"model": model, "data": data, "gpu": gpu, "price": price, "limit": limit}
        replayed = _replay if simulate else None
        _estimate(
            method,
            [*preset, *(words or [])],
            flags,
            usd,
            paths.runs_dir(runs_dir),
            json=json,
            replay=replayed,
            measure=measure,
        )


for _method, _schema in recipe.RECIPES.items():
    if issubclass(_schema, Trained) or _schema is Eval:
        command(_method, f"What `toasterft {_method}` would take: {_schema.__doc__}")


@estimate_app.command(epilog=opt.example("estimate train clgrpo-4stage --gpu all"))
def train(
    words: opt.Words = None,
    model: opt.Model = None,
    data: opt.Data = None,
    gpu: AnyGpu = None,
    price: opt.Price = None,
    usd: Budget = None,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
) -> None:
    """What `toasterft train` would take: a recipe's stages, one after the other."""
    source, settings = opt.split_words(words)
    wanted = recipe.load("train", source, settings, {"model": model, "data": data})
    everywhere = (gpu or "").lower() == "all"
    changes = {"gpu": None if everywhere else gpu, "price": price}
    jobs = {
        f"{number + 1} {wanted.stage(number).method}": job.prepare_training(
            wanted.stage(number).model_copy(update=changes), paths.runs_dir(runs_dir)
        )
        for number in range(len(wanted.stages))
    }
    first = next(iter(jobs.values()))
    gpus = (catalog.gpus() if everywhere else {}) | {first.target.gpu.name: first.target.gpu}
    today = datetime.date.today()
    rows = plan.ranked(
        plan.staged(
            {name: each.plan.on(row, price=price, today=today) for name, each in jobs.items() if each.plan}
        )
        for row in gpus.values()
    )
    cheapest = plan.cheapest(rows)
    chosen = (cheapest if everywhere else None) or next(
        row for row in rows if row.gpu == first.target.gpu.name
    )
    if usd is not None and chosen.usd is None:
        raise BudgetError(f"no price known for {chosen.gpu}", next_step="give --price DOLLARS_PER_HOUR")
    within = None if usd is None or chosen.usd is None else chosen.usd.likely <= usd
    if json:
        terminal.as_json(
            {
                "method": "train",
                "model": first.model.name,
                "rows": [row.as_json() for row in rows],
                "cheapest_fit": cheapest.gpu if cheapest else None,
                "budget": None if usd is None else {"usd": usd, "gpu": chosen.gpu, "within": within},
            }
        )
        return
    terminal.line(
        f"estimate train  {first.model.name} on {first.data_name}, {len(jobs)} stages, for {chosen.gpu}",
        "bold",
    )
    if everywhere:
        terminal.print_gpu_table(rows, gpus, cheapest, plan.cheapest(rows, rented=True))
    terminal.print_estimate(chosen, gpus[chosen.gpu].vram_gb)
    if within is not None:
        verdict = "within" if within else "more than"
        terminal.line(
            f"likely {verdict} the budget of ${usd:g}; each stage may spend its `budget_share` of it"
        )
    terminal.print_caveat(first.plan.stats.provenance if first.plan else "")


@estimate_app.command(epilog=opt.example("estimate cot --data chartqa --rows 7000 --budget 25"))
def cot(
    data: Annotated[str, typer.Option("--data", help="Folder, .jsonl/.json, catalog name, or hub id.")],
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="Traces to write; one per row of the data by default.")
    ] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="API model; all known by default.")] = None,
    usd: Budget = None,
    json: opt.Json = False,
) -> None:
    """What a teacher behind an API would take to write reasoning for a data set."""
    sizes = job.measure(data)
    count = rows or sum(sizes.rows.values())
    teachers = [catalog.teacher(teacher)] if teacher else list(catalog.teachers().values())
    today = datetime.date.today()
    lessons = teaching.ranked(
        [teaching.of_cot(sizes, count, row, budget_usd=usd, today=today) for row in teachers]
    )
    if json:
        terminal.as_json(
            {
                "data": Path(data).stem,
                "provenance": sizes.provenance,
                "budget_usd": usd,
                "teachers": [row.as_json() for row in lessons],
            }
        )
    else:
        terminal.print_teacher_costs(Path(data).stem, lessons, sizes.provenance, usd)


def _replay(prepared: job.Job) -> dict[str, Any]:
    """Each phase's peak replayed on the `meta` device, beside the closed form; heavy.

    Raises:
        UserError: an evaluation, which the replay does not cover.
    """
    planned = prepared.plan
    if planned is None or not isinstance(planned.recipe, Trained):
        raise UserError(
            "--simulate replays training: sft, grpo, dyme, dpo", next_step="leave it out for eval"
        )
    from toasterft.estimation import simulate

    found = simulate.of_plan(planned, lookup.config_of(prepared.model))
    closed = planned.phase_bytes(prepared.target.gpu)
    extra = ("cuda_context", "allocator_slack", "cuda_and_slack")
    return {
        phase: {
            "simulated_bytes": row["peak"],
            "closed_form_bytes": sum(value for name, value in closed[phase].items() if name not in extra),
            "items_bytes": {
                name: value for name, value in row.items() if isinstance(value, int) and name != "peak"
            },
        }
        for phase, row in found.items()
    }


def _estimate(
    method: str,
    words: list[str],
    flags: dict[str, Any],
    usd: float | None,
    runs_dir: Path,
    *,
    json: bool,
    replay: Callable[[job.Job], dict[str, Any]] | None = None,
    measure: bool = False,
) -> None:
    source, settings = opt.split_words(words)
    wanted = recipe.load(method, source, settings, flags)
    everywhere = (wanted.gpu or "").lower() == "all"
    wanted = wanted.model_copy(update={"gpu": None}) if everywhere else wanted
    prepare = job.prepare_training if isinstance(wanted, Trained) else job.prepare_evaluation
    prepared = prepare(wanted, runs_dir)
    if measure:
        found = calibrate.of(prepared)
        if not json:
            terminal.print_calibration(found)
        prepared = prepare(wanted, runs_dir)
    planned, today = prepared.plan, datetime.date.today()
    assert planned is not None
    target = prepared.target.gpu
    gpus = (catalog.gpus() if everywhere else {}) | {target.name: target}
    rows = plan.ranked(planned.on(gpu, price=wanted.price, today=today) for gpu in gpus.values())
    cheapest = plan.cheapest(rows)
    # What is said about one GPU is said about this one.
    chosen = (cheapest if everywhere else None) or next(row for row in rows if row.gpu == target.name)
    gpu = gpus[chosen.gpu]
    ways = fit.ways(planned, gpu)
    edges = [] if everywhere else job.edges(prepared)
    simulated = replay(prepared) if replay is not None else None
    offers = None
    if usd is not None:
        if chosen.usd is None:
            raise BudgetError(
                f"no price known for {gpu.name}: nothing to hold a budget against",
                next_step="give --price DOLLARS_PER_HOUR",
            )
        over = chosen.usd.likely > usd
        offers = suggest.within(planned, gpu, usd, price=wanted.price, today=today) if over else []
    if json:
        stats = planned.stats
        terminal.as_json(
            {
                "method": method,
                "model": prepared.model.name,
                "data": prepared.data_name,
                "survey": vars(stats),
                "total_tokens": round(stats.rows * stats.row_tokens),
                "over_max_length_share": stats.over_max_length / stats.rows,
                "rows": [row.as_json() for row in rows],
                "cheapest_fit": cheapest.gpu if cheapest else None,
                "image_longest_edges": edges,
                "ladder": [vars(way) for way in ways],
                "simulated": simulated,
                "budget": None
                if offers is None
                else {
                    "usd": usd,
                    "gpu": gpu.name,
                    "within": not over,
                    "suggestions": [offer.as_json() for offer in offers],
                },
                "recipe": planned.recipe.model_dump(mode="json"),
            }
        )
        return
    terminal.print_workload(prepared, "all GPUs" if everywhere else f"{gpu.name}, {prepared.target.reason}")
    if everywhere:
        terminal.print_gpu_table(rows, gpus, cheapest, plan.cheapest(rows, rented=True))
    else:
        terminal.print_estimate(chosen, gpu.vram_gb)
        terminal.print_other_sizes(edges)
    if simulated is not None:
        terminal.print_simulation(simulated)
    terminal.print_changes(ways, gpu.name)
    if offers is not None and usd is not None:
        terminal.print_budget(usd, chosen, offers)
    terminal.print_caveat(planned.stats.provenance)

"""`toasterft estimate …`: memory, hours and dollars of any run, before anything runs. No torch, no GPU."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from toasterft import catalog, paths, recipe, terminal
from toasterft.catalog import Gpu
from toasterft.cli import options as opt
from toasterft.cli.commands import about
from toasterft.cli.train import CLIP_LOW_HELP, preset
from toasterft.errors import BudgetError, UserError
from toasterft.estimation import Estimate, fit, plan, suggest
from toasterft.estimation import teachers as teacher_costs
from toasterft.jobs import calibrate, prepare
from toasterft.models import lookup
from toasterft.recipe import Eval, Trained
from toasterft.terminal.estimates import (
    print_calibration,
    print_caveat,
    print_estimate,
    print_gpu_table,
    print_teacher_costs,
    print_workload,
)
from toasterft.terminal.plans import print_budget, print_changes, print_other_sizes, print_simulation

app = Typer()
estimate_app = Typer(help=about("estimate"), no_args_is_help=True)
app.add_typer(estimate_app, name="estimate")

AnyGpu = Annotated[
    str | None,
    Option("--gpu", help="GPU to plan for, `cpu` for this processor, or `all` to compare them."),
]
Budget = Annotated[float | None, opt.amount("Dollars: suggest changes where the run costs more.", "--budget")]


def command(method: str, purpose: str) -> None:
    """Add the estimate of one command; they share every flag."""
    shown = opt.example(f"estimate {method} --model SmolVLM-256M --data smolcot-7k --gpu all")

    @estimate_app.command(method, help=purpose, epilog=shown)
    def _(
        words: opt.Words = None,
        model: opt.Model = None,
        data: opt.Data = None,
        images: opt.Images = None,
        clip_low: Annotated[bool, Option("--clip-low", help=CLIP_LOW_HELP, hidden=method != "grpo")] = False,
        gpu: AnyGpu = None,
        price: opt.Price = None,
        usd: Budget = None,
        limit: opt.Limit = None,
        runs_dir: opt.RunsDir = None,
        simulate: Annotated[
            bool, Option("--simulate", help="Replay the steps on torch's meta device (imports torch).")
        ] = False,
        measure: Annotated[
            bool, Option("--measure", help="First run a few worst-case steps on this machine, and calibrate.")
        ] = False,
        json: opt.Json = False,
    ) -> None:
        flags = {
            "model": model,
            "data": data,
            "images": images,
            "gpu": gpu,
            "price": price,
            "limit": limit,
        }
        source, settings = opt.split_words([*preset(method, clip_low=clip_low), *(words or [])])
        wanted = recipe.load(method, source, settings, flags)
        _estimate(wanted, usd, paths.runs_dir(runs_dir), json=json, simulate=simulate, measure=measure)


for _method, _schema in {**recipe.TRAININGS, "eval": Eval}.items():
    command(_method, f"What `toasterft {_method}` would take: {_schema.__doc__}")


@dataclass(frozen=True)
class _Ranking:
    """One run on one GPU or on all of them; `chosen` is the one that details are about."""

    gpus: dict[str, Gpu]
    rows: list[Estimate]
    cheapest: Estimate | None
    chosen: Estimate

    def is_over(self, usd: float | None) -> bool | None:
        """Whether more than a budget is likely; None without one.

        Raises:
            BudgetError: there is a budget, and no price.
        """
        if usd is None:
            return None
        if self.chosen.usd is None:
            raise BudgetError(
                f"no price known for {self.chosen.gpu}; --budget needs one",
                next_step="--price DOLLARS_PER_HOUR",
            )
        return self.chosen.usd.likely > usd

    def print(self) -> None:
        print_gpu_table(self.rows, self.gpus, self.cheapest, plan.cheapest(self.rows, rented=True))

    @property
    def cheapest_name(self) -> str | None:
        return self.cheapest.gpu if self.cheapest else None


def _rank(target: Gpu, everywhere: bool, estimate: Callable[[Gpu], Estimate]) -> _Ranking:
    gpus = (catalog.gpus() if everywhere else {}) | {target.name: target}
    rows = plan.ranked(map(estimate, gpus.values()))
    cheapest = plan.cheapest(rows)
    chosen = (cheapest if everywhere else None) or next(row for row in rows if row.gpu == target.name)
    return _Ranking(gpus, rows, cheapest, chosen)


@estimate_app.command(epilog=opt.example("estimate train clgrpo-4stage --gpu all"))
def train(
    words: opt.Words = None,
    model: opt.Model = None,
    data: opt.Data = None,
    images: opt.Images = None,
    gpu: AnyGpu = None,
    price: opt.Price = None,
    usd: Budget = None,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
) -> None:
    """What `toasterft train` would take: a recipe's stages, one after the other."""
    source, settings = opt.split_words(words)
    wanted = recipe.load("train", source, settings, {"model": model, "data": data, "images": images})
    everywhere = (gpu or "").lower() == "all"
    changes = {"gpu": None if everywhere else gpu, "price": price}
    runs = paths.runs_dir(runs_dir)
    jobs = [prepare.prepare_training(stage.model_copy(update=changes), runs) for stage in wanted.recipes()]
    first, today = jobs[0], datetime.date.today()

    def on(gpu: Gpu) -> Estimate:
        return plan.sum_stages({
            f"{number} {each.recipe.method}": each.plan.on(gpu, price=price, today=today)
            for number, each in enumerate(jobs, 1)
            if each.plan
        })  # fmt: skip

    ranking = _rank(first.target.gpu, everywhere, on)
    chosen, over = ranking.chosen, ranking.is_over(usd)
    if json:
        budget = None if over is None else {"usd": usd, "gpu": chosen.gpu, "within": not over}
        terminal.as_json({
            "method": "train", "model": first.model.name, "rows": [row.as_json() for row in ranking.rows],
            "cheapest_fit": ranking.cheapest_name, "budget": budget,
        })  # fmt: skip
        return
    about = f"{first.model.name} on {first.data_name}, {len(jobs)} stages, for {chosen.gpu}"
    terminal.line(f"estimate train  {about}", "bold")
    if everywhere:
        ranking.print()
    print_estimate(chosen, ranking.gpus[chosen.gpu].vram_gb)
    if over is not None:
        verdict = "more than" if over else "within"
        terminal.line(
            f"likely {verdict} the budget of ${usd:g}; each stage may spend its `budget_share` of it"
        )
    print_caveat(first.plan.stats.provenance if first.plan else "")


@estimate_app.command(epilog=opt.example("estimate cot --data chartqa --rows 7000 --budget 25"))
def cot(
    data: Annotated[str, Option(help="Folder, .jsonl/.json, catalog name, or hub id.")],
    images: opt.Images = None,
    rows: Annotated[
        int | None, Option(min=1, help="Traces to write; one per row of the data by default.")
    ] = None,
    teacher: Annotated[str | None, Option(help="API model; all known by default.")] = None,
    usd: Budget = None,
    json: opt.Json = False,
) -> None:
    """What a teacher behind an API would take to write reasoning for a data set."""
    sizes = prepare.measure(data, images)
    count = rows or sum(sizes.rows.values())
    teachers = [catalog.teacher(teacher)] if teacher else list(catalog.teachers().values())
    today = datetime.date.today()
    costs = teacher_costs.ranked(
        [teacher_costs.of_cot(sizes, count, row, budget_usd=usd, today=today) for row in teachers]
    )
    if json:
        terminal.as_json({
            "data": Path(data).stem, "provenance": sizes.provenance, "budget_usd": usd,
            "teachers": [row.as_json() for row in costs],
        })  # fmt: skip
    else:
        print_teacher_costs(Path(data).stem, costs, sizes.provenance, usd)


def _replay(prepared: prepare.Job) -> dict[str, Any]:
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
    wanted: Any, usd: float | None, runs_dir: Path, *, json: bool, simulate: bool, measure: bool
) -> None:
    everywhere = (wanted.gpu or "").lower() == "all"
    wanted = wanted.model_copy(update={"gpu": None}) if everywhere else wanted
    prepare_run = prepare.prepare_training if isinstance(wanted, Trained) else prepare.prepare_evaluation
    prepared = prepare_run(wanted, runs_dir)
    if measure:
        found = calibrate.measure(prepared)
        if not json:
            print_calibration(found)
        prepared = prepare_run(wanted, runs_dir)
    planned, today = prepared.plan, datetime.date.today()
    assert planned is not None
    ranking = _rank(
        prepared.target.gpu, everywhere, lambda gpu: planned.on(gpu, price=wanted.price, today=today)
    )
    gpu = ranking.gpus[ranking.chosen.gpu]
    changes = fit.ways(planned, gpu)
    edges = [] if everywhere else prepare.edges(prepared)
    simulated = _replay(prepared) if simulate else None
    over = ranking.is_over(usd)
    offers = (
        suggest.within(planned, gpu, usd, price=wanted.price, today=today) if over and usd is not None else []
    )
    if json:
        stats = planned.stats
        budget = None if over is None else {
            "usd": usd, "gpu": gpu.name, "within": not over, "suggestions": [offer.as_json() for offer in offers],
        }  # fmt: skip
        terminal.as_json({
            "method": wanted.method,
            "model": prepared.model.name,
            "data": prepared.data_name,
            "survey": vars(stats),
            "total_tokens": round(stats.rows * stats.row_tokens),
            "over_max_length_share": stats.over_max_length / stats.rows,
            "rows": [row.as_json() for row in ranking.rows],
            "cheapest_fit": ranking.cheapest_name,
            "image_longest_edges": edges,
            "ladder": [vars(change) for change in changes],
            "simulated": simulated,
            "budget": budget,
            "recipe": planned.recipe.model_dump(mode="json"),
        })  # fmt: skip
        return
    print_workload(prepared, "all GPUs" if everywhere else f"{gpu.name}, {prepared.target.reason}")
    if everywhere:
        ranking.print()
    else:
        print_estimate(ranking.chosen, gpu.vram_gb)
        print_other_sizes(edges)
    if simulated is not None:
        print_simulation(simulated)
    print_changes(changes, gpu.name)
    if over is not None and usd is not None:
        print_budget(usd, ranking.chosen, offers)
    print_caveat(planned.stats.provenance)

"""`toasterft cot …`: reasoning traces and visual facts, from a teacher behind an API or from rules; and pairs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Option, Typer

from toasterft import paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.cli.commands import about
from toasterft.data import sources, write
from toasterft.errors import UserError
from toasterft.jobs import execute, guards, prepare
from toasterft.teachers import directory, styles, traces
from toasterft.teachers import facts as visual_facts
from toasterft.teachers.api import Service
from toasterft.teachers.plan import FactsPlan, TracesPlan, expect_facts, expect_traces, require_within_budget
from toasterft.terminal import teachers as printing

app = Typer()
cot_app = Typer(help=about("cot"), no_args_is_help=True)
app.add_typer(cot_app, name="cot")

# The rules read every mark they compare, and their traces cost nothing but the student's sequence.
RULES_TRACE_TOKENS = 768

Source = Annotated[str, Option("--from", help="Folder, .jsonl/.json, catalog name, or hub id.")]
Budget = Annotated[float | None, opt.amount("Dollars: refused if more is likely, never passed.")]
Concurrency = Annotated[int, Option(min=1, help="Requests at once.")]
Tries = Annotated[int, Option(min=1, help="Requests per row until one will do.")]
MaxTokens = Annotated[int, Option(min=16, help="Longest answer in tokens, thinking included.")]
BaseUrl = Annotated[str | None, Option(help="OpenAI-compatible address.")]
ModelId = Annotated[str | None, Option(help="The model's name at that address.")]
PriceIn = Annotated[float | None, opt.amount("Dollars per million tokens read.", free=True)]
PriceOut = Annotated[float | None, opt.amount("Dollars per million tokens written.", free=True)]
ApiKeyEnv = Annotated[str | None, Option(help="Environment variable that holds the key.")]
EstimateOnly = Annotated[bool, Option("--dry-run", help="Show the estimate and stop.")]


@cot_app.command(
    epilog=opt.example("cot build smolcot-7k --from charts --teacher gemini --n 7000 --budget 25")
)
def build(
    name: opt.NewName,
    source: Source,
    images: opt.Images = None,
    teacher: Annotated[
        str | None, Option(help="`rules` (from tables, no network), a catalog name, a .yaml row, a model.")
    ] = None,
    style: Annotated[
        str, Option(help="simplified, structured, or a prompt file with {question} in it.")
    ] = "simplified",
    n: Annotated[int | None, Option("--n", min=1, help="Traces wanted; all rows by default.")] = None,
    budget: Budget = None,
    blind: Annotated[bool, Option("--blind", help="Withhold the answer from the teacher.")] = False,
    generators: Annotated[str | None, Option(help="Self-supervised: teachers A,B[,C] that write.")] = None,
    judges: Annotated[
        str | None, Option(help="Self-supervised: who must recover the answer; the writers.")
    ] = None,
    split: opt.Split = None,
    concurrency: Concurrency = 8,
    tries: Tries = 2,
    max_tokens: MaxTokens = 8192,
    max_trace_tokens: Annotated[int | None, Option(min=8, help="Longest trace that is kept.")] = None,
    temperature: Annotated[float, Option(min=0, max=2)] = 0.7,
    base_url: BaseUrl = None,
    model_id: ModelId = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    api_key_env: ApiKeyEnv = None,
    seed: Annotated[int, Option()] = 0,
    out: opt.NewFolder = None,
    dry_run: EstimateOnly = False,
    yes: opt.Yes = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write reasoning for a data set, keep what holds, and go on where a killed run stopped."""
    writers = _names(generators) or ([teacher] if teacher else [])
    if (generators and teacher) or not writers:
        raise UserError(
            "give either --teacher or --generators",
            next_step="--teacher rules   needs no network; --teacher NAME --budget USD asks an API",
        )
    if judges and not generators:
        raise UserError("--judges go with --generators", next_step="--generators A,B --judges C")
    by_rules = writers == [directory.RULES]
    address = directory.Address(base_url, model_id, price_in, price_out, api_key_env)
    today = datetime.date.today()
    services = () if by_rules else tuple(directory.find(one, address, today) for one in writers)
    bench = tuple(directory.find(one, address, today) for one in _names(judges))
    panel = (bench or services) if generators else ()
    if generators:
        _require_panel(services, panel, blind=blind)
    data = sources.load(source, split=split, images=images)
    limit = max_trace_tokens or (RULES_TRACE_TOKENS if by_rules else None)
    plan = TracesPlan(
        name=name, folder=write.dataset_folder(name, out), data_name=source, data=data,
        style=styles.load(style, blind=blind, max_trace_tokens=limit), n=min(n or len(data), len(data)),
        teachers=services, judges=panel, blind=blind, budget_usd=budget, concurrency=concurrency,
        tries=1 if generators else tries, max_tokens=max_tokens, temperature=temperature, seed=seed,
    )  # fmt: skip
    card = _carry_out(plan, expect_traces(plan), traces.run, dry_run=dry_run, yes=yes, json=json, quiet=quiet)
    if card is not None:
        opt.show(json, card, lambda: printing.print_traces(card, plan))


@cot_app.command(epilog=opt.example("cot facts my_folder --teacher gemini --budget 5"))
def facts(
    source: Annotated[str, Argument(help="Folder, .jsonl/.json, catalog name, or hub id.")],
    teacher: Annotated[str, Option(help="A model that sees: a catalog name, a .yaml row, a model.")],
    name: Annotated[str | None, Option(help="Name of the new data set; the source's and -facts.")] = None,
    pictures: Annotated[
        int | None, Option(min=1, help="Read at most so many pictures; all by default.")
    ] = None,
    budget: Budget = None,
    images: opt.Images = None,
    split: opt.Split = None,
    concurrency: Concurrency = 8,
    tries: Tries = 2,
    max_tokens: MaxTokens = 8192,
    base_url: BaseUrl = None,
    model_id: ModelId = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    api_key_env: ApiKeyEnv = None,
    out: opt.NewFolder = None,
    dry_run: EstimateOnly = False,
    yes: opt.Yes = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Have each picture read once, so that a checker can hold reasoning against what is in it."""
    address = directory.Address(base_url, model_id, price_in, price_out, api_key_env)
    data = sources.load(source, split=split, images=images)
    chosen = name or f"{data.name}-facts"
    plan = FactsPlan(
        name=chosen, folder=write.dataset_folder(chosen, out), data_name=source, data=data,
        teacher=directory.find(teacher, address, datetime.date.today()), most=pictures, budget_usd=budget,
        concurrency=concurrency, tries=tries, max_tokens=max_tokens,
    )  # fmt: skip
    card = _carry_out(
        plan, expect_facts(plan), visual_facts.run, dry_run=dry_run, yes=yes, json=json, quiet=quiet,
        things="pictures", fewer="--pictures",
    )  # fmt: skip
    if card is not None:
        opt.show(json, card, lambda: printing.print_facts(card, plan, own=out is not None))


@cot_app.command(epilog=opt.example("cot pairs my-pairs --from charts --model runs/RUN --n 500"))
def pairs(
    name: opt.NewName,
    source: Source,
    model: Annotated[str, Option(help="Whose wrong answers: folder, run, catalog name, or hub id.")],
    words: opt.Words = None,
    n: Annotated[
        int | None, Option("--n", min=1, help="Pairs wanted; one for every row that gives one.")
    ] = None,
    images: opt.Images = None,
    tries: Annotated[int | None, Option(min=1, help="Samples per row; 4 by default.")] = None,
    temperature: Annotated[float | None, Option(min=0.01, help="Of sampling; 1.0 by default.")] = None,
    split: opt.Split = None,
    price: opt.Price = None,
    budget: Annotated[float | None, opt.amount("Dollars of this machine: never passed.")] = None,
    max_hours: opt.MaxHours = None,
    seed: opt.Seed = None,
    out: opt.NewFolder = None,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Pairs for `dpo`: each row's trace and answer beside a wrong sample of the model's own (loads the model)."""
    flags = {
        "data": source, "images": images, "model": model, "n": n, "tries": tries, "temperature": temperature, "split": split,
        "price": price, "seed": seed,
    }  # fmt: skip
    file, settings = opt.split_words(words)
    wanted = recipe.load("pairs", file, settings, flags)
    prepared = prepare.prepare_use(wanted, paths.runs_dir(runs_dir), data_name=source, out=out)
    prepared = guards.with_caps(prepared, budget, max_hours)
    guards.require_within_caps(prepared, over=True)

    card = execute.launch(prepared, terminal.reporter(quiet=quiet), name=name)
    folder = out or paths.data_dir() / name
    own = out is not None
    opt.show(json, card, lambda: printing.print_pairs(card, folder, name, model, own=own))


def _carry_out(
    plan: Any,
    expected: Any,
    run: Callable[..., dict[str, Any]],
    *,
    dry_run: bool,
    yes: bool,
    json: bool,
    quiet: bool,
    **counted: str,
) -> dict[str, Any] | None:
    """Show a job's plan, hold it against its budget and run it.

    Args:
        counted: `things` and `fewer` of `require_within_budget`.

    Returns:
        The card of the data set; None after a dry run.
    """
    if not json:
        printing.print_teacher_plan(plan, expected, datetime.date.today())
    if dry_run:
        bill = {
            "requests": expected.requests,
            "most_requests": expected.most_requests,
            "usd": vars(expected.usd) if expected.usd else None,
        }
        if json:
            terminal.as_json({"build": plan.identity, "n": plan.n, "expected": bill})
        return None
    require_within_budget(plan, expected, yes=yes, **counted)
    return run(plan, expected, terminal.reporter(quiet=quiet))


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _require_panel(writers: tuple[Service, ...], judges: tuple[Service, ...], *, blind: bool) -> None:
    """
    Raises:
        UserError: writers that do not see the answer, or one whom nobody else could judge.
    """
    if blind:
        raise UserError(
            "--generators see the answer; --blind has no meaning there", next_step="leave --blind out"
        )
    for writer in writers:
        if all(judge.model_id == writer.model_id for judge in judges):
            raise UserError(
                f"nobody but {writer.name} could judge what {writer.name} writes",
                why="a rationale is kept when another model can tell the answer from it",
                next_step="--generators A,B   or   --judges C",
            )

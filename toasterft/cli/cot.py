"""`toasterft cot …`: reasoning traces and visual facts, from a teacher behind an API or from rules; and pairs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from toasterft import terminal
from toasterft.cli.options import Json, Price, Quiet, RunsDir, Seed, Words, Yes, example, split_words
from toasterft.errors import UserError

if TYPE_CHECKING:
    from toasterft.progress import Reporter
    from toasterft.teachers.api import Service
    from toasterft.teachers.facts import Plan as Reading
    from toasterft.teachers.plan import Expected, Plan

app = typer.Typer()
cot_app = typer.Typer(
    help="Reasoning traces for data that has none, with the bill known before the start.",
    no_args_is_help=True,
)
app.add_typer(cot_app, name="cot")

# The rules read every mark they compare, and their traces cost nothing but the student's sequence.
RULES_TRACE_TOKENS = 768

Source = Annotated[str, typer.Option("--from", help="Folder, .jsonl/.json, catalog name, or hub id.")]
Split = Annotated[str | None, typer.Option("--split", help="Rows to use; train by default.")]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Dollars: refused if more is likely, never passed.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Requests at once.")]
Tries = Annotated[int, typer.Option("--tries", min=1, help="Requests per row until one will do.")]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=16, help="Longest answer in tokens, thinking included.")
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="OpenAI-compatible address.")]
ModelId = Annotated[str | None, typer.Option("--model-id", help="The model's name at that address.")]
PriceIn = Annotated[float | None, typer.Option("--price-in", min=0, help="Dollars per million tokens read.")]
PriceOut = Annotated[
    float | None, typer.Option("--price-out", min=0, help="Dollars per million tokens written.")
]
ApiKeyEnv = Annotated[
    str | None, typer.Option("--api-key-env", help="Environment variable that holds the key.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write, instead of NAME's own.")]
EstimateOnly = Annotated[bool, typer.Option("--dry-run", help="Show the estimate and stop.")]

Planned = TypeVar("Planned", "Plan", "Reading")


@cot_app.command(epilog=example("cot build smolcot-7k --from charts --teacher gemini --n 7000 --budget 25"))
def build(
    name: Annotated[str, typer.Argument(help="Name of the new data set; `--data NAME` finds it.")],
    source: Source,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher", help="`rules` (from tables, no network), a catalog name, a .yaml row, a model."
        ),
    ] = None,
    style: Annotated[
        str, typer.Option("--style", help="simplified, structured, or a prompt file with {question} in it.")
    ] = "simplified",
    n: Annotated[int | None, typer.Option("--n", min=1, help="Traces wanted; all rows by default.")] = None,
    budget: Budget = None,
    blind: Annotated[bool, typer.Option("--blind", help="Withhold the answer from the teacher.")] = False,
    generators: Annotated[
        str | None, typer.Option("--generators", help="Self-supervised: teachers A,B[,C] that write.")
    ] = None,
    judges: Annotated[
        str | None,
        typer.Option("--judges", help="Self-supervised: who must recover the answer; the writers."),
    ] = None,
    split: Split = None,
    concurrency: Concurrency = 8,
    tries: Tries = 2,
    max_tokens: MaxTokens = 8192,
    max_trace_tokens: Annotated[
        int | None, typer.Option("--max-trace-tokens", min=8, help="Longest trace that is kept.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2)] = 0.7,
    base_url: BaseUrl = None,
    model_id: ModelId = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    api_key_env: ApiKeyEnv = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    out: Out = None,
    dry_run: EstimateOnly = False,
    yes: Yes = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write reasoning for a data set, keep what holds, and go on where a killed run stopped."""
    from toasterft.data import sources, write
    from toasterft.teachers import directory, styles
    from toasterft.teachers import plan as planning
    from toasterft.teachers import traces as building

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
        _check_panel(services, panel, blind=blind)
    data = sources.load(source, split=split)
    limit = max_trace_tokens or (RULES_TRACE_TOKENS if by_rules else None)
    planned = planning.Plan(
        name=name, folder=write.folder_of(name, out), data_name=source, data=data,
        style=styles.load(style, blind=blind, max_trace_tokens=limit), n=min(n or len(data), len(data)),
        teachers=services, judges=panel, blind=blind, budget_usd=budget, concurrency=concurrency,
        tries=1 if generators else tries, max_tokens=max_tokens, temperature=temperature, seed=seed,
    )  # fmt: skip
    expected = planning.expect(planned)
    if not json:
        _show_plan(planned, expected, today)
    card = _carry_out(building.run, planned, expected, dry_run=dry_run, yes=yes, json=json, quiet=quiet)
    if card is not None:
        _show_card(planned, card)


@cot_app.command(epilog=example("cot facts my_folder --teacher gemini --budget 5"))
def facts(
    source: Annotated[str, typer.Argument(help="Folder, .jsonl/.json, catalog name, or hub id.")],
    teacher: Annotated[
        str, typer.Option("--teacher", help="A model that sees: a catalog name, a .yaml row, a model.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the new data set; the source's and -facts.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option("--pictures", min=1, help="Read at most so many pictures; all by default.")
    ] = None,
    budget: Budget = None,
    split: Split = None,
    concurrency: Concurrency = 8,
    tries: Tries = 2,
    max_tokens: MaxTokens = 8192,
    base_url: BaseUrl = None,
    model_id: ModelId = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    api_key_env: ApiKeyEnv = None,
    out: Out = None,
    dry_run: EstimateOnly = False,
    yes: Yes = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have each picture read once, so that a checker can hold reasoning against what is in it."""
    from toasterft.data import sources, write
    from toasterft.teachers import directory
    from toasterft.teachers import facts as reading

    address = directory.Address(base_url, model_id, price_in, price_out, api_key_env)
    today = datetime.date.today()
    data = sources.load(source, split=split)
    chosen = name or f"{data.name}-facts"
    planned = reading.Plan(
        name=chosen, folder=write.folder_of(chosen, out), data_name=source, data=data,
        teacher=directory.find(teacher, address, today), most=pictures, budget_usd=budget,
        concurrency=concurrency, tries=tries, max_tokens=max_tokens,
    )  # fmt: skip
    expected = reading.expect(planned)
    if not json:
        _show_reading(planned, expected, today)
    card = _carry_out(
        reading.run, planned, expected, dry_run=dry_run, yes=yes, json=json, quiet=quiet, things="pictures",
        fewer="--pictures",
    )  # fmt: skip
    if card is None:
        return
    counts, where = card["counts"], planned.folder
    usd = terminal.dollars(card["spent"]["usd"])
    terminal.line(f"wrote {where}: facts for {counts['got_facts']:,} rows for {usd}", "bold green")
    _show_rejects(card, "pictures")
    if counts["had_facts"]:
        terminal.line(f"{counts['had_facts']:,} rows had facts before, and keep them")
    terminal.line(
        f"next  toasterft dyme --data {chosen if where.name == chosen and out is None else where}", "dim"
    )


@cot_app.command(epilog=example("cot pairs my-pairs --from charts --model runs/RUN --n 500"))
def pairs(
    name: Annotated[str, typer.Argument(help="Name of the new data set; `--data NAME` finds it.")],
    source: Source,
    model: Annotated[
        str, typer.Option("--model", help="Whose wrong answers: folder, run, catalog name, or hub id.")
    ],
    words: Words = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Pairs wanted; one for every row that gives one.")
    ] = None,
    tries: Annotated[
        int | None, typer.Option("--tries", min=1, help="Samples per row; 4 by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.01, help="Of sampling; 1.0 by default.")
    ] = None,
    split: Split = None,
    price: Price = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0, help="Dollars of this machine: never passed.")
    ] = None,
    max_hours: Annotated[float | None, typer.Option("--max-hours", help="Hours: as --budget.")] = None,
    seed: Seed = None,
    out: Out = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pairs for `dpo`: each row's trace and answer beside a wrong sample of the model's own (loads the model)."""
    from toasterft import paths, recipe
    from toasterft.jobs import prepare

    flags = {
        "data": source, "model": model, "n": n, "tries": tries, "temperature": temperature, "split": split,
        "price": price, "seed": seed,
    }  # fmt: skip
    file, settings = split_words(words)
    wanted = recipe.load("pairs", file, settings, flags)
    prepared = replace(
        prepare.prepare_use(wanted, paths.runs_dir(runs_dir), data_name=source, out=out),
        budget_usd=budget,
        max_seconds=None if max_hours is None else 3600 * max_hours,
    )
    prepare.require_within_caps(prepared, over=True)
    from toasterft.jobs import execute

    card = execute.launch(prepared, terminal.reporter(quiet=quiet), name=name)
    if json:
        terminal.as_json(card)
        return
    counts, folder = card["counts"], out or paths.data_dir() / name
    share = 100 * counts["right"] / max(1, counts["samples"])
    right = f"{share:.0f} % of {counts['samples']:,} samples were right"
    terminal.line(f"wrote {folder}: {counts['kept']:,} pairs; {right}", "bold green")
    _show_rejects(card, "rows")
    terminal.line(f"next  toasterft dpo --model {model} --data {name if out is None else folder}", "dim")


def _carry_out(
    run: Callable[[Planned, Expected, Reporter], dict[str, Any]],
    planned: Planned,
    expected: Expected,
    *,
    dry_run: bool,
    yes: bool,
    json: bool,
    quiet: bool,
    **counted: str,
) -> dict[str, Any] | None:
    """Hold a job against its budget and run it; the card, where it is left to the caller to show.

    With `--dry-run` nothing is run; with `--json` what came of it is printed here.

    Args:
        counted: `things` and `fewer` of `hold_against`.
    """
    from toasterft.teachers import plan as planning

    if dry_run:
        if json:
            terminal.as_json({"build": planned.identity, "n": planned.n, "expected": _as_json(expected)})
        return None
    planning.hold_against(planned, expected, yes=yes, **counted)
    card = run(planned, expected, terminal.reporter(quiet=quiet))
    if not json:
        return card
    terminal.as_json(card)
    return None


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _check_panel(services: tuple[Service, ...], panel: tuple[Service, ...], *, blind: bool) -> None:
    """Self-supervised construction needs somebody else to judge, and writers that see the answer."""
    if blind:
        raise UserError(
            "--generators see the answer; --blind has no meaning there", next_step="leave --blind out"
        )
    for writer in services:
        if all(judge.model_id == writer.model_id for judge in panel):
            raise UserError(
                f"nobody but {writer.name} could judge what {writer.name} writes",
                why="a rationale is kept when another model can tell the answer from it",
                next_step="--generators A,B   or   --judges C",
            )


def _as_json(expected: Expected) -> dict[str, Any]:
    return {"requests": expected.requests, "usd": vars(expected.usd) if expected.usd else None}


def _show_plan(planned: Plan, expected: Expected, today: datetime.date) -> None:
    terminal.line(f"cot build  {planned.name}", "bold cyan")
    what = f"{planned.n:,} {planned.style.name} traces from {len(planned.data):,} rows of {planned.data.name}"
    rows = [("for", what), ("style", f"up to {planned.style.max_trace_tokens} tokens a trace")]
    if not planned.teachers:
        rows.append(("teacher", "rules, from each row's table; no network, no cost"))
    for role, services in (("teacher", planned.teachers), ("judge", planned.judges)):
        rows += [_asked(role, service, today) for service in services]
    terminal.pairs([*rows, *_dollars(expected, planned.budget_usd)])


def _show_reading(planned: Reading, expected: Expected, today: datetime.date) -> None:
    terminal.line(f"cot facts  {planned.name}", "bold cyan")
    what = f"{planned.n:,} of {len(planned.pictures):,} pictures in {len(planned.data):,} rows of {planned.data.name}"
    rows = [("for", what), _asked("teacher", planned.teacher, today)]
    terminal.pairs([*rows, *_dollars(expected, planned.budget_usd)])


def _asked(role: str, service: Service, today: datetime.date) -> tuple[str, str]:
    """Who is asked, where, and at what price."""
    price = service.price
    flag = None if price.status == "given" else price.flag(today)
    return (
        role,
        f"{service.name} at {service.base_url}, ${price.input_usd_per_mtok:g} / "
        f"${price.output_usd_per_mtok:g} per M tokens in / out"
        + (f", {price.as_of}" if price.as_of else "")
        + (f" ({flag})" if flag else ""),
    )


def _dollars(expected: Expected, budget_usd: float | None) -> list[tuple[str, str]]:
    if expected.usd is None:
        return []
    budget = "" if budget_usd is None else f"; budget {terminal.dollars(budget_usd)}"
    return [("dollars", f"{terminal.ranged_usd(expected.usd)} for {expected.requests:,} requests{budget}")]


def _show_rejects(card: dict[str, Any], things: str) -> None:
    if card["rejects"]:
        rows = [[reason, f"{count:,}"] for reason, count in card["rejects"].items()]
        terminal.table(["left out", f">{things}"], rows)


def _show_card(planned: Plan, card: dict[str, Any]) -> None:
    counts, spent = card["counts"], card["spent"]
    usd = f" for {terminal.dollars(spent['usd'])}" if planned.teachers else ""
    terminal.line(f"wrote {planned.folder}: {counts['kept']:,} traces{usd}", "bold green")
    _show_rejects(card, "rows")
    terminal.line(
        f"next  toasterft sft --data {planned.name if planned.folder.name == planned.name else planned.folder}",
        "dim",
    )

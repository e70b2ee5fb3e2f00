"""`toasterft cot …`: data sets of reasoning traces, from a teacher behind an API or from rules."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toasterft import show
from toasterft.cli.options import Json, Quiet, Yes
from toasterft.errors import UserError

if TYPE_CHECKING:
    from toasterft.cot.plan import Expected, Plan
    from toasterft.endpoint import Service

app = typer.Typer()
cot_app = typer.Typer(
    help="Reasoning traces for data that has none, with the bill known before the start.",
    no_args_is_help=True,
)
app.add_typer(cot_app, name="cot")

# The rules read every mark they compare, and their traces cost nothing but the student's sequence.
RULES_TRACE_TOKENS = 768


@cot_app.command()
def build(
    name: Annotated[str, typer.Argument(help="Name of the new data set; `--data NAME` finds it.")],
    source: Annotated[str, typer.Option("--from", help="Folder, .jsonl/.json, catalog name, or hub id.")],
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
    budget: Annotated[
        float | None,
        typer.Option("--budget", min=0, help="Dollars: refused if more is likely, never passed."),
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Withhold the answer from the teacher.")] = False,
    generators: Annotated[
        str | None, typer.Option("--generators", help="Self-supervised: teachers A,B[,C] that write.")
    ] = None,
    judges: Annotated[
        str | None,
        typer.Option("--judges", help="Self-supervised: who must recover the answer; the writers."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Rows to use; train by default.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests at once.")] = 8,
    tries: Annotated[int, typer.Option("--tries", min=1, help="Requests per row until one will do.")] = 2,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=16, help="Longest answer in tokens, thinking included.")
    ] = 8192,
    max_trace_tokens: Annotated[
        int | None, typer.Option("--max-trace-tokens", min=8, help="Longest trace that is kept.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2)] = 0.7,
    base_url: Annotated[str | None, typer.Option("--base-url", help="OpenAI-compatible address.")] = None,
    model_id: Annotated[
        str | None, typer.Option("--model-id", help="The model's name at that address.")
    ] = None,
    price_in: Annotated[
        float | None, typer.Option("--price-in", min=0, help="Dollars per million tokens read.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", min=0, help="Dollars per million tokens written.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="Environment variable that holds the key.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write, instead of NAME's own.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the estimate and stop.")] = False,
    yes: Yes = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write reasoning for a data set, keep what holds, and go on where a killed run stopped."""
    from toasterft.cot import build as building
    from toasterft.cot import plan as planning
    from toasterft.cot import styles, teachers
    from toasterft.data import sources

    writers = _names(generators) or ([teacher] if teacher else [])
    if (generators and teacher) or not writers:
        raise UserError(
            "give either --teacher or --generators",
            next_step="--teacher rules   needs no network; --teacher NAME --budget USD asks an API",
        )
    if judges and not generators:
        raise UserError("--judges go with --generators", next_step="--generators A,B --judges C")
    by_rules = writers == [teachers.RULES]
    address = teachers.Address(base_url, model_id, price_in, price_out, api_key_env)
    today = datetime.date.today()
    services = () if by_rules else tuple(teachers.find(one, address, today) for one in writers)
    bench = tuple(teachers.find(one, address, today) for one in _names(judges))
    panel = (bench or services) if generators else ()
    if generators:
        _check_panel(services, panel, blind=blind)
    data = sources.load(source, split=split)
    limit = max_trace_tokens or (RULES_TRACE_TOKENS if by_rules else None)
    planned = planning.Plan(
        name=name, folder=building.folder_of(name, out), data_name=source, data=data,
        style=styles.load(style, blind=blind, max_trace_tokens=limit), n=min(n or len(data), len(data)),
        teachers=services, judges=panel, blind=blind, budget_usd=budget, concurrency=concurrency,
        tries=1 if generators else tries, max_tokens=max_tokens, temperature=temperature, seed=seed,
    )  # fmt: skip
    expected = planning.expect(planned)
    if not json:
        _show_plan(planned, expected, today)
    if dry_run:
        if json:
            show.as_json({"build": planned.identity, "n": planned.n, "expected": _as_json(expected)})
        return
    planning.hold_against(planned, expected, yes=yes)
    card = building.run(planned, expected, show.reporter(quiet=quiet))
    if json:
        show.as_json(card)
    else:
        _show_card(planned, card)


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
    show.line(f"cot build  {planned.name}", "bold cyan")
    what = f"{planned.n:,} {planned.style.name} traces from {len(planned.data):,} rows of {planned.data.name}"
    rows = [("for", what), ("style", f"up to {planned.style.max_trace_tokens} tokens a trace")]
    if not planned.teachers:
        rows.append(("teacher", "rules, from each row's table; no network, no cost"))
    for role, services in (("teacher", planned.teachers), ("judge", planned.judges)):
        for service in services:
            price = service.price
            flag = None if price.status == "given" else price.flag(today)
            rows.append(
                (
                    role,
                    f"{service.name} at {service.base_url}, ${price.input_usd_per_mtok:g} / "
                    f"${price.output_usd_per_mtok:g} per M tokens in / out"
                    + (f", {price.as_of}" if price.as_of else "")
                    + (f" ({flag})" if flag else ""),
                )
            )
    if expected.usd is not None:
        budget = "" if planned.budget_usd is None else f"; budget {show.dollars(planned.budget_usd)}"
        rows.append(
            ("dollars", f"{show.ranged_usd(expected.usd)} for {expected.requests:,} requests{budget}")
        )
    show.pairs(rows)


def _show_card(planned: Plan, card: dict[str, Any]) -> None:
    counts, spent = card["counts"], card["spent"]
    usd = f" for {show.dollars(spent['usd'])}" if planned.teachers else ""
    show.line(f"wrote {planned.folder}: {counts['kept']:,} traces{usd}", "bold green")
    if card["rejects"]:
        show.table(
            ["left out", ">rows"], [[reason, f"{count:,}"] for reason, count in card["rejects"].items()]
        )
    show.line(
        f"next  toasterft sft --data {planned.name if planned.folder.name == planned.name else planned.folder}",
        "dim",
    )

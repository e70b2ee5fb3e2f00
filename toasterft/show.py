"""Everything a person sees: the only module that knows rich, and the only place bytes become GB."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toasterft import catalog
from toasterft.catalog import Gpu
from toasterft.errors import ToasterError
from toasterft.estimate import Estimate, Spread
from toasterft.estimate.budget import Suggestion
from toasterft.estimate.ladder import Rung
from toasterft.estimate.teaching import Lesson
from toasterft.job import Job
from toasterft.progress import Reporter, Silent
from toasterft.recipe import Policy, Trained

# Results go to stdout, everything about the way there to stderr, so that `--json` can be piped.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

LIVE_EVERY_SECONDS = 0.2
PLAIN_EVERY_SECONDS = 15.0


# --- units -----------------------------------------------------------------------------------


def size(count: float | None) -> str:
    """Bytes as GB or MB (powers of ten, like the figures on the card's box)."""
    if count is None:
        return "–"
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def duration(seconds: float | None) -> str:
    """Seconds as s, min or h; two leading figures are all an estimate is worth."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 9.5 or seconds == 0 else f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def dollars(usd: float | None) -> str:
    if usd is None:
        return "–"
    return f"${usd:.2f}" if usd >= 0.095 or usd == 0 else f"${usd:.3f}"


def percent(rate: dict[str, float] | None) -> str:
    """A rate with its 95 % interval."""
    if rate is None:
        return "–"
    return f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f}–{100 * rate['high']:.1f})"


def spread(values: Any, unit: Any) -> str:
    """low–high with the likely value first."""
    return f"{unit(values.likely)}  ({unit(values.low)} – {unit(values.high)})"


# --- output ----------------------------------------------------------------------------------


def as_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A plain table; columns that start with `>` are right-aligned."""
    grid = Table(box=box.SIMPLE, title=title, title_justify="left", pad_edge=False)
    for place, column in enumerate(columns):
        # The first column is what people copy into the next command: it is never broken.
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        grid.add_column(column.removeprefix(">"), justify=justify, overflow="fold", no_wrap=place == 0)
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    out.print(grid)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Name and value, one pair a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(f"[bold]{escape(name)}[/]", escape(value))
    out.print(grid)


def line(text: str = "", style: str = "") -> None:
    out.print(Text(text, style=style))


def error(problem: ToasterError, *, json_output: bool) -> None:
    """Where, what, why, and the next step; on stdout too where a program is listening."""
    first, *rest = problem.lines()
    err.print(Text("✗ ", style="bold red") + Text(first, style="bold"), soft_wrap=True)
    for text in rest:
        err.print(Text(text), soft_wrap=True)
    if json_output:
        as_json(
            {
                "error": {
                    "kind": type(problem).__name__,
                    "where": problem.where,
                    "what": problem.what,
                    "why": problem.why,
                    "next_step": problem.next_step,
                    "details": list(problem.details),
                    "exit_code": problem.exit_code,
                }
            }
        )


# --- plans -----------------------------------------------------------------------------------


def plan(job: Job, edges: list[dict[str, Any]]) -> None:
    """What a training run will take, before it starts."""
    survey, planned = job.survey, job.estimate
    assert survey is not None
    assert planned is not None
    out.print()
    out.print(
        Text(f"{job.recipe.method}  ", style="bold cyan")
        + Text(f"{job.model.name}", style="bold")
        + Text(f" on {job.data_name}, {job.target.gpu.name} ({job.target.reason})")
    )
    price = planned.price
    pairs(
        [
            (
                "data",
                f"{survey.rows:,} rows, {survey.images:,} images of {survey.tiles:.1f} tiles; "
                f"{survey.row_tokens:.0f} tokens a row, longest {survey.longest_tokens:,}",
            ),
            ("steps", f"{planned.optimizer_steps:,} optimizer steps"),
            (
                "memory",
                f"{size(planned.vram_bytes['peak'])} of {job.target.gpu.vram_gb:.0f} GB, in phase {planned.phase}"
                + ("" if planned.fits else "  — does not fit"),
            ),
            ("time", spread(planned.seconds, duration)),
            (
                "dollars",
                "no price known: give --price"
                if planned.usd is None or price is None
                else f"{spread(planned.usd, dollars)}  at ${price['usd_per_hour']:.2f}/h, {price['source']}"
                + (f", {price['as_of']}" if price["as_of"] else ""),
            ),
            (
                "disk",
                ", ".join(
                    f"{size(value)} {name.replace('_', ' ')}" for name, value in planned.disk_bytes.items()
                ),
            ),
        ]
    )
    items = [
        (name.replace("_", " "), value)
        for name, value in planned.vram_bytes.items()
        if name != "peak" and value
    ]
    out.print(Text("         " + " · ".join(f"{name} {size(value)}" for name, value in items), style="dim"))
    for note in planned.notes:
        out.print(Text(f"! {note}", style="yellow"))
    if survey.over_max_length:
        out.print(
            Text(
                f"! {survey.over_max_length} rows are longer than max_length and would be left out",
                style="yellow",
            )
        )
    other_sizes(edges)
    out.print(
        Text("rough closed-form plan; unverified on CUDA. Sizes: ", style="dim")
        + Text(survey.provenance, style="dim")
    )


# --- estimates -------------------------------------------------------------------------------


# What a faster GPU would not help, and what would.
PACES = {
    "cpu": "waits for the CPU that prepares pictures: a faster GPU would not help",
    "launches": "waits for kernel launches: larger batches cost hardly any time",
}


def ranged_time(values: Spread) -> str:
    """likely (low–high), all in the unit that suits them."""
    if values.high < 600:
        unit, seconds = "s", 1
    else:
        unit, seconds = ("min", 60) if values.likely < 5400 else ("h", 3600)

    def figure(value: float) -> str:
        part = value / seconds
        return f"{part:.0f}" if part >= 9.5 or unit == "s" else f"{part:.1f}"

    return f"{figure(values.likely)} ({figure(values.low)}–{figure(values.high)}) {unit}"


def ranged_usd(values: Spread) -> str:
    """likely (low–high) dollars; one figure where they are all nothing."""
    if not values.high:
        return dollars(0)
    digits = 0 if values.likely >= 9.5 else 2 if values.likely >= 0.095 else 3
    return f"{dollars(values.likely)} ({values.low:.{digits}f}–{values.high:.{digits}f})"


def asked(job: Job, where: str) -> None:
    """What an estimate is about: the run and its data."""
    survey, recipe, plan = job.survey, job.recipe, job.plan
    assert survey is not None
    assert plan is not None
    out.print()
    out.print(
        Text(f"estimate {recipe.method}  ", style="bold cyan")
        + Text(job.model.name, style="bold")
        + Text(f" on {job.data_name}")
    )
    text_tokens = survey.prompt_tokens - survey.image_tokens
    rows = [
        ("for", where),
        (
            "data",
            f"{survey.rows:,} rows, {survey.images:,} images"
            + (f" of {survey.tiles:.1f} tiles" if survey.tiles > 1 else "")
            + f", {survey.rows * survey.row_tokens / 1e6:.1f} M tokens",
        ),
        (
            "a row",
            f"{survey.row_tokens:,.0f} tokens: {survey.image_tokens:,.0f} image, {text_tokens:.0f} text, "
            f"{survey.completion_tokens:.0f} to write; longest {survey.longest_tokens:,}",
        ),
    ]
    if isinstance(recipe, Trained):
        share = 100 * survey.over_max_length / survey.rows
        left_out = f"{share:.1f} % of the rows are longer and left out" if share else "no row is longer"
        held_out = plan.held_out_survey
        answered = f"{held_out.rows:,} questions answered" if held_out else "nothing evaluated"
        rows.append(("max_length", f"{recipe.max_length:,}: {left_out}"))
        rows.append(("run", f"{_batches(job)}; then {answered}"))
    pairs(rows)


def _batches(job: Job) -> str:
    recipe, steps = job.recipe, job.estimate.optimizer_steps if job.estimate else 0
    assert isinstance(recipe, Trained)
    size = f"{recipe.per_device_train_batch_size} × {recipe.gradient_accumulation_steps}"
    group = f" completions, {recipe.num_generations} per prompt" if isinstance(recipe, Policy) else " rows"
    return f"{steps:,} optimizer steps of {size}{group}"


def estimated(planned: Estimate, vram_gb: float) -> None:
    """One run on one GPU, phase by phase."""
    grid = _grid("phase", ">memory", "largest parts", ">time")
    for name, taken in planned.phase_seconds.items():
        items = planned.phase_bytes.get(name, {})
        grid.add_row(
            name,
            size(items["peak"]) if items else "–",
            _parts(items),
            ranged_time(taken),
            style="" if name == planned.phase else "dim",
        )
    total, outside = planned.seconds, planned.vram_bytes["cuda_and_slack"]
    grid.add_section()
    verdict = "fits" if planned.fits else "does not fit"
    grid.add_row(
        "all",
        size(planned.peak_bytes),
        f"of {vram_gb:.0f} GB: {verdict}; peak in {planned.phase}",
        ranged_time(total),
        style="bold green" if planned.fits else "bold red",
    )
    out.print(grid)
    line(f"memory includes {size(outside)} for CUDA and what its allocator holds back", "dim")
    for phase, limit in planned.pace.items():
        if limit in PACES:
            line(f"{phase} {PACES[limit]}", "dim")
    price = planned.price
    dated = f", {price['as_of']}" if price and price["as_of"] else ""
    pairs(
        [
            (
                "dollars",
                "no price known: give --price"
                if planned.usd is None or price is None
                else f"{ranged_usd(planned.usd)} at ${price['usd_per_hour']:.2f}/h, {price['source']}{dated}",
            ),
            (
                "disk",
                ", ".join(
                    f"{size(value)} {name.replace('_', ' ')}"
                    for name, value in planned.disk_bytes.items()
                    if value
                )
                or "nothing kept",
            ),
        ]
    )
    if planned.compute_units is not None:
        units = planned.compute_units
        line(f"on a paid plan {units.likely:.1f} ({units.low:.1f}–{units.high:.1f}) compute units")
    for note in planned.notes:
        _warn(note)


def _parts(items: dict[str, int], most: int = 3) -> str:
    """The largest items of a phase."""
    named = [pair for pair in items.items() if pair[0] not in ("peak", "cuda_and_slack") and pair[1]]
    largest = sorted(named, key=lambda item: -item[1])[:most]
    return ", ".join(f"{name.replace('_', ' ')} {size(value)}" for name, value in largest)


def compared(
    rows: Sequence[Estimate], gpus: dict[str, Gpu], cheapest: Estimate | None, rented: Estimate | None
) -> None:
    """One run on every GPU, cheapest first."""
    grid = _grid("GPU", ">memory", ">time", ">dollars", ">$/h")
    for row in rows:
        price = "–" if row.price is None else f"{row.price['usd_per_hour']:.2f}"
        mark = "▸ " if row is cheapest else "  "
        half = "" if gpus[row.gpu].bf16 else "*"
        grid.add_row(
            f"{mark}{row.gpu}{half}",
            f"{row.peak_bytes / 1e9:.1f} of {gpus[row.gpu].vram_gb:.0f} GB {'✓' if row.fits else '✗'}",
            ranged_time(row.seconds),
            "–" if row.usd is None else ranged_usd(row.usd),
            price + ("†" if row.price_flag else " "),
            style="bold green" if row is cheapest else "" if row.fits else "dim",
        )
    out.print(grid)
    if cheapest is None:
        line("fits none of the GPUs that have a price", "bold red")
    else:
        assert cheapest.usd is not None
        free = f", {_units(cheapest)}" if cheapest.compute_units else ""
        text = f"▸ cheapest that fits: {cheapest.gpu}, {ranged_usd(cheapest.usd)}{free}"
        line(text, "green")
        if rented is not None and rented is not cheapest and rented.usd is not None:
            line(f"  cheapest rented:     {rented.gpu}, {ranged_usd(rented.usd)}", "green")
    if any(row.price_flag for row in rows):
        line(
            f"† price undated or over {catalog.STALE_AFTER_DAYS} days old: check it, or give --price",
            "yellow",
        )
    if any(not gpus[row.gpu].bf16 for row in rows):
        line("* no bfloat16: runs in float16", "yellow")


def _units(row: Estimate) -> str:
    assert row.compute_units is not None
    units = row.compute_units
    return f"or {units.likely:.1f} ({units.low:.1f}–{units.high:.1f}) compute units on a paid plan"


def other_sizes(rows: Sequence[dict[str, Any]]) -> None:
    """The same run at other image sizes."""
    if rows:
        table(
            ["longest edge", ">tiles", ">tokens/row", ">longest", ">memory", ">time", ">dollars"],
            [
                [
                    f"{row['image_longest_edge']} px",
                    f"{row['tiles']:.1f}",
                    f"{row['row_tokens']:.0f}",
                    f"{row['longest_tokens']:,}",
                    size(row["peak_bytes"]),
                    duration(row["seconds"]),
                    dollars(row["usd"]),
                ]
                for row in rows
            ],
        )


def rungs(ways: Sequence[Rung], gpu: str) -> None:
    """What to change when a run does not fit."""
    if not ways:
        return
    out.print()
    line(f"does not fit {gpu}; what would change that (exact keeps the mathematics):", "bold")
    grid = _grid("kind", "change", ">memory", "")
    for way in ways:
        grid.add_row(
            way.kind,
            way.words(),
            size(way.peak_bytes),
            "✓" if way.fits else "✗",
            style="" if way.fits else "dim",
        )
    out.print(grid)


def within_budget(usd: float, planned: Estimate, offers: Sequence[Suggestion]) -> None:
    """Whether a run is within a sum of money, and what would be."""
    assert planned.usd is not None
    out.print()
    likely = ranged_usd(planned.usd)
    if planned.usd.likely <= usd:
        line(f"within the budget of {dollars(usd)} on {planned.gpu}: {likely}", "bold green")
        if planned.usd.high > usd:
            line("at the slow end of the estimate it is not", "yellow")
        return
    line(f"over the budget of {dollars(usd)} on {planned.gpu}: {likely}", "bold red")
    if not offers:
        line("no single change brings it down to that; --gpu all compares GPUs")
        return
    line("each of these alone is within it:")
    grid = _grid("less of", "change", ">dollars", ">time", ">memory")
    for offer in offers:
        found = offer.estimate
        change = " ".join(f"{key}={value}" for key, value in offer.changes.items())
        assert found.usd is not None
        grid.add_row(
            offer.what,
            change,
            ranged_usd(found.usd),
            ranged_time(found.seconds),
            size(found.peak_bytes) + ("" if found.fits else " ✗"),
        )
    out.print(grid)


def taught(data: str, lessons: Sequence[Lesson], provenance: str, usd: float | None) -> None:
    """What teachers would take to write reasoning for a data set."""
    one = lessons[0]
    out.print()
    out.print(
        Text("estimate cot  ", style="bold cyan")
        + Text(f"{one.rows:,} traces", style="bold")
        + Text(f" for {data}")
    )
    pairs(
        [
            (
                "a request",
                f"{one.prompt_tokens:.0f} tokens of text and {one.image_tokens:,.0f} of image in, "
                f"{one.completion_tokens:.0f} out and what is thought",
            )
        ]
    )
    grid = _grid("teacher", ">dollars", ">batch", ">$/M in/out", *([">rows"] if usd is not None else []))
    for row in lessons:
        price = row.price
        cells = [
            row.teacher,
            ranged_usd(row.usd),
            "–" if row.batch_usd is None else dollars(row.batch_usd.likely),
            f"{price['input_usd_per_mtok']:.2f}/{price['output_usd_per_mtok']:.2f}"
            + ("†" if row.flag else " "),
        ]
        if usd is not None:
            cells.append(f"{row.affordable_rows:,}")
        grid.add_row(*cells, style="" if row.usable else "dim")
    out.print(grid)
    for row in lessons:
        if row.flag:
            _warn(f"† {row.teacher}: {row.flag}")
    if usd is not None:
        line(f"rows: traces that the likely cost leaves within {dollars(usd)}")
    line(
        "batch: half price for an answer within a day. Likely: some thinking, one request in seven repeated; "
        "high: thinking as in a published data set's bill. "
        f"Sizes: {provenance}",
        "dim",
    )


def caveat(provenance: str) -> None:
    """What every estimate rests on."""
    out.print(Text(f"rough closed-form plan; unverified on CUDA. Sizes: {provenance}", style="dim"))


def _grid(*columns: str) -> Table:
    """A table whose first column is never broken; columns that start with `>` are right-aligned."""
    grid = Table(box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        grid.add_column(column.removeprefix(">"), justify=justify, no_wrap=place == 0 or justify == "right")
    return grid


def _warn(text: str) -> None:
    out.print(Text(f"! {text}", style="yellow"))


# --- runs and scores -------------------------------------------------------------------------


def scores(result: dict[str, Any]) -> None:
    """Accuracy with intervals, overall and by kind."""
    table(
        ["scorer", ">accuracy (95 % interval)"],
        [[name, percent(rate)] for name, rate in result["scores"].items()],
        title=f"{result['n']} questions",
    )
    if result["by_kind"]:
        table(
            ["kind", ">n", ">robust accuracy"],
            [[kind, str(row["n"]), percent(row["robust"])] for kind, row in result["by_kind"].items()],
        )
    read = result.get("pairs")
    pairs(
        [
            *([(f"pairs read of {read['n']}", percent(read))] if read else []),
            ("format kept", percent(result["format_rate"])),
            ("mean length", f"{result['mean_completion_tokens']:.0f} tokens"),
        ]
    )


def summary(record: dict[str, Any], where: str) -> None:
    """What a run did, where everything lies, and what to type next."""
    measured = record.get("measured") or {}
    planned = record.get("estimate") or {}
    ok = record["status"] == "done"
    out.print()
    out.print(
        Text("✓ " if ok else "! ", style="bold green" if ok else "bold yellow")
        + Text(record["id"], style="bold")
    )
    rows = [
        ("status", record["status"] + (f" ({record['stop_reason']})" if record.get("stop_reason") else ""))
    ]
    here = record.get("gpu")
    if measured:
        rows.append(
            (
                "took",
                f"{duration(measured['seconds'])}, {dollars(measured['usd'])}, peak {size(measured['peak_memory_bytes'])}"
                + ("" if here else " of this machine's memory"),
            )
        )
    if planned and here:
        rows.append(
            (
                "predicted",
                f"{duration(planned['seconds']['likely'])}, "
                f"{dollars((planned.get('usd') or {}).get('likely'))}, peak {size(planned['vram_bytes']['peak'])}",
            )
        )
    rows.append(("folder", where))
    pairs(rows)
    if record.get("eval"):
        scores(record["eval"])
    out.print(
        Text("next  ", style="dim")
        + Text(f'toasterft ask {where} IMAGE "QUESTION"   ·   toasterft eval {where} --data …')
    )


def story(found: dict[str, Any], row: dict[str, Any]) -> None:
    """The demo's ending: before and after, one picture with the model's own words, the bill, the places."""
    before = found["base"]
    columns = ["questions", ">n", ">toast-tiny", *(f">after {name}" for name in found["methods"])]
    after = [method["eval"] for method in found["methods"].values()]
    rows = [
        [
            "all",
            str(before["n"]),
            percent(before["scores"]["robust"]),
            *(percent(e["scores"]["robust"]) for e in after),
        ]
    ]
    for kind, group in before["by_kind"].items():
        others = [percent(e["by_kind"].get(kind, {}).get("robust")) for e in after]
        rows.append([kind, str(group["n"]), percent(group["robust"]), *others])
    rows.append(
        ["format kept", "", percent(before["format_rate"]), *(percent(e["format_rate"]) for e in after)]
    )
    out.print()
    table(columns, rows, title="accuracy on charts never seen (95 % interval)")
    picture(row["image"])
    pairs(
        [
            ("question", row["question"]),
            ("base", row["base_text"]),
            (row["method"], row["text"]),
            ("right answer", row["gold"]),
            ("picture", row["image"]),
        ]
    )
    usd = found["usd_on_default_gpu"]
    out.print()
    out.print(
        Text(
            f"On a rented {found['gpu']} the same fine-tuning would cost about {dollars(usd)}; here it was free."
        )
    )
    for name, method in found["methods"].items():
        out.print(
            Text(f"{name} run  ", style="dim")
            + Text(method["run"])
            + Text(f"  ({duration(method['measured']['seconds'])} since the start)", style="dim")
        )
    last = list(found["methods"].values())[-1]["run"]
    out.print(Text("next  ", style="dim") + Text(f'toasterft ask {last} {row["image"]} "{row["question"]}"'))


def picture(path: str, width: int = 56) -> None:
    """A picture in the terminal, two pixels per character; nothing where the output is no terminal."""
    if not out.is_terminal:
        return
    from PIL import Image

    image = Image.open(path).convert("RGB")
    height = max(2, round(image.height * width / image.width / 2) * 2)
    pixels: Any = image.resize((width, height), Image.Resampling.LANCZOS).load()
    for top in range(0, height, 2):
        row = Text()
        for column in range(width):
            upper, lower = pixels[column, top], pixels[column, top + 1]
            row.append(
                "▀", style=f"rgb({upper[0]},{upper[1]},{upper[2]}) on rgb({lower[0]},{lower[1]},{lower[2]})"
            )
        out.print(row)


# --- progress --------------------------------------------------------------------------------


def reporter(*, quiet: bool) -> Reporter:
    """A live line in a terminal, plain lines elsewhere, nothing with --quiet."""
    if quiet:
        return Silent()
    return LiveReporter() if err.is_terminal else PlainReporter()


class PlainReporter:
    """One line per phase and then every quarter of a minute: for logs."""

    def __init__(self) -> None:
        self._name = ""
        self._began = self._last = 0.0

    def phase(self, name: str, total: int | None = None) -> None:
        self._name, self._began, self._last = name, time.monotonic(), time.monotonic()
        err.print(f"{name}" + (f" ({total:,})" if total else ""))

    def advance(self, done: int, total: int, **facts: Any) -> None:
        now = time.monotonic()
        if done < total and now - self._last < PLAIN_EVERY_SECONDS:
            return
        self._last = now
        err.print(f"{self._name} {done:,}/{total:,}  {_facts(facts)}".rstrip())

    def say(self, text: str) -> None:
        err.print(Text(text), soft_wrap=True)

    def sample(self, parts: list[tuple[str, bool]]) -> None:
        print_sample(parts)

    def done(self) -> None: ...


class LiveReporter:
    """One line that moves: phase, step, bar, loss, time left, memory, dollars so far and at the end."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._name = ""
        self._drawn = 0.0
        self._last: tuple[int, int, dict[str, Any]] | None = None

    def phase(self, name: str, total: int | None = None) -> None:
        self._finish_line()
        self._name = name
        self._last = (0, total or 0, {})
        self._live = Live(console=err, refresh_per_second=8, transient=True)
        self._live.start()
        self._draw()

    def advance(self, done: int, total: int, **facts: Any) -> None:
        self._last = (done, total, facts)
        if time.monotonic() - self._drawn > LIVE_EVERY_SECONDS or done == total:
            self._draw()

    def say(self, text: str) -> None:
        err.print(Text("· ", style="yellow") + Text(text), soft_wrap=True)

    def sample(self, parts: list[tuple[str, bool]]) -> None:
        print_sample(parts)

    def done(self) -> None:
        self._finish_line()

    def _draw(self) -> None:
        if self._live is None or self._last is None:
            return
        done, total, facts = self._last
        self._drawn = time.monotonic()
        grid = Table.grid(padding=(0, 1))
        name = Text(f"{self._name:<11}", style="bold cyan")
        if total:
            bar = ProgressBar(total=total, completed=done, width=24)
            grid.add_row(name, bar, Text(f"{done:,}/{total:,}"), Text(_facts(facts)))
        else:
            grid.add_row(name, Text("…"))
        self._live.update(Group(grid), refresh=True)

    def _finish_line(self) -> None:
        """Leave one line behind for the phase that ended."""
        if self._live is None or self._last is None:
            return
        done, total, facts = self._last
        self._live.stop()
        self._live = None
        kept = {name: value for name, value in facts.items() if name not in ("seconds_left", "usd_end")}
        text = f"{self._name:<11} {done:,}/{total:,}  {_facts(kept)}" if total else f"{self._name:<11} done"
        err.print(Text("✓ ", style="green") + Text(text.rstrip()))


def _facts(facts: dict[str, Any]) -> str:
    """The figures of a progress line, those that are known."""
    parts = []
    if facts.get("loss") is not None:
        parts.append(f"loss {facts['loss']:.3f}")
    if facts.get("seconds_left") is not None:
        parts.append(f"{duration(facts['seconds_left'])} left")
    if facts.get("memory_bytes"):
        parts.append(size(facts["memory_bytes"]))
    if facts.get("usd") is not None:
        end = f" of {dollars(facts['usd_end'])}" if facts.get("usd_end") is not None else ""
        parts.append(f"{dollars(facts['usd'])}{end}")
    return "  ".join(parts)


def print_sample(parts: list[tuple[str, bool]]) -> None:
    """One training text: what is trained stands out, and without colours it is bracketed."""
    plain = not err.is_terminal
    text = Text(
        "sample: dim text is read, bright text is learned\n" if not plain else "sample: ⟦learned text⟧\n",
        style="italic",
    )
    for part, trained in parts:
        shown = f"⟦{part}⟧" if plain and trained else part
        text.append(shown, style="bold green" if trained else "dim")
    err.print(text, soft_wrap=True)


def version_line(version: str) -> None:
    print(f"toasterft {version}", file=sys.stdout)


def stages(records: list[dict[str, Any]], where: str) -> None:
    """A pipeline's stages with what each took and reached."""
    rows = []
    for number, record in enumerate(records, 1):
        measured, scores = record.get("measured") or {}, record.get("eval") or {}
        recall = scores.get("macro_recall")
        rows.append(
            [
                f"{number} {record['method']}",
                record["status"],
                duration(measured.get("seconds")),
                dollars(measured.get("usd")),
                percent((scores.get("scores") or {}).get("robust")),
                "–" if recall is None else f"{100 * recall:.1f} %",
            ]
        )
    table(["stage", "status", ">time", ">dollars", ">accuracy (95 %)", ">macro recall"], rows)
    line(f"in {where}; the last stage's folder is the model", "dim")


def accuracy(rows: list[dict[str, Any]]) -> None:
    """Predicted beside measured, run by run; a ratio only where both are of the same machine."""

    def pair(row: dict[str, Any], key: str, write: Any) -> str:
        planned, measured = row[key]["predicted"], row[key]["measured"]
        likely = planned["likely"] if isinstance(planned, dict) else planned
        ratio = f" ×{measured / likely:.2f}" if row["comparable"] and likely and measured is not None else ""
        return f"{write(likely)} → {write(measured)}{ratio}"

    table(
        ["run", "planned for", "ran on", ">memory", ">time", ">dollars"],
        [
            [
                row["run"], row["planned_for"], row["ran_on"], pair(row, "peak_bytes", size),
                pair(row, "seconds", duration), pair(row, "usd", dollars),
            ]
            for row in rows
        ],
    )  # fmt: skip
    line("likely → measured; × only where a run was on the machine its plan was for", "dim")


def simulated(phases: dict[str, dict[str, Any]]) -> None:
    """The replay beside the closed form, phase by phase."""
    table(
        ["phase", ">replayed", ">closed form", ">difference", "largest parts of the replay"],
        [
            [
                name,
                size(row["simulated_bytes"]),
                size(row["closed_form_bytes"]),
                f"{row['closed_form_bytes'] / row['simulated_bytes'] - 1:+.1%}",
                ", ".join(
                    f"{part.replace('_', ' ')} {size(value)}"
                    for part, value in sorted(row["items_bytes"].items(), key=lambda pair: -pair[1])[:2]
                ),
            ]
            for name, row in phases.items()
        ],
        title="replayed on the meta device (without CUDA's context and slack)",
    )

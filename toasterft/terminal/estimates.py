"""Estimates: one run on one GPU, one on every GPU, and what a teacher would take."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from toasterft import catalog
from toasterft.catalog import Gpu, hardware
from toasterft.estimation import Estimate
from toasterft.estimation.calibration import Calibration
from toasterft.estimation.teachers import TeacherCost
from toasterft.jobs.prepare import Job
from toasterft.recipe import Dpo, Policy, Trained
from toasterft.terminal.output import empty_table, line, out, pairs, warn
from toasterft.units import dollars, duration, ranged_time, ranged_usd, size

# What a faster GPU would not help, and what would.
PACES = {
    "cpu": "waits for the CPU that prepares pictures: a faster GPU would not help",
    "launches": "waits for kernel launches: larger batches cost hardly any time",
}


def print_workload(job: Job, where: str) -> None:
    """What an estimate is about: the run and its data."""
    stats, recipe, plan = job.stats, job.recipe, job.plan
    assert stats is not None
    assert plan is not None
    out.print()
    out.print(
        Text(f"estimate {recipe.method}  ", style="bold cyan")
        + Text(job.model.name, style="bold")
        + Text(f" on {job.data_name}")
    )
    text_tokens = stats.prompt_tokens - stats.image_tokens
    rows = [
        ("for", where),
        (
            "data",
            f"{stats.rows:,} rows, {stats.images:,} images"
            + (f" of {stats.tiles:.1f} tiles" if stats.tiles > 1 else "")
            + f", {stats.rows * stats.row_tokens / 1e6:.1f} M tokens",
        ),
        (
            "a row",
            f"{stats.row_tokens:,.0f} tokens: {stats.image_tokens:,.0f} image, {text_tokens:.0f} text, "
            f"{stats.completion_tokens:.0f} to write; longest {stats.longest_tokens:,}",
        ),
    ]
    if isinstance(recipe, Trained):
        share = 100 * stats.over_max_length / stats.rows
        left_out = f"{share:.1f} % of the rows are longer and left out" if share else "no row is longer"
        held_out = plan.held_out_stats
        answered = f"{held_out.rows:,} questions answered" if held_out else "nothing evaluated"
        rows.append(("max_length", f"{recipe.max_length:,}: {left_out}"))
        rows.append(("run", f"{_batches(job)}; then {answered}"))
    pairs(rows)


def _batches(job: Job) -> str:
    recipe, steps = job.recipe, job.estimate.optimizer_steps if job.estimate else 0
    assert isinstance(recipe, Trained)
    size = f"{recipe.per_device_train_batch_size} × {recipe.gradient_accumulation_steps}"
    if isinstance(recipe, Policy):
        of = f"completions, {recipe.num_generations} per prompt"
    else:
        of = "pairs" if isinstance(recipe, Dpo) else "rows"
    return f"{steps:,} optimizer steps of {size} {of}"


def print_estimate(planned: Estimate, vram_gb: float) -> None:
    """One run on one GPU, phase by phase."""
    grid = empty_table("phase", ">memory", "largest parts", ">time")
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
    what = "libraries and the heap" if planned.gpu == hardware.CPU else "CUDA"
    line(f"memory includes {size(outside)} for {what} and what its allocator holds back", "dim")
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
        warn(note)


def print_calibration(found: Calibration) -> None:
    """Predicted beside measured, phase by phase, of the steps that were just run."""
    grid = empty_table("phase", ">time predicted", ">measured", ">memory predicted", ">measured")
    for name, row in found.measured.items():
        grid.add_row(
            name,
            duration(row["predicted_seconds"]),
            duration(row["measured_seconds"]),
            size(row["predicted_bytes"]) if row["predicted_bytes"] else "–",
            size(row["measured_bytes"]),
        )
    out.print(grid)
    line(
        f"kept as the calibration of {found.machine}; estimates of {found.method} on it use it from now on",
        "dim",
    )


def _parts(items: dict[str, int], most: int = 3) -> str:
    """The largest items of a phase."""
    named = [pair for pair in items.items() if pair[0] not in ("peak", "cuda_and_slack") and pair[1]]
    largest = sorted(named, key=lambda item: -item[1])[:most]
    return ", ".join(f"{name.replace('_', ' ')} {size(value)}" for name, value in largest)


def print_gpu_table(
    rows: Sequence[Estimate], gpus: dict[str, Gpu], cheapest: Estimate | None, rented: Estimate | None
) -> None:
    """One run on every GPU, cheapest first."""
    grid = empty_table("GPU", ">memory", ">time", ">dollars", ">$/h")
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


def print_teacher_costs(
    data: str, lessons: Sequence[TeacherCost], provenance: str, usd: float | None
) -> None:
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
    grid = empty_table(
        "teacher", ">dollars", ">batch", ">$/M in/out", *([">rows"] if usd is not None else [])
    )
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
            warn(f"† {row.teacher}: {row.flag}")
    if usd is not None:
        line(f"rows: traces that the likely cost leaves within {dollars(usd)}")
    line(
        "batch: half price for an answer within a day. Likely: some thinking, one request in seven repeated; "
        "high: thinking as in a published data set's bill. "
        f"Sizes: {provenance}",
        "dim",
    )


def print_caveat(provenance: str) -> None:
    """What every estimate rests on."""
    out.print(Text(f"rough closed-form plan; unverified on CUDA. Sizes: {provenance}", style="dim"))

"""Estimates: one run on one GPU, one on every GPU, and what a teacher would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toasterft import catalog
from toasterft.catalog import Gpu, hardware
from toasterft.estimation import Estimate
from toasterft.estimation.calibration import Calibration
from toasterft.estimation.teachers import TeacherCost
from toasterft.jobs.prepare import Job
from toasterft.recipe import Dpo, Policy, Trained
from toasterft.terminal.output import heading, line, pairs, table, warn
from toasterft.terminal.plans import largest_parts, print_other_sizes
from toasterft.units import NOTHING, Range, dollars, duration, ranged_time, ranged_usd, size

# What a faster GPU would not help, and what would.
PACES = {
    "cpu": "waits for the CPU that prepares pictures: a faster GPU would not help",
    "launches": "waits for kernel launches: larger batches cost hardly any time",
}


def print_plan(job: Job, edges: Sequence[dict[str, Any]]) -> None:
    """What a run will take, before it starts; the same at other image sizes where there are `edges`."""
    assert job.stats is not None
    assert job.estimate is not None
    print_workload(job, f"{job.target.gpu.name}, {job.target.reason}", command=job.recipe.method)
    print_estimate(job.estimate, job.target.gpu.vram_gb)
    print_other_sizes(edges)
    print_caveat(job.stats.provenance)


def print_caps(job: Job, spent: Mapping[str, float]) -> None:
    """The caps of a planned run, and that they let it start."""
    if job.budget_usd is None and job.max_seconds is None:
        return
    caps = (
        []
        if job.budget_usd is None
        else [f"{dollars(job.budget_usd)}, {dollars(spent.get('usd', 0.0))} spent"]
    )
    if job.max_seconds is not None:
        caps.append(f"{duration(job.max_seconds)}, {duration(spent.get('seconds', 0.0))} spent")
    line(f"within the cap of {'; '.join(caps)}: it would start, and be stopped there", "bold green")


def print_workload(job: Job, where: str, *, command: str = "") -> None:
    """What an estimate is about: the run and its data."""
    stats, recipe, plan = job.stats, job.recipe, job.plan
    assert stats is not None
    assert plan is not None
    heading(command or f"estimate {recipe.method}", job.model.name, f"on {job.data_name}")
    tiles = f" of {stats.tiles:.1f} tiles" if stats.tiles > 1 else ""
    tokens = stats.rows * stats.row_tokens / 1e6
    rows = [
        ("for", where),
        ("data", f"{stats.rows:,} rows, {stats.images:,} images{tiles}, {tokens:.1f} M tokens"),
        (
            "a row",
            f"{stats.row_tokens:,.0f} tokens: {stats.image_tokens:,.0f} image, "
            f"{stats.prompt_tokens - stats.image_tokens:.0f} text, {stats.completion_tokens:.0f} to write; "
            f"longest {stats.longest_tokens:,}",
        ),
    ]
    if isinstance(recipe, Trained):
        share = 100 * stats.over_max_length / stats.rows
        left_out = f"{share:.1f} % of the rows are longer and left out" if share else "no row is longer"
        held_out = plan.held_out_stats
        answered = f"{held_out.rows:,} questions answered" if held_out else "nothing evaluated"
        rows.append(("max_length", f"{recipe.max_length:,}: {left_out}"))
        rows.append(("run", f"{_batches(recipe, job.estimate)}; then {answered}"))
    pairs(rows)


def _batches(recipe: Trained, planned: Estimate | None) -> str:
    steps = planned.optimizer_steps if planned else 0
    batch = f"{recipe.per_device_train_batch_size} × {recipe.gradient_accumulation_steps}"
    if isinstance(recipe, Policy):
        of = f"completions, {recipe.num_generations} per prompt"
    else:
        of = "pairs" if isinstance(recipe, Dpo) else "rows"
    return f"{steps:,} optimizer steps of {batch} {of}"


def print_estimate(planned: Estimate, vram_gb: float) -> None:
    """One run on one GPU, phase by phase."""
    phases = [
        (name, planned.phase_bytes.get(name, {}), taken) for name, taken in planned.phase_seconds.items()
    ]
    rows = [
        [name, size(items["peak"]) if items else NOTHING, largest_parts(items, most=3), ranged_time(taken)]
        for name, items, taken in phases
    ]
    verdict = "fits" if planned.fits else "does not fit"
    whole = f"of {vram_gb:.0f} GB: {verdict}; peak in {planned.phase}"
    table(
        ["phase", ">memory", "largest parts", ">time"],
        [*rows, ["all", size(planned.peak_bytes), whole, ranged_time(planned.seconds)]],
        styles=[
            *("" if name == planned.phase else "dim" for name, _, _ in phases),
            "bold green" if planned.fits else "bold red",
        ],
        total=True,
    )
    line(f"peak: {largest_parts(planned.vram_bytes)}", "dim")
    what = "libraries and the heap" if planned.gpu == hardware.CPU else "CUDA"
    outside = size(planned.vram_bytes["cuda_and_slack"])
    line(f"memory includes {outside} for {what} and what its allocator holds back", "dim")
    for phase, limit in planned.pace.items():
        if limit in PACES:
            line(f"{phase} {PACES[limit]}", "dim")
    pairs([("dollars", _price(planned)), ("disk", largest_parts(planned.disk_bytes) or "nothing kept")])
    if planned.compute_units is not None:
        line(f"on a paid plan {_units(planned.compute_units)}")
    for note in planned.notes:
        warn(note)


def _price(planned: Estimate) -> str:
    price = planned.price
    if planned.usd is None or price is None:
        return "no price known: give --price"
    dated = f", {price['as_of']}" if price["as_of"] else ""
    return f"{ranged_usd(planned.usd)} at ${price['usd_per_hour']:.2f}/h, {price['source']}{dated}"


def _units(units: Range) -> str:
    return f"{units.likely:.1f} ({units.low:.1f}–{units.high:.1f}) compute units"


def print_calibration(found: Calibration) -> None:
    """Predicted beside measured, phase by phase, of the steps that were just run."""
    table(
        ["phase", ">time predicted", ">measured", ">memory predicted", ">measured"],
        [
            [
                name,
                duration(row["predicted_seconds"]),
                duration(row["measured_seconds"]),
                size(row["predicted_bytes"] or None),
                size(row["measured_bytes"]),
            ]
            for name, row in found.measured.items()
        ],
    )
    line(
        f"kept as the calibration of {found.machine}; estimates of {found.method} on it use it from now on",
        "dim",
    )


def print_gpu_table(
    rows: Sequence[Estimate], gpus: dict[str, Gpu], cheapest: Estimate | None, rented: Estimate | None
) -> None:
    """One run on every GPU, cheapest first."""
    table(
        ["GPU", ">memory", ">time", ">dollars", ">$/h"],
        [_gpu_row(row, gpus[row.gpu], cheapest=row is cheapest) for row in rows],
        styles=["bold green" if row is cheapest else "" if row.fits else "dim" for row in rows],
    )
    if cheapest is None:
        line("fits none of the GPUs that have a price", "bold red")
    else:
        assert cheapest.usd is not None
        units = cheapest.compute_units
        free = f", or {_units(units)} on a paid plan" if units else ""
        line(f"▸ cheapest that fits: {cheapest.gpu}, {ranged_usd(cheapest.usd)}{free}", "green")
        if rented is not None and rented is not cheapest and rented.usd is not None:
            line(f"  cheapest rented:     {rented.gpu}, {ranged_usd(rented.usd)}", "green")
    if any(row.price_flag for row in rows):
        days = catalog.STALE_AFTER_DAYS
        line(f"† price undated or over {days} days old: check it, or give --price", "yellow")
    if any(not gpus[row.gpu].bf16 for row in rows):
        line("* no bfloat16: runs in float16", "yellow")


def _gpu_row(row: Estimate, gpu: Gpu, *, cheapest: bool) -> list[str]:
    price = NOTHING if row.price is None else f"{row.price['usd_per_hour']:.2f}"
    return [
        f"{'▸' if cheapest else ' '} {row.gpu}{'' if gpu.bf16 else '*'}",
        f"{row.peak_bytes / 1e9:.1f} of {gpu.vram_gb:.0f} GB {'✓' if row.fits else '✗'}",
        ranged_time(row.seconds),
        NOTHING if row.usd is None else ranged_usd(row.usd),
        price + ("†" if row.price_flag else " "),
    ]


def print_teacher_costs(data: str, costs: Sequence[TeacherCost], provenance: str, usd: float | None) -> None:
    """What teachers would cost to write reasoning for a data set."""
    one = costs[0]
    heading("estimate cot", f"{one.rows:,} traces", f"for {data}")
    pairs(
        [
            (
                "a request",
                f"{one.prompt_tokens:.0f} tokens of text and {one.image_tokens:,.0f} of image in, "
                f"{one.completion_tokens:.0f} out and what is thought",
            )
        ]
    )
    table(
        ["teacher", ">dollars", ">batch", ">$/M in/out", *([">rows"] if usd is not None else [])],
        [
            [
                row.teacher,
                ranged_usd(row.usd),
                dollars(row.batch_usd.likely if row.batch_usd else None),
                f"{row.price['input_usd_per_mtok']:.2f}/{row.price['output_usd_per_mtok']:.2f}"
                + ("†" if row.flag else " "),
                *([f"{row.affordable_rows:,}"] if usd is not None else []),
            ]
            for row in costs
        ],
        styles=["" if row.usable else "dim" for row in costs],
    )
    for row in costs:
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
    line(f"rough closed-form plan; unverified on CUDA. Sizes: {provenance}", "dim")

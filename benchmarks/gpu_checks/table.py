"""The result of `gpu.py` as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_checks import cards
from gpu_checks.verdict import done, ratio, rounded

Result = Mapping[str, Any]
Rows = list[Sequence[Any]]


def told(result: Result) -> str:
    """Everything as text: what was measured where, then one table after the other."""
    blocks = [_where(result)]
    for title, heading, rows in _tables(result):
        if rows:
            blocks += [*filter(None, [title]), table([heading, *rows])]
    if "comparison_error" in result:
        blocks.append(f"the comparison failed: {result['comparison_error']}")
    return "\n\n".join(blocks)


def table(rows: Rows) -> str:
    """Columns as wide as they need to be, the first row a heading; numbers to the right."""
    cells = [["–" if value is None else str(value) for value in row] for row in rows]
    places = range(len(cells[0]))
    widths = [max(len(row[place]) for row in cells) for place in places]
    right = [all(isinstance(row[place], int | float | None) for row in rows[1:]) for place in places]
    lines = [
        "  ".join(
            cell.rjust(width) if end else cell.ljust(width) for cell, width, end in zip(row, widths, right)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _where(result: Result) -> str:
    environment, gpu = result["environment"], result["gpu"] or {}
    machine = f"{gpu.get('name')}, {_gb(gpu.get('total_bytes'))} GB, driver {gpu.get('driver')}"
    if result["rehearsal"]:
        machine = "REHEARSAL on a CPU: not a GPU result"
    commit, date = environment.get("commit"), environment.get("date")
    return f"{machine}; commit {commit}, {date}, {result['seconds']:.0f} s"


def _tables(result: Result) -> Iterator[tuple[str, Sequence[str], Rows]]:
    """(title, heading, rows) of each."""
    checks = result["checks"]
    yield (
        "",
        ("check", "seconds", "verdict"),
        [(check["name"], check["seconds"], check["verdict"]) for check in checks.values()],
    )
    yield (
        "Time and peak memory by phase",
        (
            "run", "phase", "seconds", "share", "measured GB", "estimated GB", "ratio", "allocated GB",
            "simulated GB", "ratio",
        ),
        [_phase(check["name"], row) for check in done(checks) for row in check.get("by_phase", ())],
    )  # fmt: skip
    yield (
        "Optimizer steps. Times ours: as long as our step on the plain engine; cold: with its pictures encoded for it. "
        "Tokens: of rows for sft, of completions for grpo and dyme",
        (
            "model", "method", "loop", "step s", "cold s", "steps/s", "tokens/s", "times ours", "times ours cold",
            "peak GB",
        ),
        [_step(row) for row in result["speed"]],
    )  # fmt: skip
    yield (
        "Decoding one prompt's completions. Same: leading tokens that are those of `plain` on the same weights",
        ("model", "way", "tokens/s", "same", ""),
        [
            _way(model, way, row, fastest=way == found["fastest"])
            for model, found in result["decoding"].items()
            for way, row in found["ways"].items()
        ],
    )
    for model, rows in result["cards"].items():
        yield (
            f"Largest batch that fits, SmolVLM-{model}, completions of {cards.COMPLETION_TOKENS} tokens: by the estimate"
            "/by it corrected with the measured peak",
            ("method", "longest edge px", *(f"{size} GB" for size in cards.SIZES_GB)),
            [
                (row["method"], row["image_longest_edge"], *map(_batches, row["batch_by_card_gb"].values()))
                for row in rows
            ],
        )
    yield (
        "Constants of estimation/seconds.py",
        ("constant", "assumed", "implied", "from"),
        [(row["constant"], row["assumed"], row["implied"], row["from"]) for row in result["efficiencies"]],
    )


def _phase(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        name, row["phase"], row["seconds"], "–" if row["share"] is None else f"{row['share']:.0%}",
        _gb(row["measured_bytes"]), _gb(row["estimated_bytes"]),
        rounded(ratio(row["measured_bytes"], row["estimated_bytes"])),
        _gb(row["allocated_bytes"]), _gb(row["simulated_bytes"]),
        rounded(ratio(row["allocated_bytes"], row["simulated_bytes"])),
    )  # fmt: skip


def _step(row: Mapping[str, Any]) -> tuple[Any, ...]:
    keys = (
        "model", "method", "loop", "step_seconds", "cold_step_seconds", "steps_per_second", "tokens_per_second",
        "times_ours", "times_ours_cold",
    )  # fmt: skip
    return (*(row[key] for key in keys), _gb(row["peak_bytes"]))


def _way(model: str, way: str, row: Mapping[str, Any], *, fastest: bool) -> tuple[Any, ...]:
    said = row.get("error") or ("fastest" if fastest else "")
    return model, way, row.get("tokens_per_second"), row.get("same_as_plain"), said


def _batches(cell: Mapping[str, int | None]) -> str:
    return "/".join("–" if cell[way] is None else str(cell[way]) for way in ("estimated", "measured"))


def _gb(count: float | None) -> float | None:
    return None if count is None else round(count / 1e9, 2)

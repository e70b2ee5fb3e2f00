"""What runs did: one, a pipeline's, and all of them against their plans."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from toasterft.estimation import Range
from toasterft.runs import run_folder
from toasterft.terminal.evaluations import print_scores
from toasterft.terminal.output import line, out, pairs, table
from toasterft.units import dollars, duration, percent, ranged_time, size


def print_run(record: dict[str, Any], where: str) -> None:
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
    held = run_folder.predicted_and_measured(record)
    if held is not None and held["comparable"]:
        _phases(held["phases"])
    if record.get("eval"):
        print_scores(record["eval"])
    out.print(
        Text("next  ", style="dim")
        + Text(f'toasterft ask {where} IMAGE "QUESTION"   ·   toasterft eval {where} --data …')
    )


def _phases(phases: dict[str, Any]) -> None:
    """Where a run's plan was right, and where not."""
    table(
        ["phase", ">time predicted", ">measured", ">memory predicted", ">measured"],
        [
            [
                name,
                ranged_time(Range(**row["seconds"]["predicted"])),
                duration(row["seconds"]["measured"]),
                size(row["peak_bytes"]["predicted"]) if row["peak_bytes"]["predicted"] else "–",
                size(row["peak_bytes"]["measured"]),
            ]
            for name, row in phases.items()
        ],
    )


def print_stages(records: list[dict[str, Any]], where: str) -> None:
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


def print_accuracy(rows: list[dict[str, Any]]) -> None:
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

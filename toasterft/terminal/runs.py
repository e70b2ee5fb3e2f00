"""Print runs beside their plans: one, a pipeline's, and all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from toasterft.publish.command import command
from toasterft.publish.run_view import Quantity, RunView
from toasterft.runs.run_folder import Run
from toasterft.terminal.evaluations import print_scores
from toasterft.terminal.output import line, out, pairs, print_next, table
from toasterft.units import dollars, duration, percent, share


def print_run(run: Run) -> None:
    """What was run, what it took beside what was predicted, what it scored, and what to type next."""
    view, where = RunView(run), str(run.path)
    out.print()
    ok = run.record["status"] == "done"
    mark, style = ("✓ ", "bold green") if ok else ("! ", "bold yellow")
    out.print(Text(mark, style=style) + Text(view.id, style="bold"))
    pairs(
        [
            *([("command", again)] if (again := command(view.recipe)) else []),
            *view.facts,
            *view.data,
            ("folder", where),
        ]
    )
    _print_taken(view)
    if view.scores:
        print_scores(view.scores)
    print_next(f'toasterft ask {where} IMAGE "QUESTION"   ·   toasterft eval {where} --data …')


def _print_taken(view: RunView) -> None:
    """Predicted beside measured, in whole and by phase."""
    if not any(one.known for one in view.took):
        return
    planned = [f">predicted for {view.planned_for}"] if view.planned_for else []
    verdict = ["in the range?"] if view.comparable else []

    def cells(one: Quantity) -> list[str]:
        return [
            *([one.predicted_text] if planned else []),
            one.measured_text,
            *([one.verdict] if verdict else []),
        ]

    by_phase = [
        *((f"time of {time.name}", time) for time, _ in view.phases),
        *((f"memory of {peak.name}", peak) for _, peak in view.phases),
    ]
    table(
        ["", *planned, f">measured on {view.ran_on}", *verdict],
        [[name, *cells(one)] for name, one in [*((one.name, one) for one in view.took), *by_phase]],
    )


def print_runs(runs: Iterable[Run]) -> None:
    """What each run took and scored."""
    table(
        ["run", "status", ">time", ">dollars", ">accuracy (95 %)"],
        [[run.id, *_result(RunView(run))] for run in runs],
    )


def print_stages(records: Sequence[Run], where: str) -> None:
    """A pipeline's stages with what each took and reached."""
    rows = []
    for number, view in enumerate(map(RunView, records), 1):
        recall = (view.scores or {}).get("macro_recall")
        last = "–" if recall is None else share({"value": recall})
        rows.append([f"{number} {view.method}", *_result(view), last])
    table(["stage", "status", ">time", ">dollars", ">accuracy (95 %)", ">macro recall"], rows)
    line(f"in {where}; the last stage's folder is the model", "dim")


def _result(view: RunView) -> list[str]:
    time, usd, _ = view.took
    headline = ((view.scores or {}).get("scores") or {}).get("robust")
    return [
        str(view.record.get("status")),
        duration(time.measured),
        dollars(usd.measured),
        percent(headline),
    ]


def print_accuracy(runs: Iterable[Run]) -> None:
    """Predicted beside measured, run by run; a ratio only where both are of the same machine."""

    def cell(one: Quantity) -> str:
        likely = one.predicted.likely if one.predicted else None
        ratio = "" if one.ratio is None else f" ×{one.ratio:.2f}"
        return f"{one.write(likely)} → {one.write(one.measured)}{ratio}"

    table(
        ["run", "planned for", "ran on", ">memory", ">time", ">dollars"],
        [
            [view.id, view.planned_for, view.ran_on, *map(cell, (view.took[2], view.took[0], view.took[1]))]
            for view in map(RunView, runs)
        ],
    )
    line("likely → measured; × only where a run was on the machine its plan was for", "dim")

"""Commands that hand a run on: its weights for use elsewhere (export), one page of it (report)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option, Typer

from toasterft import paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.errors import UserError
from toasterft.jobs import execute, prepare
from toasterft.models import lookup
from toasterft.progress import Reporter
from toasterft.publish import gguf, hub, model_card
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run
from toasterft.terminal import publications as printing

app = Typer()

Dtype = Literal["bfloat16", "float16", "float32"]


@app.command(epilog=opt.example("export runs/RUN", "export runs/RUN --to gguf --quantize Q4_K_M"))
def export(
    name: Annotated[str, Argument(metavar="RUN", help="Run name or folder.")],
    to: Annotated[
        Literal["merged", "gguf", "hub"],
        Option(help="A folder for transformers, files for llama.cpp, or a hub repository."),
    ] = "merged",
    out: Annotated[
        Path | None, Option(help="New folder; beside the run by default: <run>-merged, <run>-gguf.")
    ] = None,
    evaluated: Annotated[
        str | None, Option("--eval", help="Data to score the 16-bit and the 4-bit form on, for the card.")
    ] = None,
    limit: opt.Limit = None,
    dtype: Annotated[Dtype | None, Option(help="The base's own 16-bit type by default.")] = None,
    quantize: Annotated[str | None, Option(help="gguf: also a smaller file, such as Q4_K_M.")] = None,
    llama_cpp: Annotated[
        Path | None, Option(help="gguf: a llama.cpp checkout, else its tools on PATH.")
    ] = None,
    repo: Annotated[str | None, Option(help="hub: owner/name, new or empty.")] = None,
    public: Annotated[bool, Option("--public", help="hub: for everybody; private by default.")] = False,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Merge a run into its 16-bit base: a folder for transformers, GGUF files, or the hub."""
    runs = paths.runs_dir(runs_dir)
    _check_options(to, evaluated, limit, quantize, llama_cpp, repo, public)
    run = run_folder.open_run(name, runs)
    report = terminal.reporter(quiet=quiet)
    if to == "gguf":
        tools = gguf.find(llama_cpp, quantise=quantize is not None)
        result = _gguf(run, runs, out or run.path.parent / f"{run.id}-gguf", tools, quantize, dtype, report)
    else:
        if repo is not None:
            hub.require_ready(repo)
        folder = out or run.path.parent / f"{run.id}-merged"
        noted = _exported(run, folder, dtype) if to == "hub" else None
        result = {"folder": str(folder), "export": noted or _merged(run, runs, folder, dtype, report)}
        if evaluated is not None:
            result["evaluations"] = _evaluate(run, runs, folder, evaluated, limit, report)
        if repo is not None:
            report.phase("pushing")
            # Written again: it names the repository, and counts evaluations since the export.
            paths.write_atomic(
                folder / model_card.FILE, model_card.text(run, runs, result["export"], name=repo)
            )
            result["url"] = hub.push(folder, repo, public=public)
            report.done()
    opt.show(json, result, lambda: printing.print_export(result))


def _check_options(
    to: str,
    evaluated: str | None,
    limit: int | None,
    quantize: str | None,
    llama_cpp: Path | None,
    repo: str | None,
    public: bool,
) -> None:
    """
    Raises:
        UserError: an option that this form has no use for, or one that it needs.
    """
    of_gguf = {"--quantize": quantize, "--llama-cpp": llama_cpp}
    of_hub = {"--repo": repo, "--public": public or None}
    given = [flag for flag, value in {**of_gguf, **of_hub}.items() if value is not None]
    allowed = {"merged": (), "gguf": tuple(of_gguf), "hub": tuple(of_hub)}[to]
    wrong = [flag for flag in given if flag not in allowed]
    if wrong:
        raise UserError(f"--to {to} has no use for {', '.join(wrong)}")
    if to == "hub" and repo is None:
        raise UserError("a push needs a place", next_step="--repo owner/name")
    if to == "gguf" and evaluated is not None:
        raise UserError(
            "toasterft cannot load GGUF files, so it cannot score them",
            next_step="--to merged --eval … scores the same weights in 16 bit and in 4 bit",
        )
    if limit is not None and evaluated is None:
        raise UserError("--limit is the number of rows of --eval to score", next_step="--eval DATA --limit N")


def _merged(run: Run, runs: Path, folder: Path, dtype: Dtype | None, report: Reporter) -> dict[str, Any]:
    paths.require_new(folder)  # before seconds of imports
    from toasterft.publish.export import write_merged

    return write_merged(run, runs, folder, report, dtype)


def _exported(run: Run, folder: Path, dtype: Dtype | None) -> dict[str, Any] | None:
    """What an earlier export of this run noted in `folder`; None where there is no such thing."""
    noted = (lookup.read_notes(folder) or {}).get("export")
    if not noted or noted["run"] != run.id or (dtype is not None and noted["dtype"] != dtype):
        return None
    found: dict[str, Any] = noted
    return found


def _gguf(
    run: Run,
    runs: Path,
    folder: Path,
    tools: gguf.Tools,
    quantize: str | None,
    dtype: Dtype | None,
    report: Reporter,
) -> dict[str, Any]:
    """Convert the merged folder, an earlier one where it is there, else one that is thrown away afterwards."""
    paths.require_new(folder)
    ready = run.path.parent / f"{run.id}-merged"
    noted = _exported(run, ready, dtype)
    with (
        paths.new_folder(folder) as part,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch,
    ):
        if noted is None:
            ready = Path(scratch) / run.id
            noted = _merged(run, runs, ready, dtype, report)
        report.phase("converting")
        files = gguf.convert(tools, ready, part, run.id, quantize)
        report.done()
        shutil.copyfile(ready / run_folder.ADAPTER_NOTES_FILE, part / run_folder.ADAPTER_NOTES_FILE)
        text = model_card.text(run, runs, noted, files=files)
        (part / model_card.FILE).write_text(text, encoding="utf-8")
    return {"folder": str(folder), "export": noted, "files": files}


def _evaluate(
    run: Run, runs: Path, folder: Path, data: str, limit: int | None, report: Reporter
) -> list[dict[str, Any]]:
    """Score the 16-bit and the 4-bit form as `toasterft eval` does, and put both into the card."""
    keys = ("max_completion_length", "per_device_eval_batch_size", "seed")
    words = [f"{key}={run.recipe[key]}" for key in keys if key in run.recipe]
    found = []
    for four_bit in (False, True):
        wanted = recipe.load(
            "eval",
            None,
            [*words, f"load_in_4bit={str(four_bit).lower()}"],
            {"model": str(folder), "data": data, "limit": limit},
        )
        record = execute.launch(prepare.prepare_use(wanted, runs), report)
        found.append({"load_in_4bit": four_bit, "run": str(record.path), **record.record["eval"]})
    noted = (lookup.read_notes(folder) or {})["export"]
    paths.write_atomic(folder / model_card.FILE, model_card.text(run, runs, noted))
    return found


@app.command(epilog=opt.example("report runs/A runs/B -o report.html"))
def report(
    runs: Annotated[
        list[str],
        Argument(metavar="RUN…", help="Trainings, evaluations or pipelines: names or folders."),
    ],
    out: Annotated[Path, Option("--out", "-o", help="The page's file.")] = Path("report.html"),
    gallery: Annotated[int, Option(min=0, help="Show so many questions with picture and answers.")] = 12,
    force: Annotated[bool, Option("--force", help="Put it in the place of a file that is there.")] = False,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
) -> None:
    """One page of one run or several, to send or print: settings, cost, accuracy."""
    from toasterft.publish.report.page import write

    result = write(runs, paths.runs_dir(runs_dir), out, limit=gallery, force=force)
    opt.show(json, result, lambda: printing.print_report(result))

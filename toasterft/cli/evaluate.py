"""Commands that judge a model: eval, ask, compare."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, Typer

from toasterft import paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.errors import RunFailed, UserError
from toasterft.evaluation import matrix as evaluation_matrix
from toasterft.jobs import execute, prepare
from toasterft.runs import run_folder
from toasterft.terminal.comparisons import print_comparison
from toasterft.terminal.evaluations import print_reasoner, print_scores
from toasterft.terminal.matrices import print_matrix
from toasterft.terminal.output import results_into

app = Typer()


@app.command(
    "eval", epilog=opt.example("eval runs/RUN --data my_folder", "eval --matrix prompts --limit 200")
)
def evaluate(
    model: Annotated[str | None, Argument(help="Run or model to evaluate.", show_default=False)] = None,
    words: opt.Words = None,
    data: opt.Data = None,
    images: opt.Images = None,
    matrix: Annotated[
        str | None, Option(help="Recipe of models x prompt conditions; goes on where it was stopped.")
    ] = None,
    reasoner: Annotated[
        str | None, Option(help="Run or model that writes the reasoning to answer from.")
    ] = None,
    step: opt.Step = False,
    suffix: Annotated[
        list[str] | None, Option(help="Append this text to the question; several times with --matrix.")
    ] = None,
    gpu: opt.GpuName = None,
    price: opt.Price = None,
    limit: opt.Limit = None,
    seed: opt.Seed = None,
    out: opt.Out = None,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Accuracy with 95 % intervals by the data's scorers, and quality of the reasoning."""
    flags: dict[str, Any] = {
        "data": data,
        "images": images,
        "gpu": gpu,
        "price": price,
        "limit": limit,
        "seed": seed,
    }
    if matrix is not None:
        settings = [word for word in [model, *(words or [])] if word is not None]
        if reasoner is not None or step or not all("=" in word for word in settings):
            raise UserError("models and prompt conditions of a matrix stand in its recipe", where=matrix)
        _matrix(matrix, settings, flags, suffix or [], out, paths.runs_dir(runs_dir), json=json, quiet=quiet)
        return
    if model is None:
        raise UserError("nothing to evaluate", next_step="toasterft eval RUN, or --matrix RECIPE")
    if suffix and len(suffix) > 1:
        raise UserError("several --suffix are a sweep", next_step="--matrix RECIPE, which crosses them")
    source, settings = opt.split_words(words)
    flags |= {"model": model, "reasoner": reasoner, "step": step or None, "suffix": suffix and suffix[0]}
    wanted = recipe.load("eval", source, settings, flags)
    assert isinstance(wanted, recipe.Eval)
    prepared = prepare.prepare_use(wanted, paths.runs_dir(runs_dir), out=out)
    record = execute.launch(prepared, terminal.reporter(quiet=quiet))
    handed = record.record.get("reasoner")
    if json:
        reasoning = {} if handed is None else {"reasoner": handed}
        terminal.as_json({**record.record["eval"], **reasoning, "run": str(record.path)})
    else:
        print_scores(record.record["eval"])
        if handed is not None:
            print_reasoner(handed, record.record["eval"]["n"])
        terminal.line(f"answers in {record.path / run_folder.SAMPLES_FILE}", "dim")


def _matrix(
    source: str,
    settings: list[str],
    flags: dict[str, Any],
    suffixes: list[str],
    out: Path | None,
    runs_dir: Path,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Every cell of a matrix, its table and its chart; the exit code says whether all of it is there."""
    wanted = recipe.load("eval", source, settings, flags, matrix=True).with_suffixes(suffixes)
    folder = evaluation_matrix.folder(Path(source).stem, runs_dir, out)
    from toasterft.runs import plots

    report, found = terminal.reporter(quiet=quiet), None
    kept: list[Any] = []  # cells of one model follow each other, and share it
    try:
        for found in evaluation_matrix.run(
            wanted, folder, runs_dir, lambda cell: execute.launch(cell, report, kept=kept), report.say
        ):
            page = io.StringIO()
            with results_into(page):
                print_matrix(found, markdown=True)
            paths.write_atomic(folder / evaluation_matrix.MARKDOWN_FILE, page.getvalue())
    finally:
        if found is not None:
            plots.accuracies(found, folder / evaluation_matrix.CHART_FILE)
            opt.show(json, found, functools.partial(print_matrix, found))
    states = {cell["status"] for cell in found["cells"]} if found else set()
    if states - {"done"}:
        raise Exit(RunFailed.exit_code if "failed" in states else UserError.exit_code)


@app.command(epilog=opt.example('ask runs/RUN chart.png "Which year was highest?"'))
def ask(
    model: Annotated[str, Argument(help="Run or model to ask.")],
    image: Annotated[Path, Argument(help="Image file.")],
    question: Annotated[str, Argument(help="Question about it.")],
    words: opt.Words = None,
    step: opt.Step = False,
    suffix: opt.Suffix = None,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """One question about one image."""
    _, settings = opt.split_words(words)
    wanted = recipe.load("ask", None, settings, {"model": model, "step": step or None, "suffix": suffix})
    prepared = prepare.prepare_use(wanted, paths.runs_dir(runs_dir))
    answer = execute.launch(prepared, terminal.reporter(quiet=quiet), image=image, question=question)
    if json:
        terminal.as_json(answer)
        return
    if answer["reasoning"]:
        terminal.line(answer["reasoning"].strip(), "dim")
    terminal.line(answer["answer"], "bold")


@app.command(epilog=opt.example("compare runs/EVAL_A runs/EVAL_B"))
def compare(
    runs: Annotated[list[str], Argument(help="Two or more runs with stored answers, as `eval` leaves them.")],
    scorer: Annotated[str, Option(help="Whose verdicts to compare.")] = "robust",
    differ: Annotated[int, Option(min=0, help="List so many of the items on which the runs disagree.")] = 5,
    seed: Annotated[int, Option(help="Of the bootstrap.")] = 0,
    runs_dir: opt.RunsDir = None,
    markdown: Annotated[bool, Option("--markdown", help="The tables in Markdown.")] = False,
    json: opt.Json = False,
) -> None:
    """Is B better than A? Paired tests on the same questions, from stored answers."""
    from toasterft.evaluation.compare import compare as compare_runs

    found = compare_runs(runs, paths.runs_dir(runs_dir), scorer=scorer, seed=seed, differ=differ)
    opt.show(json, found, lambda: print_comparison(found, markdown=markdown))

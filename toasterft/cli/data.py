"""`toasterft data …`: take data in, check it before it costs money, look at it, divide it, share it."""

from __future__ import annotations

import json as jsonlib
import tempfile
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

from toasterft import paths, terminal
from toasterft.audit import preview_html
from toasterft.audit.check import Limits, text_findings
from toasterft.audit.check import check as check_dataset
from toasterft.audit.fix import write_clean
from toasterft.audit.preview import choose as choose_rows
from toasterft.audit.preview import format_row, row_formatter
from toasterft.cli import options as opt
from toasterft.cli.commands import about
from toasterft.data import control_tokens, hub, sources, write
from toasterft.data.example import TASKS
from toasterft.data.importers import convert
from toasterft.data.importers.datasets import ADAPTERS
from toasterft.data.split import divide as divide_by_image
from toasterft.errors import DataError, UserError
from toasterft.jobs import prepare
from toasterft.models import lookup
from toasterft.models.lookup import ModelRef
from toasterft.recipe import Prompt, Sft
from toasterft.terminal import data as printing
from toasterft.units import size

app = Typer()
data_app = Typer(help=about("data"), no_args_is_help=True)
app.add_typer(data_app, name="data")

Name = Annotated[str, Argument(help="Folder, .jsonl/.json, name of a set built here, or hub id.")]
ForModel = Annotated[str | None, Option(help="Whose tokens count: folder, run, catalog name, or hub id.")]
MaxLength = Annotated[int | None, Option(min=16, help="Tokens a row may have; training's default.")]

# Longer than any trace that was worth its price; training takes 2,048 with the image.
MAX_TRACE_TOKENS = 1000

LAYOUTS_HELP = (
    "Layouts it knows by their rows: chartqa (official folders), chartqa-hub, slake, mathverse, a-okvqa, geo170k, "
    "gsm8k, emoset, class-folders, llava, trl, and rows (JSON, JSONL, CSV, parquet)."
)


@data_app.command(
    "import",
    epilog=LAYOUTS_HELP
    + " Others: name their columns. Rows without an image are welcome. Nothing is fetched from URLs in rows.\n\n"
    + opt.example("data import ChartQA_Dataset charts"),
)
def import_set(
    source: Annotated[str, Argument(help="A folder or file in a known layout, or a hub id.")],
    name: opt.NewName,
    layout: Annotated[
        str | None, Option("--format", help="The layout, where it is not to be recognised.")
    ] = None,
    question: Annotated[str | None, Option("--question-column", help="Column of the question.")] = None,
    answer: Annotated[str | None, Option("--answer-column", help="Column of the answer.")] = None,
    image: Annotated[
        str | None, Option("--image-column", help="Column of the image's path, or of the images.")
    ] = None,
    reasoning: Annotated[str | None, Option("--reasoning-column", help="Column of the reasoning.")] = None,
    row_id: Annotated[str | None, Option("--id-column", help="Column of the row's id.")] = None,
    images: opt.Images = None,
    config: Annotated[str | None, Option(help="Configuration of a hub data set (gsm8k: main).")] = None,
    split: Annotated[str | None, Option(help="Take this split only.")] = None,
    task: Annotated[
        str | None, Option(help="chart, yesno-open, choice, class or math; the layout's own by default.")
    ] = None,
    licence: Annotated[str | None, Option(help="Licence to note in the card.")] = None,
    out: opt.NewFolder = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Take in a published or home-made data set: rows, pictures, and a card that says where they came from."""
    if layout is not None:
        opt.require_known("layout", layout, [*ADAPTERS, convert.CLASS_FOLDERS])
    if task is not None:
        opt.require_known("task", task, list(TASKS))
    named = {"question": question, "answer": answer, "image": image, "reasoning": reasoning, "id": row_id}
    columns = {role: column for role, column in named.items() if column is not None}
    if columns and not {"question", "answer"} <= columns.keys():
        raise UserError(
            "columns named by hand need a question and an answer",
            next_step="--question-column … --answer-column …",
        )
    folder = write.dataset_folder(name, out)
    paths.require_new(folder)
    found = convert.read(
        source, layout=layout, columns=columns or None, images=images, config=config, split=split
    )
    found.task, found.licence = task or found.task, licence or found.licence
    card = convert.write(found, folder, {"name": name, "source": source}, terminal.reporter(quiet=quiet))
    result = {"folder": str(folder), **card}
    opt.show(json, result, lambda: printing.print_imported(result, name))


@data_app.command(
    epilog="Exit code 0: no errors (warnings and notes may be). 2: errors were found, or there is nothing to "
    "check. With --fix, 0 as soon as the copy is written.\n\n"
    + opt.example("data check charts --against chartqa")
)
def check(
    name: Name,
    images: opt.Images = None,
    against: Annotated[
        list[str] | None, Option(help="Evaluation data that must share no image; may be repeated.")
    ] = None,
    fix: Annotated[
        Path | None, Option(help="Write a cleaned copy to this new folder; the original is never touched.")
    ] = None,
    model: ForModel = None,
    max_length: MaxLength = None,
    max_trace_tokens: Annotated[
        int, Option(min=1, help="Tokens above which a trace is named as very long.")
    ] = MAX_TRACE_TOKENS,
    most: Annotated[int, Option("--show", min=0, help="Rows shown of each kind; 0 shows all.")] = 5,
    report_file: Annotated[
        Path | None,
        Option("--report", help="Write every finding to this file, one JSON object a line.", dir_okay=False),
    ] = None,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find what is wrong: broken or repeated images, leaks between splits, bad labels, traces that miss the answer.

    Every finding names its row. Errors are rows that would teach or measure something wrong; warnings are worth
    a look; notes explain. Each image is opened once.
    """
    data = sources.load_splits(name, keep_faults=True, images=images)
    evaluation = [sources.load_splits(other, keep_faults=True, images=images) for other in against or []]
    if fix is not None:
        paths.require_new(fix)
    _, limits = _limits(model, runs_dir, max_length, max_trace_tokens)
    report = check_dataset(data, evaluation, limits, terminal.reporter(quiet=quiet or json))
    if report_file is not None:
        lines = (jsonlib.dumps(finding.as_json(), ensure_ascii=False) + "\n" for finding in report.findings)
        paths.write_atomic(report_file, "".join(lines))
    card = write_clean(data, report, fix) if fix is not None else None
    if json:
        terminal.as_json(report.as_json() | ({"cleaned": {"folder": str(fix), **card}} if card else {}))
    else:
        printing.print_data_check(report, most or None)
        printing.print_verdict(report, name, fix, card)
    if report.count("error") and card is None:
        raise Exit(DataError.exit_code)


@data_app.command(epilog=opt.example("data preview charts --model toast-tiny --n 2"))
def preview(
    name: Name,
    images: opt.Images = None,
    split: Annotated[str | None, Option(help="Rows of this split only.")] = None,
    rows: Annotated[list[str] | None, Option("--row", help="This row, by id; may be repeated.")] = None,
    n: Annotated[int, Option("--n", min=1, help="How many rows.")] = 4,
    seed: Annotated[int | None, Option(help="A random choice instead of the first rows.")] = None,
    html: Annotated[
        Path | None, Option(help="Write one page with the images inside, instead.", dir_okay=False)
    ] = None,
    model: ForModel = None,
    max_length: MaxLength = None,
    runs_dir: opt.RunsDir = None,
) -> None:
    """Look at rows as a model is taught them: image, question, text that is read against text that is learned.

    With a model whose files are here (--model toast-tiny, a folder, a run) text and tokens are exactly its own.
    """
    data = sources.load_splits(name, keep_faults=True, images=images)
    chosen = choose_rows(data, n, split=split, ids=rows or (), seed=seed)
    who, limits = _limits(model, runs_dir, max_length)
    formatter = row_formatter(who, limits.count)
    seen = [format_row(example, own, formatter) for own, example in chosen]
    found = [
        [f"{finding.kind}: {finding.what}" for finding in text_findings(row.example, limits)] for row in seen
    ]
    if html is not None:
        text = preview_html.write(
            list(zip(seen, found)), title=data.name, about=formatter.provenance, max_length=limits.max_length
        )
        paths.write_atomic(html, text)
        terminal.line(f"wrote {html}: {len(seen):,} rows, {size(len(text.encode()))}", "bold green")
        return
    terminal.line(formatter.provenance, "dim")
    for row, findings in zip(seen, found):
        printing.print_preview(row, findings, limits.max_length)


@data_app.command("split", epilog=opt.example("data split charts charts-split --test 0.2"))
def divide(
    name: Name,
    new_name: opt.NewName,
    images: opt.Images = None,
    validation: Annotated[float, Option(min=0, max=1, help="Share of the pictures that validate.")] = 0.1,
    test: Annotated[float, Option(min=0, max=1, help="Share of the pictures that test.")] = 0.1,
    seed: Annotated[int, Option(help="Which pictures go where.")] = 0,
    out: opt.NewFolder = None,
    json: opt.Json = False,
) -> None:
    """Divide rows by image, so that no picture is on two sides; splits that are there already stay as they are."""
    folder = write.dataset_folder(new_name, out)
    paths.require_new(folder)
    data = sources.load_splits(name, images=images)
    taken = [
        one for one, share in (("validation", validation), ("test", test)) if share and data.splits.get(one)
    ]
    if taken:
        raise UserError(
            f"there is a {taken[0]} split already",
            where=name,
            why="a published split stays what it is",
            next_step=f"--{taken[0]} 0 leaves it as it is",
        )
    rows = [*data.splits.get("", []), *data.splits.get("train", [])]
    parts = divide_by_image(rows, {"validation": validation, "test": test}, seed)
    parts |= {own: rows for own, rows in data.splits.items() if own not in ("", "train")}
    card = write.write_dataset(
        folder,
        {
            **data.card,
            "name": new_name,
            "task": data.task,
            "divided_from": data.name,
            "shares": {"validation": validation, "test": test},
            "seed": seed,
        },
        parts,
    )
    result = {"folder": str(folder), **card}
    opt.show(json, result, lambda: printing.print_split(result, new_name))


@data_app.command(epilog=opt.example("data push charts me/charts"))
def push(
    name: Name,
    hub_id: Annotated[str, Argument(help="owner/name on the hub.")],
    images: opt.Images = None,
    public: Annotated[bool, Option("--public", help="For everybody to see; private by default.")] = False,
    out: Annotated[Path | None, Option(help="Write the files to this new folder and upload nothing.")] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Share a data set on the hub: parquet with the pictures inside, a README, the card. Needs `hf auth login`."""
    hub.require_hub_id(hub_id)
    data = sources.load_splits(name, images=images)
    report = terminal.reporter(quiet=quiet)
    if out is not None:
        packed, address = hub.pack(data, out, hub_id, report), str(out)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            packed = hub.pack(data, Path(scratch) / "set", hub_id, report)
            address = hub.push(Path(scratch) / "set", hub_id, private=not public)
    result = {"address": address, "rows": packed.rows, "size_bytes": packed.size_bytes}
    opt.show(json, result, lambda: printing.print_push(result, uploaded=out is None, public=public))


@data_app.command(epilog=opt.example("data pull me/charts charts"))
def pull(
    hub_id: Annotated[str, Argument(help="owner/name on the hub.")],
    name: opt.NewName,
    out: opt.NewFolder = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fetch a data set from the hub into a folder of its own: what `push` wrote, or any layout `import` knows."""
    folder = write.dataset_folder(name, out)
    card = hub.pull(hub_id, folder, {"name": name, "source": hub_id}, terminal.reporter(quiet=quiet))
    result = {"folder": str(folder), **card}
    opt.show(json, result, lambda: printing.print_imported(result, name))


def _limits(
    model: str | None, runs_dir: Path | None, max_length: int | None, max_trace_tokens: int = MAX_TRACE_TOKENS
) -> tuple[ModelRef, Limits]:
    """The model whose tokens count, and what is too long for it."""
    who = lookup.resolve(model or str(Sft.model_fields["model"].default), paths.runs_dir(runs_dir))
    longest_edge: int | None = (who.notes or {}).get("image_longest_edge")
    return who, Limits(
        geometry=who.shape.geometry.with_longest_edge(longest_edge),
        max_length=max_length or int(Sft.model_fields["max_length"].default),
        max_trace_tokens=max_trace_tokens,
        count=prepare.counter(who),
        control=control_tokens.of_folder(prepare.tokenizer_folder(who), Prompt()),
    )

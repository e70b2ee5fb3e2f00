"""Commands that look around: runs, models, GPUs, this machine, the cache, the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from toasterft import catalog, paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.cli.commands import about
from toasterft.engine import feature_cache
from toasterft.errors import UserError
from toasterft.models.architectures import shape_from_config
from toasterft.runs import run_folder
from toasterft.terminal import listings as printing
from toasterft.terminal.runs import print_accuracy, print_run, print_runs

app = Typer()
recipes_app = Typer(help=about("recipes"), no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")


@app.command(epilog=opt.example("runs --accuracy"))
def runs(
    runs_dir: opt.RunsDir = None,
    accuracy: Annotated[bool, Option("--accuracy", help="Predicted beside measured.")] = False,
    json: opt.Json = False,
) -> None:
    """All runs, oldest first."""
    found = run_folder.runs(paths.runs_dir(runs_dir))
    if accuracy:
        held = [(run, row) for run in found if (row := run_folder.predicted_and_measured(run.record))]
        result = {"runs": [row for _, row in held]}
        opt.show(json, result, lambda: print_accuracy(run for run, _ in held))
    else:
        opt.show(json, {"runs": [run.record for run in found]}, lambda: print_runs(found))


@app.command("show", epilog=opt.example("show runs/RUN"))
def show_run(
    name: Annotated[str, Argument(help="Run name or folder.")],
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
) -> None:
    """One run: its settings, what it took, what came out."""
    found = run_folder.open_run(name, paths.runs_dir(runs_dir))
    opt.show(json, found.record, lambda: print_run(found))


@app.command(epilog=opt.example("models"))
def models(json: opt.Json = False) -> None:
    """The models that have a catalog name."""
    rows = catalog.models()
    shapes = {name: shape_from_config(row.config, row.preprocessor) for name, row in rows.items()}
    listed = [{**vars(row), "total_params": shapes[name].total_params} for name, row in rows.items()]
    opt.show(json, {"models": listed}, lambda: printing.print_models(rows.values(), shapes))


@app.command(epilog=opt.example("gpus --json"))
def gpus(json: opt.Json = False) -> None:
    """The GPUs a plan can be made for, with dated prices."""
    rows = list(catalog.gpus().values())
    listed = [{**vars(row), "offers": [vars(offer) for offer in row.offers]} for row in rows]
    opt.show(json, {"gpus": listed}, lambda: printing.print_gpus(rows))


@app.command(epilog=opt.example("doctor"))
def doctor(runs_dir: opt.RunsDir = None, json: opt.Json = False) -> None:
    """What is installed here, what is missing, and what to do about it."""
    from toasterft.cli.doctor import checks as machine_checks

    checks = machine_checks(paths.runs_dir(runs_dir))
    result = {"checks": [vars(check) for check in checks], "ok": all(check.ok for check in checks)}
    rows = [["✓" if check.ok else "!", check.name, check.found, check.remedy] for check in checks]
    opt.show(json, result, lambda: terminal.table(["", "what", "found", "remedy"], rows))


@app.command("cache", epilog=opt.example("cache clear"))
def cache_command(
    action: Annotated[str, Argument(help="`show` or `clear`.")] = "show", json: opt.Json = False
) -> None:
    """The image-feature cache: what it holds, and a way to empty it."""
    if action not in ("show", "clear"):
        raise UserError(
            f"unknown action {action!r}", next_step="toasterft cache   or   toasterft cache clear"
        )
    spaces = [vars(space) for space in feature_cache.spaces()]
    result = {
        "root": str(feature_cache.root()),
        "limit_bytes": feature_cache.default_limit_bytes(),
        "freed_bytes": feature_cache.clear() if action == "clear" else 0,
        "spaces": spaces,
    }
    opt.show(json, result, lambda: printing.print_cache(result, cleared=action == "clear"))


@recipes_app.command("list", epilog=opt.example("recipes list"))
def recipes_list(json: opt.Json = False) -> None:
    """Names and purposes."""
    first_lines = {
        name: path.read_text(encoding="utf-8").partition("\n")[0] for name, path in recipe.shipped().items()
    }
    purposes = {name: first.removeprefix("#").strip() for name, first in first_lines.items()}
    opt.show(json, {"recipes": purposes}, lambda: terminal.table(["recipe", "purpose"], purposes.items()))


@recipes_app.command("copy", epilog=opt.example("recipes copy dyme my-dyme.yaml"))
def recipes_copy(
    name: Annotated[str, Argument(help="Shipped recipe.")],
    to: Annotated[Path | None, Argument(help="File to write; here under its own name by default.")] = None,
) -> None:
    """An editable copy."""
    source = recipe.find(name)
    target = to or Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise UserError(
            "this file exists; nothing is overwritten", where=str(target), next_step="name another file"
        )
    paths.write_atomic(target, source.read_text(encoding="utf-8"))
    terminal.line(f"wrote {target}")


@recipes_app.command("fields", epilog=opt.example("recipes fields sft"))
def recipes_fields(
    method: Annotated[str, Argument(help="A command such as sft.")], json: opt.Json = False
) -> None:
    """Every key of a command's recipe, with its default."""
    opt.require_known("recipe for", method, list(recipe.RECIPES))
    found = recipe.fields(recipe.RECIPES[method])
    result = {name: {"default": default, "about": about} for name, (default, about) in found.items()}
    rows = [[key, str(default), about] for key, (default, about) in found.items() if key != "method"]
    opt.show(json, result, lambda: terminal.table(["key", "default", "what it does"], rows))

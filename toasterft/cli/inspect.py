"""Commands that look around: runs, models, GPUs, this machine, the cache, the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toasterft import catalog, paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.engine import feature_cache
from toasterft.errors import UserError
from toasterft.runs import run_folder

app = typer.Typer()
recipes_app = typer.Typer(help="The recipes that come with toasterft.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")


@app.command(epilog=opt.example("runs --accuracy"))
def runs(
    runs_dir: opt.RunsDir = None,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Predicted beside measured.")] = False,
    json: opt.Json = False,
) -> None:
    """All runs, oldest first."""
    found = run_folder.runs(paths.runs_dir(runs_dir))
    if accuracy:
        held = [(run, row) for run in found if (row := run_folder.predicted_and_measured(run.record))]
        if json:
            terminal.as_json({"runs": [row for _, row in held]})
        else:
            terminal.print_accuracy(run for run, _ in held)
    elif json:
        terminal.as_json({"runs": [run.record for run in found]})
    else:
        terminal.print_runs(found)


@app.command("show", epilog=opt.example("show runs/RUN"))
def show_run(
    name: Annotated[str, typer.Argument(help="Run name or folder.")],
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
) -> None:
    """One run: its settings, what it took, what came out."""
    found = run_folder.open_run(name, paths.runs_dir(runs_dir))
    if json:
        terminal.as_json(found.record)
    else:
        terminal.print_run(found)


@app.command(epilog=opt.example("models"))
def models(json: opt.Json = False) -> None:
    """The models that have a catalog name."""
    from toasterft.models.architectures import shape_from_config

    rows = list(catalog.models().values())
    shapes = {row.name: shape_from_config(row.config, row.preprocessor) for row in rows}
    if json:
        terminal.as_json(
            {"models": [{**vars(row), "total_params": shapes[row.name].total_params} for row in rows]}
        )
        return
    terminal.table(
        ["name", "hub id", "architecture", ">parameters", ">800×557 chart", "checked"],
        [
            [
                row.name,
                row.hub_id,
                shapes[row.name].model_type,
                f"{shapes[row.name].total_params / 1e6:,.0f} M",
                f"{shapes[row.name].geometry.image_tokens(800, 557):,} tokens",
                row.verified,
            ]
            for row in rows
        ],
    )


@app.command(epilog=opt.example("gpus --json"))
def gpus(json: opt.Json = False) -> None:
    """The GPUs a plan can be made for, with dated prices."""
    import datetime

    today = datetime.date.today()
    rows = list(catalog.gpus().values())
    if json:
        terminal.as_json(
            {"gpus": [{**vars(row), "offers": [vars(offer) for offer in row.offers]} for row in rows]}
        )
        return
    table = []
    for row in rows:
        offer = row.default_offer
        price = "–" if offer is None else f"${offer.usd_per_hour:.2f}"
        dated = "no offer: give --price" if offer is None else f"{offer.provider}, {offer.as_of or 'undated'}"
        flag = offer.flag(today) if offer is not None and offer.as_of is not None else None
        table.append(
            [
                row.name,
                f"{row.vram_gb:.0f} GB",
                "yes" if row.bf16 else "no",
                f"{row.half_tflops:.0f}",
                f"{row.bandwidth_gb_s:,.0f} GB/s",
                price,
                dated + (f" ({flag})" if flag else ""),
            ]
        )
    terminal.table(["GPU", ">memory", "bf16", ">TFLOP/s", ">bandwidth", ">$/h", "price from"], table)


@app.command(epilog=opt.example("doctor"))
def doctor(runs_dir: opt.RunsDir = None, json: opt.Json = False) -> None:
    """What is installed here, what is missing, and what to do about it."""
    from toasterft.cli import doctor as health

    checks = health.checks(paths.runs_dir(runs_dir))
    if json:
        terminal.as_json(
            {"checks": [vars(check) for check in checks], "ok": all(check.ok for check in checks)}
        )
    else:
        terminal.table(
            ["", "what", "found", "remedy"],
            [["✓" if check.ok else "!", check.name, check.found, check.remedy] for check in checks],
        )


@app.command("cache", epilog=opt.example("cache clear"))
def cache_command(
    action: Annotated[str, typer.Argument(help="`show` or `clear`.")] = "show", json: opt.Json = False
) -> None:
    """The image-feature cache: what it holds, and a way to empty it."""
    if action not in ("show", "clear"):
        raise UserError(
            f"unknown action {action!r}", next_step="toasterft cache   or   toasterft cache clear"
        )
    spaces = feature_cache.spaces()
    freed = feature_cache.clear() if action == "clear" else 0
    if json:
        terminal.as_json(
            {
                "root": str(feature_cache.root()),
                "limit_bytes": feature_cache.default_limit_bytes(),
                "freed_bytes": freed,
                "spaces": [vars(space) for space in spaces],
            }
        )
    elif action == "clear":
        terminal.line(f"freed {terminal.size(freed)} in {feature_cache.root()}")
    else:
        terminal.table(
            ["model", "dtype", ">images", ">size"],
            [
                [
                    str(space.about.get("model")),
                    str(space.about.get("dtype")),
                    f"{space.entries:,}",
                    terminal.size(space.size_bytes),
                ]
                for space in spaces
            ],
        )
        terminal.line(
            f"in {feature_cache.root()}; default limit {terminal.size(feature_cache.default_limit_bytes())}",
            "dim",
        )


@recipes_app.command("list", epilog=opt.example("recipes list"))
def recipes_list(json: opt.Json = False) -> None:
    """Names and purposes."""
    found = {name: _purpose(path) for name, path in recipe.shipped().items()}
    if json:
        terminal.as_json({"recipes": found})
    else:
        terminal.table(["recipe", "purpose"], [[name, purpose] for name, purpose in found.items()])


@recipes_app.command("copy", epilog=opt.example("recipes copy dyme my-dyme.yaml"))
def recipes_copy(
    name: Annotated[str, typer.Argument(help="Shipped recipe.")],
    to: Annotated[
        Path | None, typer.Argument(help="File to write; here under its own name by default.")
    ] = None,
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
    method: Annotated[str, typer.Argument(help="A command such as sft.")], json: opt.Json = False
) -> None:
    """Every key of a command's recipe, with its default."""
    if method not in recipe.RECIPES:
        raise UserError(f"no recipe for {method!r}", why=f"there are: {', '.join(recipe.RECIPES)}")
    found = recipe.fields(recipe.RECIPES[method])
    if json:
        terminal.as_json(
            {name: {"default": default, "about": about} for name, (default, about) in found.items()}
        )
    else:
        terminal.table(
            ["key", "default", "what it does"],
            [[name, str(default), about] for name, (default, about) in found.items() if name != "method"],
        )


def _purpose(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()

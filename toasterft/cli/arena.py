"""The arena: people choose between answers, blind, and the votes become a leaderboard."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from toasterft import paths, terminal
from toasterft.cli import options as opt
from toasterft.data.example import Example
from toasterft.errors import UserError
from toasterft.evaluation.arena.access import AccessControl
from toasterft.evaluation.arena.contenders import Contender, load_items
from toasterft.evaluation.arena.contenders import choose as choose_items
from toasterft.evaluation.arena.contenders import find as find_contenders
from toasterft.evaluation.arena.contenders import generate as generate_outputs
from toasterft.evaluation.arena.contenders import read as read_outputs
from toasterft.evaluation.arena.leaderboard import build as build_leaderboard
from toasterft.evaluation.arena.leaderboard import votes_csv
from toasterft.evaluation.arena.session import VotingSession
from toasterft.evaluation.arena.votes import VOTES_FILE, Votes
from toasterft.terminal import arena as printing

app = Typer()

FOLDER = "arena"


@app.command(epilog=opt.example("arena runs/A runs/B --data my_folder", "arena --leaderboard"))
def arena(
    runs: Annotated[
        list[str] | None, Argument(help="Two or more evaluations, runs or models.", show_default=False)
    ] = None,
    data: opt.Data = None,
    images: opt.Images = None,
    n: Annotated[int, Option("--n", min=1, help="Comparisons per voter.")] = 200,
    port: Annotated[int | None, Option(min=1, max=65535, help="Port on 127.0.0.1.")] = None,
    host: Annotated[
        list[str] | None,
        Option(
            help="A tunnel's host name, under which the page answers too; repeatable.", show_default=False
        ),
    ] = None,
    out: Annotated[Path | None, Option(help="Folder where the votes live.")] = None,
    seed: Annotated[int, Option(help="Of questions, pairing, order and sides.")] = 0,
    leaderboard: Annotated[bool, Option("--leaderboard", help="Print the ratings and stop.")] = False,
    csv: Annotated[Path | None, Option(help="Write every vote to this file and stop.")] = None,
    no_browser: Annotated[bool, Option("--no-browser", help="Do not open a browser.")] = False,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """People choose between answers, blind; Elo and Bradley–Terry ratings with intervals."""
    runs_folder = paths.runs_dir(runs_dir)
    contenders = find_contenders(runs or [], runs_folder)
    source, split, others = _data(data, contenders)
    folder = _folder(out, source, runs_folder)
    if leaderboard or csv is not None:
        _report(folder, csv, leaderboard=leaderboard, json=json)
        return
    if len(contenders) < 2 or source is None:
        raise UserError(
            "an arena needs two contenders" if len(contenders) < 2 else "which questions?",
            next_step="toasterft arena RUN_A RUN_B --data DATA",
        )
    items = _filled(contenders, source, split, images or others, n, seed, folder, runs_folder, quiet=quiet)
    _open(contenders, items, folder, host or [], n=n, seed=seed, port=port, browse=not no_browser, json=json)


def _data(given: str | None, contenders: list[Contender]) -> tuple[str | None, str | None, str | None]:
    """The data asked for, else what the first evaluation was on; and that evaluation's split and `images`."""
    settings = next((c.settings for c in contenders if c.settings), {})
    return given or settings.get("data"), settings.get("split"), settings.get("images")


def _folder(out: Path | None, data: str | None, runs_dir: Path) -> Path:
    """`--out`, else a folder per data set, else the only arena there is."""
    if out is not None:
        return out
    home = runs_dir / FOLDER
    if data is not None:
        return home / (Path(data).stem or "data")
    known = sorted(path.parent for path in home.glob(f"*/{VOTES_FILE}"))
    if len(known) == 1:
        return known[0]
    raise UserError(
        "which arena?",
        why=f"there are: {', '.join(path.name for path in known)}" if known else f"there is none in {home}",
        next_step="--out FOLDER, or the runs and --data it was opened with",
    )


def _filled(
    contenders: list[Contender], data: str, split: str | None, images: Path | str | None, n: int, seed: int,
    folder: Path, runs_dir: Path, *, quiet: bool,
) -> list[Example]:  # fmt: skip
    """The chosen questions, with every contender's answers to them."""
    items = load_items(data, split, images)
    for contender in contenders:
        read_outputs(contender, items, folder)
    chosen = choose_items(items, contenders, n, seed)
    for contender in contenders:
        missing = [item for item in chosen if item.key not in contender.outputs]
        if missing:
            if not quiet:
                terminal.err.print(
                    f"{contender.label}: {len(missing)} of {len(chosen)} questions go to eval now"
                )
            generate_outputs(contender, missing, folder, runs_dir, quiet=quiet)
    return chosen


def _open(
    contenders: list[Contender], items: list[Example], folder: Path, hosts: list[str], *, n: int, seed: int,
    port: int | None, browse: bool, json: bool,
) -> None:  # fmt: skip
    from toasterft.evaluation.arena import server  # a web server takes longer to import than a leaderboard

    votes = Votes(folder)
    session = VotingSession(contenders, items, votes, n=n, seed=seed)
    if not session.planned:
        votes.close()
        raise UserError(
            f"there is nothing to compare: {session.identical:,} of {session.identical:,} pairs of answers are identical",
            next_step="other runs, other --data, or a larger --n",
        )
    listening = server.listen(port)
    address = f"http://{server.HOST}:{listening.getsockname()[1]}/"

    def next_link() -> str:
        return f"{address}#key={access.new_key()}"

    access = AccessControl(
        votes, spent=lambda: None if json else terminal.line(f"next link  {next_link()}", "dim")
    )
    try:
        link = next_link()
        if json:
            terminal.as_json({"url": link, "folder": str(folder), **session.state()})
        else:
            printing.print_arena(session, link)
        if browse and _has_display():
            webbrowser.open(link)
        server.serve(server.build(session, access, hosts), listening)
    except KeyboardInterrupt:
        pass
    finally:
        cast = len(votes.all())
        votes.close()
    if not json:
        terminal.line(f"{cast:,} votes in {votes.path}; toasterft arena --leaderboard --out {folder}")


def _has_display() -> bool:
    # Without a screen `webbrowser` would start a text browser in this very terminal.
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


# --- after the votes ---------------------------------------------------------------------------


def _report(folder: Path, csv: Path | None, *, leaderboard: bool, json: bool) -> None:
    if not (folder / VOTES_FILE).is_file():
        raise UserError(
            "no votes here yet", where=str(folder), next_step="toasterft arena RUN_A RUN_B --data DATA"
        )
    votes = Votes(folder)
    cast, labels = votes.all(), votes.labels()
    votes.close()
    if csv is not None:
        try:
            paths.write_atomic(csv, "\ufeff" + votes_csv(cast, labels))
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=str(csv)) from None
        if not json:
            terminal.line(f"wrote {csv}: {len(cast):,} votes")
    if not leaderboard:
        return
    built = build_leaderboard(cast, labels)
    opt.show(json, built, lambda: printing.print_leaderboard(built))

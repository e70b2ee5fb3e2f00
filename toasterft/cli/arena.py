"""The arena: people choose between answers, blind, and the votes become a leaderboard."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toasterft import paths, terminal
from toasterft.cli import options as opt
from toasterft.errors import UserError

if TYPE_CHECKING:
    from toasterft.evaluation.arena.contenders import Contender, Item
    from toasterft.evaluation.arena.session import VotingSession

app = typer.Typer()

FOLDER = "arena"


@app.command(epilog=opt.example("arena runs/A runs/B --data my_folder", "arena --leaderboard"))
def arena(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Two or more evaluations, runs or models.", show_default=False)
    ] = None,
    data: opt.Data = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Comparisons per voter.")] = 200,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder where the votes live.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of questions, pairing, order and sides.")] = 0,
    leaderboard: Annotated[bool, typer.Option("--leaderboard", help="Print the ratings and stop.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write every vote to this file and stop.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    runs_dir: opt.RunsDir = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """People choose between answers, blind; Elo and Bradley–Terry ratings with intervals."""
    from toasterft.evaluation.arena import contenders as answers

    runs_folder = paths.runs_dir(runs_dir)
    contenders = answers.find(runs or [], runs_folder)
    source, split = _data(data, contenders)
    folder = _folder(out, source, runs_folder)
    if leaderboard or csv is not None:
        _report(folder, csv, leaderboard=leaderboard, json=json)
        return
    if len(contenders) < 2 or source is None:
        raise UserError(
            "an arena needs two contenders" if len(contenders) < 2 else "which questions?",
            next_step="toasterft arena RUN_A RUN_B --data DATA",
        )
    items = _filled(contenders, source, split, n, seed, folder, runs_folder, quiet=quiet)
    _open(contenders, items, folder, n=n, seed=seed, port=port, browse=not no_browser, json=json)


def _data(given: str | None, contenders: list[Contender]) -> tuple[str | None, str | None]:
    """The data asked for, else what the first evaluation was on; and that evaluation's split."""
    settings = next((c.settings for c in contenders if c.settings), {})
    return given or settings.get("data"), settings.get("split")


def _folder(out: Path | None, data: str | None, runs_dir: Path) -> Path:
    """`--out`, else a folder per data set, else the only arena there is."""
    from toasterft.evaluation.arena.votes import VOTES_FILE

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
    contenders: list[Contender], data: str, split: str | None, n: int, seed: int, folder: Path, runs_dir: Path,
    *, quiet: bool,
) -> list[Item]:  # fmt: skip
    """The chosen questions, with every contender's answers to them."""
    from toasterft.evaluation.arena import contenders as answers

    items = answers.load_items(data, split)
    for contender in contenders:
        answers.read(contender, items, folder)
    chosen = answers.choose(items, contenders, n, seed)
    for contender in contenders:
        missing = [item for item in chosen if item.key not in contender.outputs]
        if missing:
            if not quiet:
                terminal.err.print(
                    f"{contender.label}: {len(missing)} of {len(chosen)} questions go to eval now"
                )
            answers.generate(contender, missing, folder, runs_dir, quiet=quiet)
    return chosen


def _open(
    contenders: list[Contender], items: list[Item], folder: Path, *, n: int, seed: int, port: int | None,
    browse: bool, json: bool,
) -> None:  # fmt: skip
    from toasterft.evaluation.arena import server
    from toasterft.evaluation.arena.access import Gate
    from toasterft.evaluation.arena.session import VotingSession
    from toasterft.evaluation.arena.votes import Votes

    votes = Votes(folder)
    hall = VotingSession(contenders, items, votes, n=n, seed=seed)
    listening = server.listen(port)
    address = f"http://{server.HOST}:{listening.getsockname()[1]}/"

    def next_link() -> str:
        return f"{address}#key={gate.new_key()}"

    gate = Gate(votes, spent=lambda: None if json else terminal.line(f"next link  {next_link()}", "dim"))
    try:
        link = next_link()
        if json:
            terminal.as_json({"url": link, "folder": str(folder), **hall.state()})
            sys.stdout.flush()
        else:
            _welcome(hall, link)
        if browse and _has_display():
            webbrowser.open(link)
        server.serve(server.build(hall, gate), listening)
    except KeyboardInterrupt:
        pass
    finally:
        cast = len(votes.all())
        votes.close()
    if not json:
        terminal.line(f"{cast:,} votes in {votes.path}; toasterft arena --leaderboard --out {folder}")


def _welcome(hall: VotingSession, link: str) -> None:
    models, questions = len(hall.contenders), len(hall.items)
    terminal.pairs(
        [
            ("arena", f"{models} models, {questions:,} questions, {len(hall.planned):,} comparisons a voter"),
            ("votes", str(hall.votes.path)),
            ("open", link),
        ]
    )
    terminal.line("a link works once; the leaderboard page makes others. Ctrl-C ends, votes are kept", "dim")


def _has_display() -> bool:
    # Without a screen `webbrowser` would start a text browser in this very terminal.
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


# --- after the votes ---------------------------------------------------------------------------


def _report(folder: Path, csv: Path | None, *, leaderboard: bool, json: bool) -> None:
    from toasterft.evaluation.arena import leaderboard as board
    from toasterft.evaluation.arena.votes import VOTES_FILE, Votes

    if not (folder / VOTES_FILE).is_file():
        raise UserError(
            "no votes here yet", where=str(folder), next_step="toasterft arena RUN_A RUN_B --data DATA"
        )
    votes = Votes(folder)
    cast, labels = votes.all(), votes.labels()
    votes.close()
    if csv is not None:
        try:
            paths.write_atomic(csv, "\ufeff" + board.votes_csv(cast, labels))
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=str(csv)) from None
        if not json:
            terminal.line(f"wrote {csv}: {len(cast):,} votes")
    if not leaderboard:
        return
    built = board.build(cast, labels)
    if json:
        terminal.as_json(built)
    else:
        _print(built)


def _print(built: dict[str, Any]) -> None:
    terminal.table(
        ["model", ">rating", ">95 %", ">Elo", ">won", ">lost", ">tied", ">both bad"],
        [
            [
                row["model"],
                f"{row['rating']['value']:.0f}",
                f"{row['rating']['low']:.0f}–{row['rating']['high']:.0f}",
                f"{row['elo']:.0f}",
                *(f"{row[key]:,}" for key in ("wins", "losses", "ties", "both_bad")),
            ]
            for row in built["models"]
        ],
    )
    for row in built["pairs"]:
        if row["votes"]:
            terminal.line(
                f"{row['a']} preferred to {row['b']}: {terminal.percent(row['preferred'])}, {row['votes']:,} votes"
            )
    agreement = built["agreement"]
    if agreement:
        alpha = "" if agreement["alpha"] is None else f", Krippendorff's alpha {agreement['alpha']:.2f}"
        terminal.line(
            f"voters agree on {terminal.percent(agreement['agreed'])} of {agreement['shared']:,} shared pairs{alpha}"
        )
    if len(built["groups"]) > 1:
        groups = " | ".join(", ".join(group) for group in built["groups"])
        terminal.line(f"never compared, so not comparable: {groups}", "yellow")
    terminal.line("rating: Bradley–Terry, mean 1500; Elo depends on the order of the votes", "dim")

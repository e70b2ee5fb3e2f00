"""Every vote, in one SQLite file, on disk before it is confirmed.

Several processes may have the file open, and each of them may be killed at any moment: what was
answered with "saved" is there (WAL, synchronous=FULL).
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from toasterft import paths
from toasterft.errors import UserError
from toasterft.runs import run_folder

VOTES_FILE = "votes.sqlite"
SCHEMA_VERSION = 1
LONGEST_NAME = 40
BUSY_SECONDS = 10.0

Choice = Literal["left", "right", "tie", "bad"]
CHOICES: tuple[str, ...] = get_args(Choice)

SCHEMA = """
CREATE TABLE votes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, so that no undo hits another vote
    voter    TEXT NOT NULL,
    item     TEXT NOT NULL,
    question TEXT NOT NULL,
    "left"   TEXT NOT NULL,
    "right"  TEXT NOT NULL CHECK ("left" <> "right"),
    choice   TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'bad')),
    seconds  REAL NOT NULL,
    cast_at  TEXT NOT NULL
);
CREATE UNIQUE INDEX once ON votes (voter, item, min("left", "right"), max("left", "right"));
CREATE TABLE runs (id TEXT PRIMARY KEY, label TEXT NOT NULL);
CREATE TABLE sessions (hash TEXT PRIMARY KEY, opened_at TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Vote:
    """One voter's choice between two answers to one question.

    Attributes:
        item: key of the question (`Example.key`).
        left, right: ids of the runs, as the voter saw them.
        choice: the better one, `tie`, or `bad` for both.
        seconds: from seeing the answers to the vote.
        cast_at: local time with its offset.
    """

    voter: str
    item: str
    question: str
    left: str
    right: str
    choice: str
    seconds: float
    cast_at: str = ""

    @property
    def winner(self) -> str | None:
        """The run that won; None for a tie or two bad answers."""
        return {"left": self.left, "right": self.right}.get(self.choice)


class AlreadyCast(Exception):
    """This voter has voted on these two answers before, and otherwise."""


class BadName(ValueError):
    """A voter's name that cannot be one."""


def clean_name(name: str) -> str:
    """A voter's name with white space tidied.

    Raises:
        BadName: nothing is left, it is too long, or it holds what does not show (control or bidi marks).
    """
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not tidy or len(tidy) > LONGEST_NAME:
        raise BadName(f"a name has 1 to {LONGEST_NAME} characters")
    # Joiners (Cf) belong to some scripts and emoji; other invisible characters only help to pose as someone.
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") or c in _BIDI for c in tidy):
        raise BadName("a name has visible characters only")
    if not re.search(r"\w", tidy):
        raise BadName("a name has a letter or a digit")
    return tidy


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Votes:
    """The votes of one arena.

    Args:
        folder: the arena's folder; it is made where it is missing.

    Raises:
        UserError: the folder cannot be written, or the file is not a votes file of this version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / VOTES_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Only one thread uses it at a time, not always the same one.
            self._db = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare()
        except OSError as error:
            raise paths.disk_error(error, folder) from error
        except sqlite3.Error as error:
            raise UserError(
                f"the votes cannot be opened ({error})", where=str(self.path), next_step="--out elsewhere"
            ) from None

    def _prepare(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._db.execute("COMMIT")
        if version not in (0, SCHEMA_VERSION):
            raise UserError(
                "these votes were written by another version of toasterft",
                where=str(self.path),
                why=f"schema {version}; this one reads {SCHEMA_VERSION}",
                next_step="--out elsewhere",
            )

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        self._db.close()

    # --- voting ------------------------------------------------------------------------------

    def cast(self, vote: Vote) -> None:
        """Write a vote; it is on disk when this returns. The same vote again changes nothing.

        Raises:
            AlreadyCast: they chose otherwise before; that is to be undone first.
        """
        values = (vote.voter, vote.item, vote.question, vote.left, vote.right, vote.choice, vote.seconds)
        try:
            self._db.execute(
                'INSERT INTO votes (voter, item, question, "left", "right", choice, seconds, cast_at) '
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, run_folder.now()),
            )
        except sqlite3.IntegrityError as error:
            if "UNIQUE" not in str(error):
                raise
            # A page that never got the answer asks again, and must not get an error for a vote that counts.
            same = 'SELECT 1 FROM votes WHERE (voter, item, question, "left", "right", choice) = (?, ?, ?, ?, ?, ?)'
            if self._db.execute(same, values[:6]).fetchone() is None:
                raise AlreadyCast from None

    def undo(self, voter: str, vote_id: int) -> Vote | None:
        """Take one vote of a voter back and return it; None where it is gone already."""
        # Read to the end: only then is the deletion committed.
        rows = self._db.execute(
            "DELETE FROM votes WHERE id = ? AND voter = ? "
            'RETURNING voter, item, question, "left", "right", choice, seconds, cast_at',
            (vote_id, voter),
        ).fetchall()
        return Vote(*rows[0]) if rows else None

    def last_id(self, voter: str) -> int | None:
        """The id of a voter's last vote, for `undo`."""
        (found,) = self._db.execute("SELECT max(id) FROM votes WHERE voter = ?", (voter,)).fetchone()
        return None if found is None else int(found)

    def all(self) -> list[Vote]:
        """Every vote, in the order they were cast."""
        rows = self._db.execute(
            'SELECT voter, item, question, "left", "right", choice, seconds, cast_at FROM votes ORDER BY id'
        )
        return [Vote(*row) for row in rows]

    def of(self, voter: str) -> set[tuple[str, frozenset[str]]]:
        """(item, the two runs) of everything a voter has voted on."""
        rows = self._db.execute('SELECT item, "left", "right" FROM votes WHERE voter = ?', (voter,))
        return {(item, frozenset(pair)) for item, *pair in rows}

    def voters(self) -> list[str]:
        """Names, those who voted last first."""
        return [
            name
            for (name,) in self._db.execute("SELECT voter FROM votes GROUP BY voter ORDER BY max(id) DESC")
        ]

    def known_as(self, name: str) -> str:
        """`name` in the spelling it voted under before, so that ann and Ann are one person."""
        return next((known for known in self.voters() if known.casefold() == name.casefold()), name)

    # --- what a leaderboard calls the runs -----------------------------------------------------

    def remember(self, labels: dict[str, str]) -> None:
        """Store the runs' labels, for leaderboards without the runs."""
        self._db.executemany("INSERT OR REPLACE INTO runs (id, label) VALUES (?, ?)", labels.items())

    def labels(self) -> dict[str, str]:
        """Label by run id."""
        return dict(self._db.execute("SELECT id, label FROM runs").fetchall())

    # --- who may come in -------------------------------------------------------------------------

    def open_session(self, digest: str) -> None:
        """Remember a cookie by its hash: it outlives the server, its secret never touches the disk."""
        self._db.execute("INSERT INTO sessions (hash, opened_at) VALUES (?, ?)", (digest, run_folder.now()))

    def has_session(self, digest: str) -> bool:
        """Whether a cookie of this hash was given out."""
        return self._db.execute("SELECT 1 FROM sessions WHERE hash = ?", (digest,)).fetchone() is not None

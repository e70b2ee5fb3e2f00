"""`data` in the terminal: what became of a data set, and what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toasterft import paths
from toasterft.terminal.data import print_import
from toasterft.terminal.output import line, print_next
from toasterft.units import size

if TYPE_CHECKING:
    from toasterft.audit.check import Report  # it imports numpy, which few commands need


def print_verdict(report: Report, name: str, fixed: Path | None, card: dict[str, Any] | None) -> None:
    """How many findings of each severity, and the cleaned copy or how to make one."""
    counts = {severity: report.count(severity) for severity in ("error", "warning", "note")}
    found = ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
    line()
    line(found, "bold red" if counts["error"] else "bold green")
    if card is not None:
        done = ", ".join(f"{count:,} {kind}" for kind, count in card["fixes"].items()) or "nothing to mend"
        line(f"wrote {fixed}: {sum(card['splits'].values()):,} rows; mended {done}", "bold green")
    elif counts["error"]:
        print_next(f"toasterft data check {name} --fix NEW_FOLDER")


def print_imported(card: dict[str, Any], name: str) -> None:
    """What came in, and how to check it."""
    print_import(card, card["folder"])
    _next(name, card["folder"])


def print_drawn(folder: Path, n: int) -> None:
    """Charts that were drawn, and a training on them."""
    line(f"wrote {folder}: {n:,} charts, train/validation/test")
    print_next(f"toasterft sft --model toast-tiny --data {folder}")


def print_split(card: dict[str, Any], name: str) -> None:
    """Rows of each split."""
    counts = ", ".join(f"{split} {count:,}" for split, count in card["splits"].items())
    line(f"wrote {card['folder']}: {counts}", "bold green")
    _next(name, card["folder"])


def print_push(result: dict[str, Any], *, uploaded: bool, public: bool) -> None:
    """Rows and bytes that were packed, and where they are."""
    seen = (", public" if public else ", private") if uploaded else ""
    packed = f"{sum(result['rows'].values()):,} rows, {size(result['size_bytes'])}"
    line(f"{'pushed' if uploaded else 'wrote'} {result['address']}: {packed}{seen}", "bold green")


def _next(name: str, folder: str) -> None:
    print_next(f"toasterft data check {name if Path(folder) == paths.data_dir() / name else folder}")

"""`export` and `report` in the terminal."""

from __future__ import annotations

from typing import Any

from toasterft.terminal.output import line, pairs, print_next
from toasterft.units import percent, size


def print_export(result: dict[str, Any]) -> None:
    """What was merged, how it was checked, and where it lies."""
    check, folder = result["export"]["check"], result["folder"]
    rows = [
        ("merged into", f"{result['export']['base']}, {result['export']['dtype']}"),
        (
            "checked",
            f"logits within {check['largest_difference']:.1e} of base and adapter ({check['tolerance']:g} allowed), "
            f"same token at {check['same_tokens']} of {check['tokens']} places",
        ),
    ]
    for each in result.get("evaluations", ()):
        rows.append(("4-bit" if each["load_in_4bit"] else "16-bit", percent(each["scores"]["robust"])))
    rows += [("files", ", ".join(result["files"]))] if "files" in result else []
    rows += [("folder", folder)]
    rows += [("address", result["url"])] if "url" in result else []
    pairs(rows)
    if "files" not in result:
        print_next(f'toasterft ask {folder} IMAGE "QUESTION"')


def print_report(result: dict[str, Any]) -> None:
    """The page, its bytes, and what is on it."""
    runs = f", {len(result['runs'])} runs" if len(result["runs"]) > 1 else ""
    shown = f"{result['questions']} questions with their answers"
    line(f"wrote {result['page']} ({size(result['size_bytes'])}{runs}, {shown})")

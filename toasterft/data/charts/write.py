"""Writing a chart dataset: images, one JSON Lines file per split, and a card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any, Literal

from PIL import __version__ as pillow_version

from toasterft.data.charts.draw import draw
from toasterft.data.charts.questions import ChartItem, checked_kinds, make_items
from toasterft.data.charts.sample import make_chart
from toasterft.data.charts.spec import DEFAULT_SIZE_PX, Chart, checked_difficulty, checked_size, facts_key
from toasterft.data.write import write_rows
from toasterft.errors import DataError
from toasterft.paths import new_folder, require_new, write_json

# Raised whenever the same seed would give other rows or visibly other images.
GENERATOR_VERSION = 1
SPLITS = ("train", "validation", "test")
STYLES = ("simplified", "structured", "none")

_MAX_TRIES = 2_000  # charts drawn in vain for one place before giving up
_PNG_EFFORT = 4  # of 9; more shrinks charts by a few per cent and doubles the time


def write_dataset(
    out: Path,
    n: int,
    seed: int,
    difficulty: str = "core",
    kinds: Iterable[str] | None = None,
    per_chart: int = 3,
    style: Literal["simplified", "structured", "none"] = "simplified",
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1),
    progress: Callable[[int, int], None] | None = None,
    size_px: tuple[int, int] | None = None,
) -> Path:
    """Write `n` charts with up to `per_chart` questions each to the new folder `out`.

    No two charts share a table (`Chart.key`), so neither do the splits. The folder appears under its
    name only when complete.

    Args:
        style: the trace that rows carry as `reasoning`; "none" leaves it null.
        splits: the shares of train, validation and test.
        progress: called with (charts written, n).
        size_px: image (width, height); the difficulty's own where None.

    Returns:
        `out`.

    Raises:
        DataError: `out` exists and is not an empty folder, or an argument makes no sense.
    """
    chosen = checked_kinds(difficulty, kinds)
    size = checked_size(size_px or DEFAULT_SIZE_PX[checked_difficulty(difficulty)])
    _check_numbers(n, per_chart, style)
    counts = _split_counts(n, splits)
    require_new(out)

    # In random order: small tables run out first, and must not run out in the last split only.
    places = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    Random(f"toasterft charts, splits, {seed}").shuffle(places)

    with new_folder(out) as part:
        (part / "images").mkdir()
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        chart_kinds: Counter[str] = Counter()
        seen: set[str] = set()
        for index, split in enumerate(places):
            name = f"{difficulty}-{index:06d}"
            chart, items = _fresh(Random(f"{name}, {seed}"), difficulty, size, chosen, per_chart, seen)
            draw(chart).save(part / "images" / f"{name}.png", compress_level=_PNG_EFFORT)
            for number, item in enumerate(items):
                rows[split].append(_row(f"{name}-{number}", f"images/{name}.png", item, style))
            chart_kinds[chart.kind] += 1
            if progress is not None:
                progress(index + 1, n)
        digests = {f"{split}.jsonl": write_rows(part / f"{split}.jsonl", rows[split]) for split in SPLITS}
        by_kind = {split: Counter(row["kind"] for row in rows[split]) for split in SPLITS}
        card = {
            "name": "toasterft charts",
            "generator_version": GENERATOR_VERSION,
            "seed": seed,
            "charts": n,
            "difficulty": difficulty,
            "size_px": list(size),
            "style": style,
            "per_chart": per_chart,
            "splits": {
                split: {"charts": count, "questions": len(rows[split]), "kinds": _sorted(by_kind[split])}
                for split, count in zip(SPLITS, counts, strict=True)
            },
            "kinds": _sorted(sum(by_kind.values(), Counter())),
            "chart_kinds": _sorted(chart_kinds),
            "licence": "CC0-1.0",
            "sha256": digests,
            "pillow": pillow_version,  # pixels may differ by a shade between versions, rows never
        }
        write_json(part / "card.json", card)
    return out


def dataset_keys(folder: Path, splits: Iterable[str] = SPLITS) -> set[str]:
    """The `Chart.key`s of a written dataset, so that a training stream can leave its charts out."""
    keys = set()
    for split in splits:
        with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
            keys |= {facts_key(json.loads(line)["facts"]) for line in file}
    return keys


def _fresh(
    rng: Random,
    difficulty: str,
    size_px: tuple[int, int],
    kinds: tuple[str, ...],
    per_chart: int,
    seen: set[str],
) -> tuple[Chart, list[ChartItem]]:
    """A chart whose table is not in `seen` (it is added) and that allows at least one question."""
    for _ in range(_MAX_TRIES):
        chart = make_chart(rng, difficulty, size_px)
        if chart.key in seen:
            continue
        items = make_items(chart, rng, kinds, per_chart)
        if items:
            seen.add(chart.key)
            return chart, items
    raise DataError(
        f"no new {difficulty} chart came up in {_MAX_TRIES:,} tries",
        why=f"{len(seen):,} charts have been made already",
        next_step="ask for fewer charts or more question kinds",
    )


def _row(row_id: str, image: str, item: ChartItem, style: str) -> dict[str, Any]:
    reasoning = {"simplified": item.simplified, "structured": item.structured, "none": None}[style]
    return {
        "id": row_id,
        "image": image,
        "question": item.question,
        "answer": item.answer,
        "reasoning": reasoning,
        "kind": item.kind,
        "facts": item.facts,
        "reasoning_structured": item.structured,
    }


def _split_counts(n: int, splits: tuple[float, float, float]) -> tuple[int, int, int]:
    """Charts per split; rounding goes to train."""
    if any(share < 0 for share in splits) or abs(sum(splits) - 1) > 1e-6:
        raise DataError(
            f"the split shares {splits} do not add up to 1", next_step="use for example 0.8, 0.1, 0.1"
        )
    validation, test = round(n * splits[1]), round(n * splits[2])
    return n - validation - test, validation, test


def _check_numbers(n: int, per_chart: int, style: str) -> None:
    for what, number in (("charts", n), ("questions per chart", per_chart)):
        if number < 1:
            raise DataError(f"{number} {what} make no dataset", next_step="ask for 1 or more")
    if style not in STYLES:
        raise DataError(f"there is no trace style {style!r}", next_step=f"use one of {', '.join(STYLES)}")


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))

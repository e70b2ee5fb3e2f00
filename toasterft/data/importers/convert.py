"""Import a foreign data set: recognise its layout, read every row, write a folder of ours."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toasterft.data import arrow
from toasterft.data.class_folders import class_folders
from toasterft.data.example import TASKS, Example
from toasterft.data.importers.datasets import ADAPTERS, Adapter, LeftOut, RowContext, of_columns
from toasterft.data.importers.discover import Table, tables_by_depth
from toasterft.data.parse_rows import named_split
from toasterft.data.pictures import PictureFinder
from toasterft.data.reading import SHOWN_FAULTS, Fault, Reading, first_few
from toasterft.data.token_stats import MAX_DROPPED
from toasterft.data.write import read_card, write_dataset
from toasterft.errors import DataError
from toasterft.progress import Reporter
from toasterft.units import shorten

CLASS_FOLDERS = "class-folders"


@dataclass
class Imported:
    """An imported data set before it is written.

    Attributes:
        layout: the adapter that read it.
        left_out: rows left out on purpose, by reason.
        faults: rows that could not be read.
        reading: columns that nothing reads, and what was changed.
        unread: files that hold no rows of this layout.
        finder: what looked for the pictures.
    """

    layout: str
    task: str
    licence: str | None = None
    splits: dict[str, list[Example]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    reading: Reading = field(default_factory=Reading)
    finder: PictureFinder | None = None

    @property
    def rows(self) -> int:
        return sum(map(len, self.splits.values()))


def read(
    source: str,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: Path | None = None,
    config: str | None = None,
    split: str | None = None,
) -> Imported:
    """Every row of a data set in any layout of `ADAPTERS`, its images not opened yet.

    Args:
        source: a file, a folder, or a hub id.
        layout: an adapter's name; recognised from the rows where None.
        columns: roles (`question`, `answer`, `image` …) by hand, instead of a layout.
        images: where the pictures lie, if not beside the rows.
        config: which configuration of a hub data set.
        split: read this one only.

    Raises:
        DataError: nothing is there, or its layout is not known.
    """
    tried: list[Table] = []
    folder = Path(source).expanduser()
    own = folder if folder.is_dir() else folder.absolute().parent if folder.is_file() else None
    finder = PictureFinder(own, images)
    for level in tables_by_depth(source, finder, config):
        adapter = of_columns(columns) if columns else _adapter(level, layout)
        fitting = [table for table in level if adapter is not None and adapter.takes(table)]
        if adapter is not None and fitting:
            others = [table.name for table in level if table not in fitting]
            return _with_card(_read(adapter, fitting, others, finder, split), source)
        tried += level
    if columns is None and layout in (None, CLASS_FOLDERS) and folder.is_dir():
        rows_by_split = {name or "train": list(rows) for name, rows in class_folders(folder, finder).items()}
        if rows_by_split:
            return _select_split(Imported(CLASS_FOLDERS, "class", splits=rows_by_split), split)
    raise _unknown(source, tried, layout, columns)


def write(found: Imported, folder: Path, card: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Write what was read as the new data set `folder`; returns its card.

    Rows whose picture is missing or no image are left out too, and counted.

    Raises:
        DataError: more than 5 % of the rows cannot be used, or `folder` is in use.
    """
    found.reading.require_pictures(str(card.get("source", folder)))
    report.phase("images", found.rows)
    seen: Counter[str] = Counter()
    done = 0
    for split, examples in found.splits.items():
        good = []
        for example in examples:
            done += 1
            report.advance(done, found.rows)
            try:
                for image in example.images:
                    _ = image.size_px  # the header: is it there, and is it an image
            except DataError as error:
                found.faults.append(Fault(example.where, error.what, example.id, split))
                continue
            seen[example.id] += 1
            again = seen[example.id] > 1
            good.append(replace(example, id=f"{example.id}#{seen[example.id]}") if again else example)
        found.splits[split] = good
    _require_enough(found, str(card.get("source", folder)))
    report.done()
    return write_dataset(
        folder,
        {
            **card,
            "task": found.task,
            "layout": found.layout,
            **({"licence": found.licence} if found.licence else {}),
            "imported_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "left_out": dict(found.left_out),
            "unreadable": [
                {"where": fault.where, "id": fault.id, "what": fault.what} for fault in found.faults
            ],
            "unread_files": found.unread,
            **({"unread_columns": dict(found.reading.unread)} if found.reading.unread else {}),
            **({"changes": dict(found.reading.changes)} if found.reading.changes else {}),
        },
        found.splits,
    )


def _adapter(level: list[Table], layout: str | None) -> Adapter | None:
    """The layout that was asked for, else the first that some table of this level is of."""
    if layout == CLASS_FOLDERS:
        return None
    if layout is not None:
        return ADAPTERS[layout]
    return next(
        (adapter for adapter in ADAPTERS.values() if any(adapter.takes(table) for table in level)), None
    )


def _read(
    adapter: Adapter, fitting: list[Table], unread: list[str], finder: PictureFinder, split: str | None
) -> Imported:
    found = Imported(adapter.name, adapter.task, adapter.licence, finder=finder)
    if any(table.split for table in fitting):
        # Beside files that name their split others are something else: rejects, drafts, whole sets.
        unread += [table.name for table in fitting if not table.split]
        fitting = [table for table in fitting if table.split]
    found.unread = sorted(unread)
    for table in fitting:
        for where, row in table.read(found.faults):
            name = table.split or arrow.canonical(named_split(row) or "train")
            if name not in arrow.SPLITS:
                found.reading.changes[f"rows of split {shorten(name, 40)!r}, taken for training"] += 1
                name = "train"
            into = found.splits.setdefault(name, [])
            try:
                into.extend(adapter.read(row, RowContext(where, table, finder, found.reading)))
            except LeftOut as reason:
                found.left_out[str(reason)] += 1
            except DataError as error:
                found.faults.append(Fault(where, error.what, str(row.get("id") or ""), name))
            except Exception as error:
                # The row is not what its layout says; which of its parts is not, nobody can list beforehand.
                found.faults.append(Fault(where, f"not as {adapter.name} lays it out ({error!r})", "", name))
    return _select_split(found, split)


def _select_split(found: Imported, split: str | None) -> Imported:
    if split is not None:
        name = arrow.find_split(split, found.splits)
        found.splits = {name: found.splits[name]}
    return found


def _with_card(found: Imported, source: str) -> Imported:
    """Task and licence as a card of ours in the folder has them."""
    card = read_card(Path(source).expanduser())
    found.task = card["task"] if card.get("task") in TASKS else found.task
    found.licence = card.get("licence") or found.licence
    return found


def _require_enough(found: Imported, source: str) -> None:
    bad, all_rows = len(found.faults), len(found.faults) + found.rows
    if found.rows and bad <= MAX_DROPPED * all_rows:
        return
    details = first_few([f"{fault.where}: {fault.what}" for fault in found.faults])
    raise DataError(
        f"{bad:,} of {all_rows:,} rows cannot be used; nothing was written"
        if all_rows
        else "no rows left to import",
        where=source,
        details=details or [f"{count:,} {reason}" for reason, count in found.left_out.items()],
        why=f"read as {found.layout}; more than {MAX_DROPPED:.0%} unusable rows mean another layout, or pictures missing"
        if bad
        else None,
        next_step=found.finder.remedy
        if found.finder is not None and found.finder.remedy
        else "unpack the pictures (images.zip, imgs.zip) beside the rows, or name their folder: --images DIR"
        if any("picture" in fault.what for fault in found.faults)
        else "name the layout: --format " + " | ".join(ADAPTERS),
    )


def _unknown(
    source: str, tried: list[Table], layout: str | None, columns: Mapping[str, str] | None
) -> DataError:
    seen = [
        f"{table.name or 'its rows'}: {', '.join(map(str, table.first)) or table.fault or 'no rows'}"
        for table in tried[:SHOWN_FAULTS]
    ]
    wanted = ", ".join(sorted(columns.values())) if columns else None
    if layout in ADAPTERS and not wanted:
        wanted = ", ".join(sorted(ADAPTERS[layout].columns))
    return DataError(
        f"nothing here has the columns {wanted}" if wanted else "the layout is not known",
        where=source,
        details=seen
        or ["no .json, .jsonl, .csv, .tsv or .parquet, and no folders of pictures named by label"],
        next_step="name the columns: --question-column … --answer-column … [--image-column …]",
    )

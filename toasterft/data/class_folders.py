"""Folders of pictures that are named by their label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toasterft.data import arrow
from toasterft.data.arrow import SPLITS, canonical
from toasterft.data.example import Example, ImageRef
from toasterft.data.pictures import PictureFinder
from toasterft.data.reading import Fault
from toasterft.errors import DataError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2",
)  # fmt: skip


def class_folders(
    path: Path, finder: PictureFinder, faults: list[Fault] | None = None
) -> dict[str, Iterator[Example]]:
    """Image folders named by their label (as EmoSet), below split folders or without any."""
    splits = {canonical(folder.name): folder for folder in sorted(path.iterdir()) if folder.is_dir()}
    named = {name: folder for name, folder in splits.items() if name in SPLITS}
    roots = named or {"": path}
    # The question names every class of every split, so that training and evaluation ask the same.
    labels = sorted(
        {folder.name for root in roots.values() for folder in root.iterdir() if _pictures(folder)}
    )
    if len(labels) < 2:
        return {}

    return {name: _labelled(root, labels, finder, faults) for name, root in roots.items()}


def _labelled(
    root: Path, labels: list[str], finder: PictureFinder, faults: list[Fault] | None
) -> Iterator[Example]:
    for label in labels:
        for picture in _pictures(root / label):
            name = picture.relative_to(root).as_posix()
            try:
                finder.require(picture)  # a link may lead anywhere
            except DataError as error:
                if faults is None:
                    raise
                faults.append(Fault(str(picture), error.what, name))
                continue
            yield class_example(name, ImageRef(name=name, path=picture), label, labels, str(picture))


def class_example(id: str, image: ImageRef, label: str, labels: list[str], where: str) -> Example:
    """A picture and its label, as a question that names all labels."""
    extra = arrow.class_columns(labels)
    return Example(id, extra.pop("question"), label, (image,), kind=label, where=where, extra=extra)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)

"""Which file a row's picture is: one under the data set's folder, or under one more that the user named (`--images`).

Rows come from strangers, and what they name is read, copied and uploaded: a path that leaves both folders, also by way
of `..` or a symbolic link, is refused. Paths of another machine (absolute, with a drive, back-slashes or other
capitals) are found by their tail, where only one file can be meant.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from toasterft.data.example import Example, ImageRef
from toasterft.data.reading import faults_error
from toasterft.errors import DataError

# Where pictures lie beside the rows, most often.
FOLDERS = ("", "images", "image", "imgs", "img", "png", "data", "pictures", "photos")
MOST_NAMED = 4


class PictureFinder:
    """Finds the pictures that the rows of one data set name.

    Args:
        folder: the data set's own, with all its files; None where it has none (the hub).
        images: one more, looked through before the other.

    Attributes:
        outside: files that rows name and that lie in neither folder.

    Raises:
        DataError: `images` is no folder.
    """

    def __init__(self, folder: Path | None, images: str | Path | None = None) -> None:
        self.folder = folder
        self.images = Path(images).expanduser() if images is not None else None
        if self.images is not None and not self.images.is_dir():
            raise DataError("no such folder", where=f"--images {self.images}")
        self.outside: list[Path] = []
        self._roots = [os.path.realpath(each) for each in (folder, self.images) if each is not None]
        if folder is None:
            self._roots += _hub_caches()
        elif (
            folder.absolute().parent.name == "snapshots"
        ):  # a download of the hub's: links into its own blobs
            self._roots.append(os.path.realpath(folder.absolute().parent.parent / "blobs"))
        self._real: dict[Path, str] = {}
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._found_by_tail: dict[Path, str] = {}

    def find(self, *names: str, beside: Path | None = None) -> ImageRef | None:
        """The file that a row means by the first of these names that there is; None where there is none.

        Args:
            beside: the folder of the row's own file, for relative paths; the data set's by default.

        Raises:
            DataError: a URL, a file outside of the folders, or several files that could be meant.
        """
        for name in names:
            require_no_url(name)
        starts = list(dict.fromkeys(each for each in (beside, self.folder) if each is not None))
        outside = None
        for name in names:
            for start in ([self.images] if self.images is not None else []) + (starts or [Path("/")]):
                path = start / name
                if os.path.isfile(path):
                    if self.holds(path):
                        return ImageRef(name, path)
                    outside = path
        for name in names:
            parts = _parts(name)
            meant = self._below_images(name, parts) or (
                None if outside else self._beside(name, parts, starts)
            )
            if meant is not None:
                return ImageRef(name, meant)
        if outside is not None:
            self.require(outside)
        for start in starts:
            if os.path.exists(start / names[0]):
                raise DataError(f"the picture {names[0]} is a folder or a device, not a file")
        return None

    def named(self, name: str, beside: Path | None) -> ImageRef:
        """The file that a row means, or where it should be: what is missing is counted by who opens it.

        Raises:
            DataError: as `find`, or a name that leads nowhere, of rows without a folder.
        """
        found = self.find(name, beside=beside)
        if found is None and beside is None:
            raise DataError(f"the picture {name} is not here; --images DIR names the folder of the pictures")
        return found or ImageRef(name, (beside or Path()) / name)

    def holds(self, path: Path) -> bool:
        """Whether a file lies under one of the folders, wherever links lead."""
        folder = self._real.get(path.parent) or self._real.setdefault(
            path.parent, os.path.realpath(path.parent)
        )
        real = os.path.join(folder, path.name)
        real = os.path.realpath(real) if os.path.islink(real) else real
        return any(real.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots)

    def require(self, path: Path) -> None:
        """
        Raises:
            DataError: the file lies under none of the folders.
        """
        if not self.holds(path):
            real = Path(os.path.realpath(path))
            self.outside.append(real)
            raise DataError(
                f"the picture {path} lies outside of the data set's folder"
                + (f", in {real.parent}" if real != path else "")
                + f"; {_option(real.parent)} allows it"
            )

    @property
    def remedy(self) -> str | None:
        """What to type where pictures were refused for lying outside; None where none was."""
        if not self.outside:
            return None
        common = Path(os.path.commonpath([path.parent for path in self.outside]))
        if common == Path(common.anchor):
            return "copy the pictures into the data set's folder, or into one that --images DIR names"
        return f"{_option(common)}   if these pictures are meant, else mend or remove the rows"

    # --- by their tails

    def _below_images(self, name: str, parts: list[str]) -> Path | None:
        """The file anywhere below `images` that shares the longest tail with a path."""
        if self.images is None or not parts:
            return None
        alike = {path: _shared_tail(path, parts) for path in self._index.get(parts[-1].lower(), ())}
        most = max(alike.values(), default=0)
        nearest = [path for path, shared in alike.items() if shared == most]
        exact = [path for path in nearest if path.split("/")[-most:] == parts[-most:]]
        found = [self.images / path for path in (exact or nearest)]
        return self._only(name, parts, [path for path in found if self.holds(path)], whole=most == len(parts))

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """Every file below `images`, relative to it, by its name in small letters."""
        assert self.images is not None
        found: dict[str, list[str]] = defaultdict(list)
        for folder, _, files in os.walk(self.images):
            below = Path(folder).relative_to(self.images)
            for file in files:
                found[file.lower()].append((below / file).as_posix())
        return found

    def _beside(self, name: str, parts: list[str], starts: list[Path]) -> Path | None:
        """The file with a path's longest possible tail in the usual folders beside the rows."""
        for place in range(len(parts)):
            tail = Path(*parts[place:])
            tried = dict.fromkeys(start / below / tail for start in starts for below in FOLDERS)
            found = [path for path in map(self._as_on_disk, tried) if path is not None and self.holds(path)]
            if found:
                return self._only(name, parts, found, whole=place == 0)
        return None

    def _only(self, name: str, parts: list[str], found: list[Path], *, whole: bool) -> Path | None:
        """The only file that is meant.

        Raises:
            DataError: there are several, or another path was taken for the same file: they differ in what was cut off.
        """
        if len(found) > 1:
            named = ", ".join(map(str, found[:MOST_NAMED])) + (" …" if len(found) > MOST_NAMED else "")
            raise DataError(f"the picture {name} could be any of {len(found)}: {named}")
        if found and not whole:
            first = self._found_by_tail.setdefault(found[0], "/".join(parts).lower())
            if first != "/".join(parts).lower():
                raise DataError(
                    f"the picture {name} is not here; {found[0].name} was taken for {first} already"
                )
        return found[0] if found else None

    def _as_on_disk(self, path: Path) -> Path | None:
        """The file at `path`, also where its name is in other capitals and only one such file is there."""
        if os.path.isfile(path):
            return path
        if path.parent not in self._names:
            names: dict[str, list[str]] = defaultdict(list)
            for each in os.listdir(path.parent) if os.path.isdir(path.parent) else ():
                names[each.lower()].append(each)
            self._names[path.parent] = names
        alike = self._names[path.parent].get(path.name.lower(), [])
        return path.parent / alike[0] if len(alike) == 1 and os.path.isfile(path.parent / alike[0]) else None


def require_files(examples: Iterable[Example], name: str) -> None:
    """
    Raises:
        DataError: files of pictures are missing.
    """
    missing = [
        f"{example.where}: {image.name} does not exist"
        for example in examples
        for image in example.images
        if image.path is not None and not os.path.isfile(image.path)
    ]
    if missing:
        remedy = "--images DIR names the folder of the pictures, if they lie elsewhere; else mend or remove the rows"
        raise faults_error(missing, name, "missing image", remedy)


def require_no_url(name: str) -> None:
    """
    Raises:
        DataError: an image is named by a URL.
    """
    # A scheme and what follows it: `https://host/a.png`, `s3://bucket/a.png`.
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name):
        raise DataError(f"images are not fetched from URLs ({name[:60]}); download it and give a path")


def _parts(name: str) -> list[str]:
    """A path's parts, without another machine's drive and slashes: `C:\\set\\..\\a.png` is set and a.png."""
    usual = re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/")
    return [part for part in usual.split("/") if part not in ("", ".", "..")]


def _shared_tail(path: str, parts: list[str]) -> int:
    """How many last parts two paths have in common, whatever their capitals."""
    pairs = zip(reversed(path.lower().split("/")), reversed(parts))
    return next(
        (place for place, (one, other) in enumerate(pairs) if one != other.lower()),
        min(path.count("/") + 1, len(parts)),
    )


def _option(folder: Path) -> str:
    return f"--images {shlex.quote(str(folder))}"


def _hub_caches() -> list[str]:
    """Where the hub's libraries keep what they fetched: its tables may hold paths of pictures there."""
    import datasets
    from huggingface_hub import constants

    return [os.path.realpath(each) for each in (datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)]

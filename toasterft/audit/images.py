"""Looks at every image once: is it there, is it whole, how large; which are the same, and which look the same.

Headers come first. Files are hashed where another of the same length could be the same one, and each
different picture is decoded once, JPEGs at the smallest scale that will do.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toasterft.audit import near_duplicates
from toasterft.data import pixels
from toasterft.data.example import ImageRef
from toasterft.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# A photograph of this size takes a second to decode, and every model here scales it down to a tenth.
LARGE_PX = 50_000_000
# Less than one patch of the smallest vision tower each way.
TINY_EDGE_PX = 16
# Brightest and darkest grey this close: nothing is drawn there.
BLANK_CONTRAST = 4


@dataclass
class Picture:
    """One image file, or one picture of a table.

    Attributes:
        faults: (kind of finding, what is wrong).
        content: the same for pictures of the same bytes.
        look: the same for pictures that look the same; -1 where it could not be read.
        grey: small grey version, (SIDE, SIDE) uint8.
    """

    ref: ImageRef
    size_px: tuple[int, int] | None = None
    size_bytes: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    content: str = ""
    look: int = -1
    grey: NDArray[np.uint8] | None = None


def key_of(image: ImageRef, owner: str) -> Hashable:
    """The identity of a picture before it is opened: its path, else the row and reader it belongs to."""
    return os.path.abspath(image.path) if image.path is not None else (owner, image.name, id(image.read))


def stats(images: dict[Hashable, ImageRef], progress: Callable[[int, int], None]) -> dict[Hashable, Picture]:
    """Every picture, examined.

    Args:
        progress: called with (pictures done, all).
    """
    found = {key: Picture(ref) for key, ref in images.items()}
    with ThreadPoolExecutor(_workers()) as pool:
        for picture in pool.map(_header, found.values()):
            _note_size(picture)
        _name_contents(found.values())
        different: dict[str, list[Picture]] = defaultdict(list)
        for picture in found.values():
            if picture.size_px is not None:
                different[picture.content].append(picture)
        firsts = [same[0] for same in different.values()]
        for done, picture in enumerate(pool.map(_decode, firsts), start=1):
            progress(done, len(firsts))
            for other in different[picture.content][1:]:
                other.faults += [fault for fault in picture.faults if fault not in other.faults]
                other.grey = picture.grey
    seen = [
        (first, first.grey, first.size_px) for first in firsts if first.grey is not None and first.size_px
    ]
    if seen:
        looks = near_duplicates.groups(
            np.stack([shown for _, shown, _ in seen]),
            np.array([math.log(width / height) for _, _, (width, height) in seen]),
        )
        for look, (first, _, _) in zip(looks, seen):
            for same in different[first.content]:
                same.look = look
    return found


def _workers() -> int:
    """A thread for each core this process may use; decoding lets go of Python's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def _header(picture: Picture) -> Picture:
    try:
        if picture.ref.path is not None:
            picture.size_bytes = picture.ref.path.stat().st_size
        else:
            picture.size_bytes = len(picture.ref.bytes())
        picture.size_px = picture.ref.size_px
    except FileNotFoundError:
        picture.faults.append(("image-missing", f"{picture.ref.name} does not exist"))
    except DataError as error:
        # Ours, and Pillow's own guard, which is the stricter one.
        huge = any(words in error.what for words in ("too large", "exceeds limit"))
        kind = "image-huge" if huge else "image-broken"
        picture.faults.append((kind, f"{picture.ref.name}: {error.what}"))
    except (OSError, ValueError) as error:
        picture.faults.append(("image-broken", f"{picture.ref.name}: {error}"))
    return picture


def _note_size(picture: Picture) -> None:
    if picture.size_px is None:
        return
    width, height = picture.size_px
    if width * height > LARGE_PX:
        picture.faults.append(("image-large", f"{picture.ref.name} has {width:,} × {height:,} px"))
    elif min(width, height) < TINY_EDGE_PX:
        picture.faults.append(("image-tiny", f"{picture.ref.name} has {width} × {height} px"))


def _name_contents(pictures: Iterable[Picture]) -> None:
    """Give each picture a name for its bytes; only those that share a length are hashed."""
    by_length: dict[tuple[Any, int], list[Picture]] = defaultdict(list)
    for picture in pictures:
        if picture.size_px is not None:
            by_length[picture.size_px, picture.size_bytes].append(picture)
    for number, same in enumerate(by_length.values()):
        for picture in same:
            picture.content = picture.ref.sha256 if len(same) > 1 else f"only {number}"


def _decode(picture: Picture) -> Picture:
    try:
        with picture.ref.open_header() as image:
            if (count := pixels.frames(image)) > 1:
                picture.faults.append(("image-frames", f"{picture.ref.name} holds {count} frames"))
            picture.grey = grey(image)
    except DataError as error:
        picture.faults.append(("image-broken", f"{picture.ref.name}: {error.what}"))
    except Exception as error:  # Pillow's readers raise a dozen types for a damaged file
        picture.faults.append(("image-broken", f"{picture.ref.name}: the image is damaged ({error})"))
    else:
        if int(picture.grey.max()) - int(picture.grey.min()) <= BLANK_CONTRAST:
            picture.faults.append(("image-blank", f"{picture.ref.name} has one colour only"))
    return picture


def grey(image: Image) -> NDArray[np.uint8]:
    """A (SIDE, SIDE) uint8 version of an opened image, upright and as it would look on white paper."""
    from PIL import Image as Pillow

    side, box = near_duplicates.SIDE, None
    if image.format == "JPEG":
        # The decoder's own scaling; it rounds the size up, and the box is what lies inside the picture.
        scaled = image.draft("L", (2 * side, 2 * side))
        box = scaled[1] if scaled else None
    turn = pixels.orientation(image)
    image.load()
    # Straight to grey before scaling: three quarters of the work is spared.
    seen = pixels.as_seen(image).convert("L")
    small = seen.resize((side, side), Pillow.Resampling.HAMMING, box=box, reducing_gap=3.0)
    return np.asarray(pixels.turned(small, turn), np.uint8)

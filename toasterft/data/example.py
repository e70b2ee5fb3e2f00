"""One question about zero or more images, and where its pixels are."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toasterft.data import pixels
from toasterft.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# A decompression bomb is refused rather than decoded: 20,000 x 20,000 px is far beyond any chart.
MAX_IMAGE_PX = 400_000_000
# Formats that Pillow hands to another program to be drawn (Ghostscript, Windows): nothing of a stranger's is run.
PROGRAMS = ("EPS", "WMF")
# The kinds of tasks, as `task` in a data set's card.json; `scoring` has the scorers of each.
TASKS = ("chart", "yesno-open", "choice", "class", "math")

LFS_POINTER = b"version https://git-lfs"

Encoded = tuple[bytes, str]
"""An encoded picture and its media type."""


@dataclass(frozen=True)
class ImageRef:
    """An image that is opened only when it is needed.

    Either `path` names a file, or `read` returns the encoded bytes (hub datasets keep them in
    Parquet). `name` is what error messages call it.
    """

    name: str
    path: Path | None = None
    read: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    def bytes(self) -> bytes:
        """The encoded file, unchanged: for copies and digests. Whoever shows the picture takes `open` or `encoded`."""
        try:
            if self.path is not None:
                data = self.path.read_bytes()
            else:
                assert self.read is not None
                data = self.read()
        except DataError as error:
            raise DataError(error.what, where=self.name) from None
        except FileNotFoundError:
            raise DataError("the image file does not exist", where=self.name) from None
        except (OSError, ValueError) as error:  # a name with a NUL in it is the latter
            raise DataError(f"the image cannot be read ({error})", where=self.name) from None
        if not data:
            raise DataError("the image file is empty (0 bytes)", where=self.name)
        return data

    def _is_lfs_pointer(self) -> bool:
        """
        Raises:
            DataError: there is nothing in the file.
        """
        if self.path is None or not self.path.stat().st_size:
            return self.bytes().startswith(LFS_POINTER)  # says so itself where there is nothing
        with self.path.open("rb") as file:  # which may be a large one
            return file.read(64).startswith(LFS_POINTER)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the encoded bytes."""
        if self.path is None:
            return hashlib.sha256(self.bytes()).hexdigest()
        try:
            found = self.path.stat()
        except (OSError, ValueError):
            self.bytes()  # says what is wrong
            raise
        return _digest(self, found.st_size, found.st_mtime_ns)

    @cached_property
    def address(self) -> str:
        """Where its features are kept: the digest, marked where grey deeper than 8 bits was once cut off, not scaled."""
        with self.open_header() as image:
            return self.sha256 + "-8bit" * pixels.is_deep(image)

    @cached_property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the upright picture, from the header alone: no pixels are decoded."""
        with self.open_header() as image:
            width, height = image.size
            return (height, width) if pixels.swaps_sides(image) else (width, height)

    def open(self) -> Image:
        """The upright RGB picture, as a person sees it (`pixels`): the one that everybody is given.

        Raises:
            DataError: the file is missing, empty, truncated, or no image.
        """
        with self.open_header() as image:
            turn = pixels.orientation(image)
            try:
                image.load()
                return pixels.turned(pixels.as_seen(image), turn).convert("RGB")
            except Exception as error:  # Pillow's readers raise a dozen types for a damaged file
                raise DataError(
                    f"the image is damaged ({error})", where=self.name, next_step="replace or remove this row"
                ) from None

    @cached_property
    def portable(self) -> bool:
        """Whether any program that is given the file itself shows the picture that `open` gives.

        Raises:
            DataError: as `open`.
        """
        with self.open_header() as image:
            try:
                return pixels.seen_alike(image)
            except Exception:
                self.open()  # says what is wrong
                raise

    @property
    def drawn_anew(self) -> bool:
        """Whether `encoded` once was the file itself and is a drawing now: what was paid for it was another picture's."""
        with self.open_header() as image:
            return not self.portable and (image.format in pixels.MEDIA_TYPES or pixels.is_deep(image))

    def encoded(self) -> Encoded:
        """(bytes, media type) of the picture that `open` gives, for an endpoint or a browser.

        The file itself where others see it alike, else drawn anew: as JPEG what was one, as PNG the rest.

        Raises:
            DataError: as `open`.
        """
        picture = self.open()  # also where the file is sent: nobody pays for half a picture
        with self.open_header() as image:
            kind = image.format or ""
        if self.portable:
            return self.bytes(), pixels.MEDIA_TYPES[kind]
        kind, settings = ("JPEG", {"quality": 95}) if kind in ("JPEG", "MPO") else ("PNG", {})
        buffer = io.BytesIO()
        picture.save(buffer, kind, **settings)
        return buffer.getvalue(), pixels.MEDIA_TYPES[kind]

    def data_url(self, longest_edge_px: int) -> tuple[str, int, int]:
        """(address, width, height) for a page: drawn anew and small, so that no byte of the file itself is in it.

        Raises:
            DataError: as `open`.
        """
        image = self.open()
        image.thumbnail((longest_edge_px, longest_edge_px))
        image.info = {}  # comments and colour profiles, which Pillow would write again
        files: dict[str, bytes] = {}
        # A drawing is smaller as PNG, a photograph as JPEG.
        for kind, settings in (("png", {}), ("jpeg", {"quality": 85})):
            buffer = io.BytesIO()
            image.save(buffer, kind.upper(), optimize=True, **settings)
            files[kind] = buffer.getvalue()
        kind = min(files, key=lambda name: len(files[name]))
        return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}", *image.size

    def open_header(self) -> Image:
        """The image with its header read and its pixels not.

        Raises:
            DataError: the file is missing, empty, no image, or larger than `MAX_IMAGE_PX`.
        """
        from PIL import Image, UnidentifiedImageError

        source = self.path if self.path is not None else io.BytesIO(self.bytes())
        try:
            image = Image.open(source)
        except FileNotFoundError:
            raise DataError("the image file does not exist", where=self.name) from None
        except UnidentifiedImageError:
            why = "it is a Git LFS pointer: git lfs pull" if self._is_lfs_pointer() else None
            raise DataError("this is not an image that can be read", where=self.name, why=why) from None
        except Exception as error:  # Pillow's readers raise a dozen types for a damaged file
            raise DataError(f"the image cannot be opened ({error})", where=self.name) from None
        if image.format in PROGRAMS:
            raise DataError(
                f"{image.format} is a program, not a picture", where=self.name, next_step="draw it as PNG"
            )
        if image.width * image.height > MAX_IMAGE_PX:
            raise DataError(f"the image is too large ({image.width} x {image.height} px)", where=self.name)
        return image


@lru_cache(maxsize=1_000_000)
def _digest(image: ImageRef, size_bytes: int, mtime_ns: int) -> str:
    """Digest of a file that many rows may name: read once for each size and time of its last change."""
    return hashlib.sha256(image.bytes()).hexdigest()


@dataclass(frozen=True)
class Turn:
    """A message before a question; `pictures` counts those that stand in it.

    Attributes:
        role: system, user or assistant.
    """

    role: str
    text: str
    pictures: int = 0


@dataclass(frozen=True)
class Example:
    """A training or evaluation item.

    `reasoning` is the trace between the think tags, `answer` the short gold answer. `kind` groups
    scores (human/augmented, look-up/sum …); `where` says which file and line it came from.

    `facts` holds the image's visual facts where the data has them: a list of objects, each
    {"label": str, "value": number or str, "series": str, optional} for a mark of a chart or a cell of a table,
    or {"name": str, "attributes": [str], "position": str, the last two optional} for a thing; or the text of
    a table as ChartQA has it. `toasterft cot facts` adds them, `scoring.tables.read` reads them.

    `extra` may hold `task`, one of `TASKS` (charts where it is missing), and `choices`, a list of str: the
    options of a multiple-choice question in the order of their letters, or the labels of a class question.
    The question's text names them too; a model reads nothing else. `answer` is then an option's words or
    its letter.

    `rejected` makes the row a preference pair: a whole completion that is worse than the row's own, as a model wrote
    it, with the tags `<think>` and `<answer>` whatever a prompt's settings call them (`toasterft cot pairs` makes
    such rows, `toasterft dpo` learns from them). In TRL's words the row's `question` is the `prompt`, its
    `<think>reasoning</think><answer>answer</answer>` is `chosen`, and `rejected` is `rejected`; rows with TRL's own
    three columns, as text or as messages, are read as well.

    `history` holds the turns before the question: a system prompt, earlier questions with their answers. `images` are
    those of its turns, in order, then the question's own. A model reads all of it, and learns the answer alone.
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageRef, ...] = ()
    reasoning: str | None = None
    kind: str | None = None
    facts: Any = None
    where: str = ""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    rejected: str | None = None
    history: tuple[Turn, ...] = ()

    @cached_property
    def question_in_context(self) -> str:
        """The question behind the turns before it, as plain text; the question alone where there are none."""
        if not self.history:
            return self.question
        turns = [f"{turn.role}: {'[picture] ' * turn.pictures}{turn.text}" for turn in self.history]
        return "\n".join([*turns, f"user: {self.question}"])

    @cached_property
    def key(self) -> str:
        """What makes it this item in any copy of the data: a digest of turns, question, answer, choices and pixels."""
        parts = [self.question, self.answer, self.extra.get("choices"), *(one.sha256 for one in self.images)]
        parts += [[turn.role, turn.text, turn.pictures] for turn in self.history]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]

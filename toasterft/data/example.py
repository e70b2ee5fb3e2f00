"""One question about zero or more images, and where its pixels are."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toasterft.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# A decompression bomb is refused rather than decoded: 20,000 x 20,000 px is far beyond any chart.
MAX_IMAGE_PX = 400_000_000
# The kinds of tasks, as `task` in a data set's card.json; `scoring` has the scorers of each.
TASKS = ("chart", "yesno-open", "choice", "class", "math")


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
        """The encoded file, unchanged."""
        try:
            if self.path is not None:
                data = self.path.read_bytes()
            else:
                assert self.read is not None
                data = self.read()
        except FileNotFoundError:
            raise DataError("the image file does not exist", where=self.name) from None
        except OSError as error:
            raise DataError(f"the image cannot be read ({error})", where=self.name) from None
        if not data:
            raise DataError("the image file is empty (0 bytes)", where=self.name)
        return data

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the encoded bytes: the image's address in the feature cache."""
        return hashlib.sha256(self.bytes()).hexdigest()

    @cached_property
    def size_px(self) -> tuple[int, int]:
        """(width, height) after EXIF rotation, from the header alone: no pixels are decoded."""
        with self.open_header() as image:
            width, height = image.size
            # Orientations 5 to 8 are the quarter turns, which swap the sides. For a PNG whose header
            # holds no EXIF, Pillow would decode the whole picture to look behind it.
            has_exif = image.format != "PNG" or "exif" in image.info
            turned = has_exif and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)

    def open(self) -> Image:
        """The upright RGB picture; transparency is laid on white, as a page would show it.

        Raises:
            DataError: the file is missing, empty, truncated, or no image.
        """
        from PIL import ImageOps

        with self.open_header() as image:
            try:
                image.load()
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(
                    f"the image is damaged ({error})", where=self.name, next_step="replace or remove this row"
                ) from None
            return on_white(ImageOps.exif_transpose(image)).convert("RGB")

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
            head = self.bytes()[:64]  # says so itself where the file is empty
            pointer = head.startswith(b"version https://git-lfs")
            why = "it is a Git LFS pointer: git lfs pull" if pointer else None
            raise DataError("this is not an image that can be read", where=self.name, why=why) from None
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"the image cannot be opened ({error})", where=self.name) from None
        if image.width * image.height > MAX_IMAGE_PX:
            raise DataError(f"the image is too large ({image.width} x {image.height} px)", where=self.name)
        return image


def on_white(image: Image) -> Image:
    """The picture as it would look on white paper; one without transparency as it is."""
    from PIL import Image as Pillow

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    return Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)


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

    @cached_property
    def key(self) -> str:
        """What makes it this item in any copy of the data: a digest of question, answer, choices and pixels' bytes."""
        parts = [self.question, self.answer, self.extra.get("choices"), *(one.sha256 for one in self.images)]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]

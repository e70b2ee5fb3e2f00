"""One picture in many encodings: student, teacher, preview, report and arena are given the same one."""

from __future__ import annotations

import base64
import io
import zlib
from datetime import date

import numpy as np
import pytest
from PIL import Image, ImageDraw

from toasterft.audit import images as audit_images
from toasterft.data import pixels
from toasterft.data.example import ImageRef
from toasterft.errors import DataError
from toasterft.teachers import directory
from toasterft.teachers.api.types import Request, data_url


def drawing(mode="RGB"):
    """Black, white and two greys, different in every corner, so that no turn of it looks like another."""
    image = Image.new("L", (40, 24), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 19, 7), fill=0)
    draw.rectangle((20, 16, 39, 23), fill=128)
    draw.rectangle((0, 20, 3, 23), fill=64)
    return image.convert(mode)


GREY = np.asarray(drawing("L"))


def saved(kind, image=None, **settings):
    file = io.BytesIO()
    (image or drawing()).save(file, kind, **settings)
    return file.getvalue()


def oriented(kind, orientation, **settings):
    """The drawing stored so that its EXIF orientation turns it upright again."""
    undone = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(kind, pixels.turned(drawing(), undone[orientation]), exif=exif.tobytes(), **settings)


def grey(values, kind="TIFF", **settings):
    return saved(kind, Image.fromarray(values), **settings)


def see_through(mode, ground=0):
    """The white of the drawing is left out: transparent over a ground of another colour."""
    rgba = drawing("RGBA")
    rgba.putdata([(ground,) * 3 + (0,) if pixel == 255 else (pixel,) * 3 + (255,) for pixel in GREY.ravel()])
    return rgba.convert(mode)


def palette():
    """The drawing in a palette whose first entry is transparent, and black for those who do not look."""
    places = np.searchsorted([0, 64, 128], GREY) + 1
    image = Image.fromarray(np.where(GREY == 255, 0, places).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0, 64, 64, 64, 128, 128, 128])
    return image


WITH_NAN = GREY.astype(np.float32) / 255
WITH_NAN[0, 0] = np.nan  # black in the drawing
WITH_NAN[23, 12] = np.inf  # white
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (40, 24), "red")]}
EXACT = {
    "png": saved("PNG"), "bmp": saved("BMP"), "tiff": saved("TIFF"), "ppm": saved("PPM"),
    "webp": saved("WEBP", lossless=True), "gif": saved("GIF"), "grey": saved("PNG", drawing("L")),
    "16-bit png": grey(GREY.astype(np.uint16) * 257, "PNG"),
    "12 bits in 16": grey((GREY.astype(float) * 4095 / 255).round().astype(np.uint16)),
    "8 bits in 16": grey(GREY.astype(np.uint16), "PNG"),
    "X-ray, zero is white": grey(65535 - GREY.astype(np.uint16) * 257, tiffinfo={262: 0}),
    "32-bit integers with an offset": grey(GREY.astype(np.int32) * 100 - 1000),
    "float from 0 to 1": grey(GREY.astype(np.float32) / 255), "float": grey(GREY.astype(np.float32) * 1e6 - 7),
    "float with NaN and infinity": grey(WITH_NAN),
    "RGBA": saved("PNG", see_through("RGBA")), "LA": saved("PNG", see_through("LA")),
    "palette": saved("PNG", palette(), transparency=0), "gif palette": saved("GIF", palette(), transparency=0),
    "opaque RGBA": saved("PNG", drawing("RGBA")), "CMYK": saved("TIFF", drawing("CMYK")),
    **{f"png {turn}": oriented("PNG", turn) for turn in (3, 6)},
    **{f"tiff {turn}": oriented("TIFF", turn) for turn in (3, 6)},
    "animated gif": saved("GIF", **FRAMES), "apng": saved("PNG", **FRAMES), "pages": saved("TIFF", **FRAMES),
    "animated webp": saved("WEBP", lossless=True, **FRAMES),
}  # fmt: skip
NEAR = {
    "jpeg": saved("JPEG", quality=95),
    **{f"jpeg {turn}": oriented("JPEG", turn, quality=95) for turn in range(2, 9)},
    "jpeg cmyk": saved("JPEG", drawing("CMYK"), quality=95),
}
SENT_AS_THEY_LIE = {"png", "webp", "grey", "opaque RGBA", "jpeg"}


def shown(data):
    """The picture that a program shows which knows nothing of turns, depths, frames and transparency."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_everybody_sees_the_same_picture(name, tmp_path):
    data = EXACT.get(name) or NEAR[name]
    wanted, most = np.asarray(drawing()), 0 if name in EXACT else 24
    path = tmp_path / "picture"
    path.write_bytes(data)
    for image in (ImageRef(name, path), ImageRef(name, read=lambda: data)):
        assert image.size_px == (40, 24) == image.open().size
        assert np.abs(np.asarray(image.open()).astype(int) - wanted).max() <= most
        sent, media_type = image.encoded()  # the arena's page, and below the teacher's request
        assert (sent == data) == (name in SENT_AS_THEY_LIE)
        assert media_type.removeprefix("image/").upper() == Image.open(io.BytesIO(sent)).format
        assert np.abs(shown(sent).astype(int) - wanted).max() <= most + 8 * bool(most)
        assert data_url(image) == f"data:{media_type};base64,{base64.b64encode(sent).decode()}"
        page = base64.b64decode(image.data_url(64)[0].partition(",")[2])  # preview and report
        assert np.abs(shown(page).astype(int) - wanted).max() <= max(most, 8)
        with image.open_header() as opened:
            assert np.abs(audit_images.grey(opened).astype(int) - audit_images.grey(drawing())).max() <= 24


def test_an_answer_about_another_picture_is_not_taken_for_this_ones():
    service = directory.find("gemini", directory.Address(), date(2026, 11, 28))

    def key(name):
        return Request("How tall?", (ImageRef("x", read=lambda: (EXACT | NEAR)[name]),)).key(service)

    plain = ImageRef("x", read=lambda: EXACT["png"])
    assert plain.portable
    assert not plain.drawn_anew
    assert not ImageRef("x", read=lambda: EXACT["gif"]).drawn_anew  # was drawn as PNG before as well
    for name in ("16-bit png", "RGBA", "jpeg 6", "apng"):
        assert ImageRef("x", read=lambda name=name: EXACT.get(name) or NEAR[name]).drawn_anew
    assert key("png") != key("16-bit png")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (10_000, 10)])
def test_extreme_sizes_are_pictures(size):
    image = ImageRef("x", read=lambda: saved("PNG", Image.new("RGB", size, "red")))
    assert image.size_px == size == image.open().size
    assert image.data_url(64)[1:] <= (64, 64)
    assert image.encoded()[1] == "image/png"
    with image.open_header() as opened:
        assert audit_images.grey(opened).shape == audit_images.grey(drawing()).shape


def bomb():
    """A PNG whose header promises 60,000 x 60,000 px."""
    data = bytearray(saved("PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


BROKEN = {
    "empty": (b"", "empty"), "text": (b"not a picture", "not an image"), "bomb": (bomb(), "exceeds limit"),
    "cut png": (saved("PNG", Image.effect_noise((64, 64), 90))[:-900], "damaged"),
    "cut jpeg": (saved("JPEG", Image.effect_noise((64, 64), 90))[:-900], "damaged"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "program"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_refused_by_everybody(name):
    data, reason = BROKEN[name]
    image = ImageRef(name, read=lambda: data)
    for use in (image.open, image.encoded, lambda: image.data_url(64), lambda: data_url(image)):
        with pytest.raises(DataError, match=reason):
            use()

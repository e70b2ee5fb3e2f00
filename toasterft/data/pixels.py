"""What a person sees of an image file: its first frame, upright, in 8 bits, on white paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION, _PHOTOMETRIC = 0x0112, 0x0106
# Formats that browsers and endpoints read, with their media types; an MPO is a JPEG with further views behind it.
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp"}
# How a picture of each EXIF orientation is turned upright; 5 to 8 swap its sides.
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


def orientation(image: Image) -> int:
    """The EXIF orientation of an opened image, 1 (upright) to 8, from its header alone."""
    # For a PNG whose header holds no EXIF, Pillow would decode the whole picture to look behind it; TIFFs it turns
    # itself.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF, in as many ways as it has fields
        return 1
    return int(found) if found in _TURNS else 1


def swaps_sides(image: Image) -> bool:
    """Whether an opened image lies on its side."""
    return orientation(image) >= 5


def turned(image: Image, orientation: int) -> Image:
    """The picture, upright."""
    from PIL.Image import Transpose

    return image.transpose(Transpose[_TURNS[orientation]]) if orientation in _TURNS else image


def is_deep(image: Image) -> bool:
    """Whether an opened image is grey of more than 8 bits."""
    return image.mode[:1] in ("I", "F")


def as_seen(image: Image) -> Image:
    """A loaded picture as 8-bit grey or colours without transparency; not yet turned."""
    from PIL import Image as Pillow

    if is_deep(image):
        return _eight_bits(image)
    if image.has_transparency_data:
        # Premultiplied alpha (La, RGBa) is taken back first: Pillow converts each to its own plain mode alone.
        plain = image.convert(image.mode.replace("a", "A")) if image.mode in ("La", "RGBa") else image
        rgba = plain if plain.mode == "RGBA" else plain.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] == 255:
            return rgba  # laying it on white would take as long as decoding it
        return Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _eight_bits(image: Image) -> Image:
    """16- and 32-bit grey, scaled by its range as ImageJ shows it; values that fit 8 bits, or 0 to 1, stay as they are.

    NaN is black, infinities are black and white. The colour that a PNG calls transparent is white.
    """
    import numpy as np
    from PIL import Image as Pillow

    values: Any = np.asarray(image)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    usual = 1.0 if image.mode[0] == "F" else 255.0
    if low >= 0 and high <= usual:
        low, high = 0.0, usual
    elif low == high:
        low = min(low, 0.0)
    with np.errstate(all="ignore"):
        grey = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low or 1.0))
        if (
            getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
        ):  # a TIFF whose zero is white, as X-rays are kept
            grey = 255 - grey
        grey = np.nan_to_num(grey, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
    if isinstance(image.info.get("transparency"), int):
        grey[values == image.info["transparency"]] = 255
    return Pillow.fromarray(grey)


def frames(image: Image) -> int:
    """Frames or pages of an opened image; an MPO's further views are none."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def seen_alike(image: Image) -> bool:
    """Whether any program that opens this file shows what is seen here; decodes it only to look for transparency."""
    # Pillow keeps the high bytes of 16-bit colours (`RGB;16B`), which endpoints may not read at all.
    deep = is_deep(image) or ";16" in str(getattr(image, "tile", ""))
    if image.format not in MEDIA_TYPES or deep or image.mode in ("CMYK", "YCCK") or frames(image) > 1:
        return False
    if orientation(image) != 1:
        return False
    if not image.has_transparency_data:
        return True
    return bool(image.convert("RGBA").getchannel("A").getextrema()[0] == 255)

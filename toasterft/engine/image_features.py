"""Encode each image once: a cache of vision features on disk.

The vision tower and connector are frozen by default, so their output for an image never changes. It is
computed once per image, kept on disk in the compute dtype, and every later pass (training, rollouts,
evaluation, the next run) starts from it (`forward.placed`).
At 17 tiles the tower is 90 % of a SmolVLM-256M training step (measured on a CPU, design.md idea 1).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import safetensors
import safetensors.torch
import torch
import transformers
from PIL import Image

from toasterft.data.example import ImageRef
from toasterft.engine import feature_cache, processors
from toasterft.engine.forward import FACTOR, GRID
from toasterft.engine.loaded import LoadedModel
from toasterft.errors import DataError
from toasterft.models.geometry import fit_within

# Raised when what an entry holds, or how a picture is prepared for it, changes.
FORMAT = 1
# Each holds one prepared image (SmolVLM: 41 MB of float32), and one more waits.
PREPARING_THREADS = max(1, min(4, (os.cpu_count() or 1)))
MASK = "pixel_attention_mask"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """The language model's input for one image.

    Attributes:
        hidden: connector output, [image tokens, hidden size].
        text: the run of image tokens, tile tags and newlines that stands for it in the prompt.
        grid: [1, 3] patches in time, height and width, where positions are counted along them (M-RoPE).
    """

    hidden: torch.Tensor
    text: str
    grid: torch.Tensor | None = None


@dataclass(frozen=True)
class Pixels:
    """One image as the tower wants it, by the names of its arguments, and its token run.

    Where tiles are apart, `pixel_values` are [1, tiles, 3, height, width] or [tiles, 3, height, width].
    """

    inputs: dict[str, torch.Tensor]
    text: str

    @property
    def axis(self) -> int:
        """Along which the tiles lie."""
        return self.inputs["pixel_values"].ndim - 4

    @property
    def tiles(self) -> int:
        return self.inputs["pixel_values"].shape[self.axis]


class ImageEncoder:
    """Features of images, from the cache or, where they are missing there, from the vision tower.

    Args:
        loaded: a model whose family takes features.
        limit_bytes: size limit of the whole cache; None for half the free disk.
        batch_tiles: tiles per forward pass of the tower.
    """

    def __init__(self, loaded: LoadedModel, limit_bytes: int | None = None, batch_tiles: int = 8) -> None:
        self.loaded = loaded
        self.batch_tiles = batch_tiles
        self.encoded = 0  # images that went through the tower
        value = self._settings()
        key = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        limit = feature_cache.default_limit_bytes() if limit_bytes is None else limit_bytes
        self.store = feature_cache.Store(key, {"model": loaded.base, **value}, limit)

    def encode_all(self, images: Iterable[ImageRef], progress: Progress | None = None) -> None:
        """Encode every image that the cache lacks, as far as its size limit allows.

        Raises:
            DataError: an image is damaged.
        """
        unique = list({image.address: image for image in images}.values())
        missing = [image for image in unique if self.store.get(image.address) is None]
        done = len(unique) - len(missing)
        if progress:
            progress(done, len(unique))
        for _ in self._encode_and_store(missing):
            done += 1
            if progress:
                progress(done, len(unique))
            if self.store.full:
                break  # the rest is encoded as its batches come

    def __call__(self, images: Iterable[ImageRef]) -> list[Features]:
        """Features of a few images, in order."""
        found: dict[str, Features] = {}
        wanted = list(images)
        missing = []
        for image in {image.address: image for image in wanted}.values():
            features = self._read(image)
            if features is None:
                missing.append(image)
            else:
                found[image.address] = features
        found |= {image.address: features for image, features in self._encode_and_store(missing)}
        return [found[image.address] for image in wanted]

    def _encode_and_store(self, images: list[ImageRef]) -> Iterator[tuple[ImageRef, Features]]:
        for batch in self._batches(images):
            for image, features in self._encode(batch):
                tensors = {"hidden": features.hidden} | (
                    {} if features.grid is None else {"grid": features.grid}
                )
                self.store.put(
                    image.address, safetensors.torch.save(tensors, metadata={"text": features.text})
                )
                yield image, features

    def _batches(self, images: list[ImageRef]) -> Iterator[list[tuple[ImageRef, Pixels]]]:
        """Prepared images in groups of about `batch_tiles`; pictures are prepared while the tower works."""
        batch: list[tuple[ImageRef, Pixels]] = []
        tiles = 0
        for image, pixels in zip(images, _ahead(images, lambda image: pixels_of(self.loaded, image))):
            full = tiles >= self.batch_tiles or not self.loaded.family.tiles_apart
            if batch and (full or not _alike(pixels, batch[0][1])):
                yield batch
                batch, tiles = [], 0
            batch.append((image, pixels))
            tiles += pixels.tiles
        if batch:
            yield batch

    def _encode(self, batch: list[tuple[ImageRef, Pixels]]) -> Iterator[tuple[ImageRef, Features]]:
        """Tower and connector over several images, `batch_tiles` at a time, or over one.

        Tiles that do not see each other may be cut across passes.
        """
        hidden = torch.cat([self._pass(inputs) for inputs in self._windows([pixels for _, pixels in batch])])
        sizes = [pixels.text.count(self.loaded.processor.image_token) for _, pixels in batch]
        # An all-zero tile is padding to Idefics3, which drops it; a picture never normalises to that.
        assert len(hidden) == sum(sizes), f"{len(hidden)} features for {sum(sizes)} image tokens"
        self.encoded += len(batch)
        for (image, pixels), part in zip(batch, hidden.split(sizes)):
            yield image, Features(part.contiguous(), pixels.text, pixels.inputs.get(GRID))

    def _windows(self, batch: list[Pixels]) -> Iterator[dict[str, torch.Tensor]]:
        """What each pass of the tower gets."""
        if not self.loaded.family.tiles_apart:
            yield from (pixels.inputs for pixels in batch)
            return
        axis, names = batch[0].axis, batch[0].inputs
        whole = {name: torch.cat([pixels.inputs[name] for pixels in batch], dim=axis) for name in names}
        parts = {name: values.split(self.batch_tiles, dim=axis) for name, values in whole.items()}
        yield from (dict(zip(parts, each)) for each in zip(*parts.values()))

    def _pass(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """[image tokens, hidden]"""
        with torch.no_grad():
            out = self.loaded.inner.get_image_features(
                **{name: value.to(self.loaded.device) for name, value in inputs.items()}
            )
        found = out.pooler_output
        # One tensor per image in some families and, since transformers 5.24, in more.
        features = found if isinstance(found, torch.Tensor) else torch.cat(list(found))
        return features.reshape(-1, features.shape[-1]).to(self.loaded.dtype).cpu()

    def _read(self, image: ImageRef) -> Features | None:
        path = self.store.get(image.address)
        if path is None:
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as entry:
                grid = entry.get_tensor("grid") if "grid" in entry.keys() else None  # noqa: SIM118
                # By tile in entries of earlier releases.
                hidden = entry.get_tensor("hidden").flatten(0, -2)
                return Features(hidden, (entry.metadata() or {})["text"], grid)
        except (safetensors.SafetensorError, OSError, KeyError):
            self.store.drop(image.address)
            return None

    def _settings(self) -> dict[str, Any]:
        """All that decides a feature besides the image: the cache's key."""
        processor = self.loaded.processor
        return {
            "format": FORMAT,
            "weights": fingerprint(self.loaded),
            "dtype": str(self.loaded.dtype).removeprefix("torch."),
            "engine": self.loaded.engine,
            "transformers": transformers.__version__,
            "processor": type(processor.image_processor).__name__,
            "settings": json.loads(
                json.dumps(processor.image_processor.to_dict(), sort_keys=True, default=str)
            ),
            "image_seq_len": getattr(processor, "image_seq_len", None),
        }


def open_upright(loaded: LoadedModel, image: ImageRef) -> Any:
    """The picture as the processor gets it: RGB, and scaled down first where the processor would not.

    Raises:
        DataError: the image is damaged, or of a shape that the processor refuses.
    """
    picture = image.open()
    if max(picture.size) > loaded.family.max_aspect * min(picture.size):
        raise DataError(
            f"a picture of {picture.width} × {picture.height} px is too narrow for this model",
            where=image.name,
            next_step="pad the picture, or remove its row",
        )
    if processors.resizes_itself(loaded.processor):
        return picture
    size = fit_within(*picture.size, loaded.image_longest_edge)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def pixels_of(loaded: LoadedModel, image: ImageRef) -> Pixels:
    """One image prepared by the model's own image processor."""
    processor = loaded.processor
    inputs = processor.image_processor(
        images=[[open_upright(loaded, image)]], return_tensors="pt", **loaded.family.image_options
    )
    text = processor.replace_image_token(inputs, 0)
    taken = inspect.signature(loaded.inner.get_image_features).parameters
    given = {name: value for name, value in inputs.items() if name in taken}
    # Tiles without padding (all of SmolVLM's) need no mask; it would weigh 2 MB a tile.
    if MASK in given and bool(given[MASK].all()):
        del given[MASK]
    return Pixels(given, text)


def fingerprint(loaded: LoadedModel) -> str:
    """Hash of the weights an image passes through; a LoRA on the connector changes it, as it must."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (loaded.family.vision, loaded.family.connector):
        for name, tensor in loaded.part(path).state_dict().items():
            if f".{FACTOR}." in f".{name}":
                continue  # acts behind the features
            digest.update(f"{path}.{name}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()


def _alike(one: Pixels, other: Pixels) -> bool:
    """Whether two images' tiles can go through the tower together."""
    sizes = (one.inputs["pixel_values"].shape[-2:], other.inputs["pixel_values"].shape[-2:])
    return sizes[0] == sizes[1] and one.inputs.keys() == other.inputs.keys()


def _ahead(items: list[ImageRef], prepare: Callable[[ImageRef], Pixels]) -> Iterator[Pixels]:
    """`map`, a few items ahead in threads: Pillow and NumPy release the lock while they resize."""
    with ThreadPoolExecutor(PREPARING_THREADS) as pool:
        rest = iter(items)
        waiting: list[Future[Pixels]] = [
            pool.submit(prepare, item) for item in islice(rest, PREPARING_THREADS + 1)
        ]
        while waiting:
            result = waiting.pop(0).result()
            for item in islice(rest, 1):
                waiting.append(pool.submit(prepare, item))
            yield result

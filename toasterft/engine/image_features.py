"""Encode each image once: a cache of vision features on disk.

The vision tower and connector are frozen by default, so their output for an image never changes. It is
computed once per image, kept on disk in the compute dtype, and every later pass (training, rollouts,
evaluation, the next run) starts from it (`forward.placed`).
At 17 tiles the tower is 90 % of a SmolVLM-256M training step (measured on a CPU, design.md idea 1).
"""

from __future__ import annotations

import hashlib
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
from toasterft.engine.forward import FACTOR
from toasterft.engine.loaded import LoadedModel
from toasterft.errors import DataError
from toasterft.models.geometry import fit_within

# Raised when what an entry holds, or how a picture is prepared for it, changes.
FORMAT = 1
# Each holds one prepared image (SmolVLM: 41 MB of float32), and one more waits.
PREPARING_THREADS = max(1, min(4, (os.cpu_count() or 1)))
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """The language model's input for one image.

    Attributes:
        hidden: connector output, [image tokens, hidden size].
        text: the run of image tokens, tile tags and newlines that stands for it in the prompt.
    """

    hidden: torch.Tensor
    text: str


@dataclass(frozen=True)
class Pixels:
    """One image as the tower wants it: [1, tiles, 3, height, width], its mask, and its token run."""

    values: torch.Tensor
    mask: torch.Tensor | None
    text: str


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
                data = safetensors.torch.save({"hidden": features.hidden}, metadata={"text": features.text})
                self.store.put(image.address, data)
                yield image, features

    def _batches(self, images: list[ImageRef]) -> Iterator[list[tuple[ImageRef, Pixels]]]:
        """Prepared images in groups of about `batch_tiles`; pictures are prepared while the tower works."""
        batch: list[tuple[ImageRef, Pixels]] = []
        tiles = 0
        for image, pixels in zip(images, _ahead(images, lambda image: pixels_of(self.loaded, image))):
            if batch and (tiles >= self.batch_tiles or not _alike(pixels, batch[0][1])):
                yield batch
                batch, tiles = [], 0
            batch.append((image, pixels))
            tiles += pixels.values.shape[1]
        if batch:
            yield batch

    def _encode(self, batch: list[tuple[ImageRef, Pixels]]) -> Iterator[tuple[ImageRef, Features]]:
        """Tower and connector over the tiles of several images, `batch_tiles` at a time.

        Tiles do not see each other, so a large image may be cut across passes.
        """
        values = torch.cat([pixels.values for _, pixels in batch], dim=1)
        masks = [pixels.mask for _, pixels in batch if pixels.mask is not None]
        mask = torch.cat(masks, dim=1) if masks else None
        windows = [
            slice(start, start + self.batch_tiles) for start in range(0, values.shape[1], self.batch_tiles)
        ]
        hidden = torch.cat(
            [self._pass(values[:, at], None if mask is None else mask[:, at]) for at in windows]
        )
        sizes = [pixels.values.shape[1] for _, pixels in batch]
        # An all-zero tile is padding to the model, which drops it; a picture never normalises to that.
        assert hidden.shape[0] == sum(sizes), "the tower dropped a tile"
        self.encoded += len(batch)
        for (image, pixels), part in zip(batch, hidden.split(sizes)):
            yield image, Features(part.flatten(0, 1).contiguous(), pixels.text)

    def _pass(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[tiles, tokens, hidden]"""
        device = self.loaded.device
        with torch.no_grad():
            out = self.loaded.inner.get_image_features(
                pixel_values=values.to(device), pixel_attention_mask=None if mask is None else mask.to(device)
            )
        found = out.pooler_output
        # transformers 5.24 gives one tensor per image, and takes every tile for one.
        features = found if isinstance(found, torch.Tensor) else torch.cat(list(found))
        return features.view(values.shape[1], -1, features.shape[-1]).to(self.loaded.dtype).cpu()

    def _read(self, image: ImageRef) -> Features | None:
        path = self.store.get(image.address)
        if path is None:
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as entry:
                # By tile in entries of earlier releases.
                hidden = entry.get_tensor("hidden").flatten(0, -2)
                return Features(hidden, (entry.metadata() or {})["text"])
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
        images=[[open_upright(loaded, image)]], return_row_col_info=True, return_tensors="pt"
    )
    text = processor.replace_image_token(inputs, 0)
    mask = inputs.get("pixel_attention_mask")
    # Tiles without padding (all of SmolVLM's) need no mask; it would weigh 2 MB a tile.
    return Pixels(inputs["pixel_values"], None if mask is None or bool(mask.all()) else mask, text)


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
    return one.values.shape[2:] == other.values.shape[2:] and (one.mask is None) == (other.mask is None)


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

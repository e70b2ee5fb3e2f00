"""Tiles and sequence positions against what the real image processors and processors produce."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toasterft.errors import DataError
from toasterft.models.architectures.idefics3 import IdeficsGeometry
from toasterft.models.architectures.internvl import InternVLGeometry
from toasterft.models.architectures.llava_onevision import LlavaOnevisionGeometry
from toasterft.models.architectures.qwen2_5_vl import QwenGeometry
from toasterft.models.geometry import Geometry, fit_within

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")

SHARED = Path(os.environ.get("TOASTERFT_SHARED", Path(__file__).parents[2] / ".." / "shared" / "data"))
TOKENIZER = SHARED / "smolvlm-256m" / "tokenizer.json"

Real = Callable[[Any], tuple[int, int, int, int]]
"""From an image to (tiles, tower patches, positions, positions with features)."""

# Squares, tiny and odd sizes, a page, banners, sizes next to the tile borders used below, and (in the
# last line) some for which rounding otherwise than transformers does gives another count.
CHOSEN = [
    (8, 8), (9, 8), (8, 9), (16, 8), (31, 33), (32, 32), (33, 32), (63, 64), (65, 65), (64, 128),
    (97, 31), (100, 100), (127, 129), (128, 96), (160, 120), (192, 64), (255, 257), (300, 300),
    (320, 240), (333, 77), (640, 480), (512, 16), (16, 512), (800, 557), (210, 297), (1000, 40),
    (4000, 300), (300, 4000), (37, 1900), (1024, 1024),
    (15, 29), (19, 36), (128, 75), (256, 150), (110, 176), (176, 110), (125, 100),
]  # fmt: skip


def sizes(count: int, seed: int, most_pixels: int = 300_000) -> list[tuple[int, int]]:
    """The chosen sizes and `count` random ones, edges spread evenly over the octaves from 8 to 4000 px."""
    draw = random.Random(seed)
    found = list(CHOSEN)
    while len(found) < len(CHOSEN) + count:
        width, height = (round(8 * 500 ** draw.random()) for _ in range(2))
        if width * height <= most_pixels and max(width, height) / min(width, height) < 150:
            found.append((width, height))
    return found


def picture(width_px: int, height_px: int) -> Any:
    # A colour that normalises to nothing near zero: nothing here may look like padding.
    return Image.new("RGB", (width_px, height_px), (200, 30, 90))


def byte_tokenizer(specials: list[str], merge_newlines: bool = False) -> Any:
    """One token per byte, except for `specials`, and for two newlines where asked."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    if merge_newlines:
        vocab["ĊĊ"] = len(vocab)
        merges.append(("Ċ", "Ċ"))
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in specials])
    return core


def fast(core: Any, **kwargs: Any) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **kwargs)


def no_video() -> Any:
    """What the processors demand besides an image processor."""
    from transformers.video_processing_utils import BaseVideoProcessor

    return type("NoVideo", (BaseVideoProcessor,), {})()


@pytest.fixture(autouse=True)
def _without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    # Processors check their parts against transformers' top-level names, and without torchvision this
    # one is a placeholder that nothing is an instance of.
    from transformers import processing_utils, video_processing_utils

    names = processing_utils.transformers_module
    monkeypatch.setattr(names, "BaseVideoProcessor", video_processing_utils.BaseVideoProcessor)


def agree(geometry: Geometry, real: Real, images: list[tuple[int, int]]) -> None:
    wrong = []
    for width, height in images:
        ours = (
            geometry.tiles(width, height),
            geometry.tower_patches(width, height),
            geometry.image_tokens(width, height),
            geometry.feature_tokens(width, height),
        )
        theirs = real(picture(width, height))
        if ours != theirs:
            wrong.append(f"{width}x{height}: {ours} instead of {theirs}")
    assert not wrong, "\n".join(wrong)


def shrunk(real: Real, px: int | None) -> Real:
    """`real` for images that are first scaled down to a longest edge of `px`, if one is given."""

    def read(image: Any) -> tuple[int, int, int, int]:
        width, height = image.size
        return real(image.resize(fit_within(width, height, px)))

    return read


# ---- Idefics3, SmolVLM -------------------------------------------------------------------------

IDEFICS_TOKENS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<video>"]
IDEFICS_TOKENS += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def idefics(family: str, core: Any, geometry: IdeficsGeometry) -> Real:
    settings = {
        "size": {"longest_edge": geometry.longest_edge_px},
        "max_image_size": {"longest_edge": geometry.tile_px},
        "do_image_splitting": geometry.splits,
        "do_resize": geometry.resizes,
        # Interpolation does not change a size.
        "resample": 0,
    }
    tokenizer = fast(core)
    if family == "idefics3":
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
        from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

        processor = Idefics3Processor(
            Idefics3ImageProcessorPil(**settings), tokenizer, image_seq_len=geometry.tile_tokens
        )
    else:
        pytest.importorskip("num2words")
        from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
        from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor

        processor = SmolVLMProcessor(
            SmolVLMImageProcessorPil(**settings), tokenizer, no_video(), image_seq_len=geometry.tile_tokens
        )
    image_id = tokenizer.convert_tokens_to_ids("<image>")

    def read(image: Any) -> tuple[int, int, int, int]:
        made = processor(text=["<image>"], images=[[image]])
        ids = list(made["input_ids"][0])
        tiles, _, height, width = np.asarray(made["pixel_values"])[0].shape
        patches = tiles * (height // geometry.patch_px) * (width // geometry.patch_px)
        return tiles, patches, len(ids), ids.count(image_id)

    return read


@pytest.fixture(scope="module")
def smolvlm_tokenizer() -> Any:
    if not TOKENIZER.is_file():
        pytest.skip(f"no {TOKENIZER}")
    return tokenizers.Tokenizer.from_file(str(TOKENIZER))


SMALL_IDEFICS = IdeficsGeometry(
    tile_px=32,
    patch_px=8,
    tile_tokens=4,
    longest_edge_px=128,
    double_newline_tokens=2,
    # One token per byte here: `<row__col_>` without its digits.
    spelled_tag_tokens=11,
)


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("edge_px", [None, 20, 32, 33, 95, 160, 384])
def test_idefics(family: str, edge_px: int | None) -> None:
    # 160 px are five tiles, within the grid of single-token tags; 384 px are twelve.
    geometry = SMALL_IDEFICS.with_longest_edge(edge_px)
    agree(geometry, idefics(family, byte_tokenizer(IDEFICS_TOKENS), geometry), sizes(40, seed=edge_px or 1))


def test_idefics_where_newlines_merge() -> None:
    geometry = replace(SMALL_IDEFICS, double_newline_tokens=1)
    core = byte_tokenizer(IDEFICS_TOKENS, merge_newlines=True)
    agree(geometry, idefics("idefics3", core, geometry), sizes(10, seed=2))


def test_idefics_without_splitting_or_resizing() -> None:
    core = byte_tokenizer(IDEFICS_TOKENS)
    whole = replace(SMALL_IDEFICS, splits=False)
    agree(whole, idefics("idefics3", core, whole), sizes(10, seed=3))
    as_is = replace(SMALL_IDEFICS, resizes=False)
    agree(as_is, idefics("idefics3", core, as_is), [size for size in sizes(30, seed=4) if max(size) < 400])


def test_idefics_stops_at_4096_px() -> None:
    # Only long, thin images: a square at this size would be 48 MB of pixels.
    geometry = replace(SMALL_IDEFICS, tile_px=64, longest_edge_px=5001)
    real = idefics("idefics3", byte_tokenizer(IDEFICS_TOKENS), geometry)
    agree(geometry, real, [(4000, 21), (21, 4000), (700, 13), (8, 900), (6000, 40)])


SMOLVLM = IdeficsGeometry(tile_px=512, patch_px=16, tile_tokens=64, longest_edge_px=2048)


def test_smolvlm_at_its_real_settings(smolvlm_tokenizer: Any) -> None:
    real = idefics("idefics3", smolvlm_tokenizer, SMOLVLM)
    agree(SMOLVLM, real, [(640, 480), (300, 300), (4000, 300), (21, 333)])
    assert (SMOLVLM.tiles(640, 480), SMOLVLM.tiles(300, 300)) == (13, 17)
    for edge_px, tiles in ((1024, 5), (512, 1)):
        smaller = SMOLVLM.with_longest_edge(edge_px)
        assert smaller.tiles(500, 500) == tiles
        agree(smaller, idefics("smolvlm", smolvlm_tokenizer, smaller), [(500, 500), (800, 557), (100, 700)])


def test_smolvlm_tags_beyond_six_tiles(smolvlm_tokenizer: Any) -> None:
    # The recipe allows edges up to 4096 px, where SmolVLM's rows and columns go up to eight.
    wide = SMOLVLM.with_longest_edge(4096)
    agree(wide, idefics("idefics3", smolvlm_tokenizer, wide), [(900, 100), (100, 700)])
    # The same with small tiles, up to two digits.
    small = replace(SMOLVLM, tile_px=32, tile_tokens=4, longest_edge_px=384)
    agree(small, idefics("smolvlm", smolvlm_tokenizer, small), sizes(20, seed=5))


def test_smolvlm_newlines(smolvlm_tokenizer: Any) -> None:
    encoded = smolvlm_tokenizer.encode("\n\n", add_special_tokens=False)
    assert len(encoded.ids) == SMOLVLM.double_newline_tokens


# ---- Qwen2.5-VL --------------------------------------------------------------------------------

SMALL_QWEN = QwenGeometry(patch_px=4, merge=2, min_pixels=16 * 64, max_pixels=600 * 64)


def qwen(geometry: QwenGeometry) -> Real:
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = fast(byte_tokenizer(["<|image_pad|>", "<|video_pad|>"]))
    # A size of its own: given only min_pixels, this class writes into the default all instances share.
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": geometry.min_pixels, "longest_edge": geometry.max_pixels},
        patch_size=geometry.patch_px,
        merge_size=geometry.merge,
        resample=0,
    )
    processor = Qwen2_5_VLProcessor(images, tokenizer, no_video())
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def read(image: Any) -> tuple[int, int, int, int]:
        made = processor(text=["<|image_pad|>"], images=[image])
        ids = list(made["input_ids"][0])
        return len(made["image_grid_thw"]), len(made["pixel_values"]), len(ids), ids.count(image_id)

    return read


@pytest.mark.parametrize("edge_px", [None, 16, 77, 200])
def test_qwen(edge_px: int | None) -> None:
    geometry = SMALL_QWEN.with_longest_edge(edge_px)
    agree(geometry, shrunk(qwen(SMALL_QWEN), edge_px), sizes(40, seed=edge_px or 11))


def test_qwen_within_a_tight_budget() -> None:
    geometry = replace(SMALL_QWEN, min_pixels=4 * 64, max_pixels=64 * 64)
    agree(geometry, qwen(geometry), [*sizes(20, seed=12), (1900, 11), (11, 1900), (1000, 5)])


def test_qwen_at_its_real_settings() -> None:
    geometry = QwenGeometry(patch_px=14, merge=2, min_pixels=3136, max_pixels=12845056)
    agree(geometry, qwen(geometry), [(640, 480), (27, 30), (801, 557), (1400, 10)])


def test_qwen_refuses_what_its_processor_refuses() -> None:
    with pytest.raises(ValueError, match="200"):
        qwen(SMALL_QWEN)(picture(2020, 10))
    with pytest.raises(DataError, match="200"):
        SMALL_QWEN.image_tokens(2020, 10)


# ---- InternVL ----------------------------------------------------------------------------------

SMALL_INTERNVL = InternVLGeometry(tile_px=32, patch_px=8, tile_tokens=4)


def internvl(geometry: InternVLGeometry) -> Real:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.internvl.processing_internvl import InternVLProcessor

    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = fast(byte_tokenizer(list(names.values())), extra_special_tokens=names)
    images = GotOcr2ImageProcessorPil(
        size={"height": geometry.tile_px, "width": geometry.tile_px},
        min_patches=geometry.min_tiles,
        max_patches=geometry.max_tiles,
        # As the hub's file has it; the processor overrules it.
        crop_to_patches=False,
        resample=0,
    )
    processor = InternVLProcessor(images, tokenizer, no_video(), image_seq_length=geometry.tile_tokens)
    image_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")

    def read(image: Any) -> tuple[int, int, int, int]:
        made = processor(text=["<IMG_CONTEXT>"], images=[image])
        ids = list(made["input_ids"][0])
        tiles = made["pixel_values"]
        height, width = np.asarray(tiles[0]).shape[-2:]
        patches = len(tiles) * (height // geometry.patch_px) * (width // geometry.patch_px)
        return len(tiles), patches, len(ids), ids.count(image_id)

    return read


@pytest.mark.parametrize("edge_px", [None, 16, 60, 150])
@pytest.mark.parametrize(("fewest", "most"), [(1, 12), (2, 6), (1, 1), (2, 2)])
def test_internvl(edge_px: int | None, fewest: int, most: int) -> None:
    geometry = replace(SMALL_INTERNVL, min_tiles=fewest, max_tiles=most)
    agree(geometry.with_longest_edge(edge_px), shrunk(internvl(geometry), edge_px), sizes(35, seed=21 + most))


# ---- LLaVA-OneVision ---------------------------------------------------------------------------

SMALL_LLAVA = LlavaOnevisionGeometry(
    tile_px=32,
    patch_px=8,
    canvases_px=tuple((32 * rows, 32 * columns) for rows in range(1, 7) for columns in range(1, 7)),
)


def llava(geometry: LlavaOnevisionGeometry) -> Real:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )
    from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

    tokenizer = fast(byte_tokenizer(["<image>", "<video>"]))
    images = LlavaOnevisionImageProcessorPil(
        size={"height": geometry.tile_px, "width": geometry.tile_px},
        image_grid_pinpoints=[list(canvas) for canvas in geometry.canvases_px],
        resample=0,
    )
    processor = LlavaOnevisionProcessor(
        images,
        tokenizer,
        no_video(),
        num_image_tokens=(geometry.tile_px // geometry.patch_px) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{geometry.budget_tiles}",
    )
    image_id = tokenizer.convert_tokens_to_ids("<image>")

    def read(image: Any) -> tuple[int, int, int, int]:
        made = processor(text=["<image>"], images=[image])
        ids = list(made["input_ids"][0])
        tiles, _, height, width = np.asarray(made["pixel_values"])[0].shape
        patches = tiles * (height // geometry.patch_px) * (width // geometry.patch_px)
        return tiles, patches, len(ids), ids.count(image_id)

    return read


@pytest.mark.parametrize("edge_px", [None, 16, 60, 150])
@pytest.mark.parametrize("budget", [9, 4])
def test_llava_onevision(edge_px: int | None, budget: int) -> None:
    geometry = replace(SMALL_LLAVA, budget_tiles=budget)
    agree(geometry.with_longest_edge(edge_px), shrunk(llava(geometry), edge_px), sizes(40, seed=31 + budget))


def test_llava_onevision_at_its_real_settings() -> None:
    edges = range(384, 2305, 384)
    geometry = LlavaOnevisionGeometry(
        tile_px=384, patch_px=14, canvases_px=tuple((height, width) for height in edges for width in edges)
    )
    agree(geometry, llava(geometry), [(800, 557), (301, 299), (1400, 90)])


def test_llava_model_packs_as_many_features() -> None:
    """The processor's count is what the model's own packing gives, newline vectors included."""
    torch = pytest.importorskip("torch")
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.LlavaOnevisionConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        text_config={**text, "num_key_value_heads": 1, "vocab_size": 10},
        image_grid_pinpoints=[list(canvas) for canvas in SMALL_LLAVA.canvases_px],
    )
    model = LlavaOnevisionModel(config)
    for width, height in [(100, 80), (33, 150), (64, 64), (190, 190)]:
        tiles = torch.zeros(SMALL_LLAVA.tiles(width, height), 16, 8)
        _, lengths = model.pack_image_features([tiles], [[height, width]], image_newline=model.image_newline)
        assert lengths.tolist() == [SMALL_LLAVA.feature_tokens(width, height)]


# ---- scaling down beforehand ------------------------------------------------------------------


@pytest.mark.parametrize("edge_px", [16, 100, 999])
def test_fit_within(edge_px: int) -> None:
    for width, height in sizes(60, seed=41):
        fitted = fit_within(width, height, edge_px)
        if max(width, height) <= edge_px:
            assert fitted == (width, height)
        else:
            assert max(fitted) == edge_px
            assert min(fitted) >= 1
            scale = edge_px / max(width, height)
            assert abs(fitted[0] - max(1, width * scale)) <= 0.5
            assert abs(fitted[1] - max(1, height * scale)) <= 0.5
    assert fit_within(5000, 3, None) == (5000, 3)


@pytest.mark.parametrize(
    "geometry",
    [SMALL_IDEFICS, SMALL_QWEN, SMALL_INTERNVL, SMALL_LLAVA],
    ids=lambda geometry: type(geometry).__name__,
)
def test_no_longest_edge_changes_nothing(geometry: Geometry) -> None:
    assert geometry.with_longest_edge(None) == geometry

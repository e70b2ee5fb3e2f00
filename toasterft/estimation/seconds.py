"""Seconds of a run by phase: FLOPs and bytes over a GPU's dense rate and bandwidth, and kernel-launch time.

Every quantity is computed three times, under slow, likely and fast assumptions: the named constants below, as
(slow, likely, fast). **None of them has been measured on CUDA**; each states its basis.

Phases: `start` (imports, loading, warm-up), `encode` (every image once), `rollout` (sampling for policy
methods), `train`, `evaluate` (answering the held-out questions).
"""

from __future__ import annotations

from dataclasses import dataclass

from toasterft.catalog import Gpu
from toasterft.data.token_stats import TokenStats
from toasterft.estimation import memory, passes
from toasterft.estimation.passes import Pass, Sampling
from toasterft.models.architectures import ModelShape
from toasterft.recipe import Eval, Recipe, Trained
from toasterft.units import Range

# Share of the dense half-precision rate. Training: assumed; matrices of a 256M model are small (950 x 576),
# and published utilisations of small models lie in this range. Encoding and reading prompts: assumed a
# little higher, since whole batches of 1,024-patch tiles go through.
TRAIN_EFFICIENCY = (0.12, 0.25, 0.40)
FORWARD_EFFICIENCY = (0.20, 0.35, 0.50)
# Share of the half-precision rate that float32 reaches: from vendors' tables, 1/16 on an A100 (without
# TF32, which transformers leaves off), 1/4 on an A40, 1/2 on an RTX4090.
FLOAT32_SHARE = (1 / 16, 1 / 8, 1 / 4)
# Share of the bandwidth that streaming weights reaches. Assumed.
BANDWIDTH_EFFICIENCY = (0.5, 0.7, 0.85)
# Seconds in which one decoder layer can be launched, forward, backward or recomputed: below that a GPU
# waits for Python, however fast it is. Assumed for eager transformers with LoRA and 4-bit layers; lucidrains/
# x-transformers#338 reports 64 ms per token of 16 layers on an A40, plain 16-bit models about 1 ms a layer.
LAYER_SECONDS = (2.5e-3, 1.2e-3, 0.5e-3)
# CPU seconds to decode, resize, cut and normalise a picture, per megapixel of tiles. Likely value measured:
# Idefics3ImageProcessorPil on ChartQA, 0.35 s for 16.3 tiles of 512 px, one thread of a cloud CPU, 2026-11-21.
PREPARE_SECONDS_PER_MPX = (0.12, 0.08, 0.05)
# Threads that really prepare pictures side by side while the tower works (engine/image_features.py starts up to 4;
# a rented machine has 2 to 8 cores). Assumed.
PREPARE_THREADS = (1.0, 2.0, 4.0)
# Seconds to import, load the weights from disk and warm up; a download is not in it. Assumed.
START_SECONDS = (120.0, 60.0, 30.0)
# The same without a GPU to wake. Measured: 8 s on two busy cores, toast-tiny, 2026-11-21.
CPU_START_SECONDS = (40.0, 12.0, 6.0)
# A batch is decoded until its last row ends: the longest of a batch over the mean. Assumed; slow is the limit.
LONGEST_OVER_MEAN = 2.0
# Bytes per 4-bit weight in a pass: packed in, unpacked out in 16 bit, and in again for the product. One row
# alone has a kernel that reads the packed weight directly.
NF4_BYTES = 1 / 2 + 1 / memory.NF4_BLOCK + 4 / (memory.NF4_BLOCK * memory.NF4_SCALE_BLOCK)
UNPACKED_BYTES = NF4_BYTES + 2 + 2

SLOW, LIKELY, FAST = range(3)


@dataclass(frozen=True)
class Machine:
    """One GPU under one set of assumptions."""

    gpu: Gpu
    place: int
    float32: bool

    def computing(self, flops: float, efficiency: tuple[float, float, float]) -> float:
        share = FLOAT32_SHARE[self.place] if self.float32 and not self.gpu.is_cpu else 1.0
        return flops / (self.gpu.half_tflops * 1e12 * share * efficiency[self.place])

    def reading(self, count_bytes: float) -> float:
        return count_bytes / (self.gpu.bandwidth_gb_s * 1e9 * BANDWIDTH_EFFICIENCY[self.place])

    def launching(self, layers: float) -> float:
        return layers * LAYER_SECONDS[self.place]


def of_run(
    shape: ModelShape,
    stats: TokenStats,
    recipe: Trained | Eval,
    gpu: Gpu,
    *,
    held_out: TokenStats | None = None,
) -> dict[str, Range]:
    """Seconds by phase, in order: of a training on `stats`, or of an evaluation that answers them.

    Args:
        held_out: rows that are answered after a training; None where there are none.
    """
    answered = stats if isinstance(recipe, Eval) else held_out
    cached = passes.caches(shape, recipe)
    images = stats.images + (held_out.images if held_out else 0)

    def phases(machine: Machine) -> dict[str, float]:
        image = encode_image(shape, stats, machine)
        found = {"start": (CPU_START_SECONDS if gpu.is_cpu else START_SECONDS)[machine.place]}
        if cached:
            found["encode"] = images * image.ahead(machine)
        if isinstance(recipe, Trained):
            found |= _training(shape, stats, recipe, machine, image)
        if answered is not None:
            # Images that are prepared on the way into a pass keep the GPU waiting.
            inline = 0.0 if cached else answered.rows * answered.images_per_row * (image.gpu + image.cpu)
            found["evaluate"] = inline + answering(shape, recipe, machine, answered)
            if isinstance(recipe, Trained):
                found["evaluate"] += _validation_losses(shape, stats, answered, recipe, machine)
        return found

    float32 = recipe.dtype == "float32"
    slow, likely, fast = (phases(Machine(gpu, place, float32)) for place in (SLOW, LIKELY, FAST))
    return {name: Range(fast[name], likely[name], slow[name]) for name in likely}


def _training(
    shape: ModelShape, stats: TokenStats, recipe: Trained, machine: Machine, image: ImageSeconds
) -> dict[str, float]:
    """`rollout` where completions are sampled, and `train`."""
    work, found = passes.of(shape, stats, recipe), {}
    encoded_again = 1 - passes.cached_share(shape, recipe, feature_bytes(shape, stats))
    tower_passes = 3 if recipe.train_vision else 1
    inline = encoded_again * stats.images_per_row * (image.gpu * tower_passes + image.cpu)
    if work.rollouts is not None:
        prompts = work.rollouts.completions / work.rollouts.group
        found["rollout"] = prompts * inline + sampling(
            shape, recipe, machine, work.rollouts, stats.prompt_tokens, work.mean.completion_tokens
        )
    prompts = work.mean.prompts * (work.passes + work.scoring)
    found["train"] = (
        prompts * inline
        + work.passes * training_pass(shape, recipe, machine, work.mean)
        + work.scoring * forward_pass(shape, recipe, machine, work.mean)
    )
    return found


def _validation_losses(
    shape: ModelShape, stats: TokenStats, held_out: TokenStats, recipe: Trained, machine: Machine
) -> float:
    """Forward passes over the held-out rows every `eval_steps`; policy methods have no such loss."""
    work, size = passes.of(shape, stats, recipe), recipe.per_device_eval_batch_size
    if not recipe.eval_steps or work.rollouts is not None:
        return 0.0
    rows = Pass(size, work.mean.branches, held_out.prompt_tokens, held_out.completion_tokens)
    times = work.optimizer_steps // recipe.eval_steps * held_out.rows / size
    return times * forward_pass(shape, recipe, machine, rows)


def pace(shape: ModelShape, stats: TokenStats, recipe: Trained | Eval, gpu: Gpu) -> dict[str, str]:
    """The bottleneck of a phase in the likely case: `gpu`, `cpu` (preparing images), or `launches`."""
    machine = Machine(gpu, LIKELY, recipe.dtype == "float32")
    found = {}
    if passes.caches(shape, recipe):
        each = encode_image(shape, stats, machine)
        found["encode"] = "gpu" if each.ahead(machine) == each.gpu else "cpu"
    if isinstance(recipe, Trained):
        one = passes.of(shape, stats, recipe).mean
        waiting = machine.launching(_times_through_layers(recipe) * shape.text.layers)
        found["train"] = "launches" if training_pass(shape, recipe, machine, one) == waiting else "gpu"
    return found


def feature_bytes(shape: ModelShape, stats: TokenStats) -> float:
    """Bytes of the cached features of all images, in 16 bit."""
    return stats.images * stats.feature_tokens * shape.text.hidden * 2


# --- parts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSeconds:
    """One image: on the CPU before the tower, and in the tower and connector."""

    cpu: float
    gpu: float

    def ahead(self, machine: Machine) -> float:
        """Prepared in threads while the tower works: the slower of the two sets the pace."""
        return max(self.gpu, self.cpu / PREPARE_THREADS[machine.place])


def encode_image(shape: ModelShape, stats: TokenStats, machine: Machine) -> ImageSeconds:
    pixels = stats.tower_patches * shape.vision.patch_px**2
    flops = encode_flops(shape, stats.tower_patches, stats.tiles)
    return ImageSeconds(
        cpu=pixels / 1e6 * PREPARE_SECONDS_PER_MPX[machine.place],
        gpu=machine.computing(flops, FORWARD_EFFICIENCY),
    )


def encode_flops(shape: ModelShape, patches: float, tiles: float) -> float:
    """Forward pass of tower and connector over one image."""
    per_tile = patches / max(1.0, tiles)
    attention = 4 * patches * per_tile * shape.vision.hidden * shape.vision.layers
    return 2 * patches * shape.vision_params + attention + 2 * tiles * shape.connector_params


def layer_flops(shape: ModelShape, recipe: Recipe, tokens: float, pairs: float) -> float:
    """Forward pass through all decoder layers, adapters included."""
    text = shape.text
    attention = 4 * text.layers * text.queries * pairs
    return 2 * (shape.text.linear_params + _adapter(shape, recipe)) * tokens + attention


def head_flops(shape: ModelShape, tokens: float) -> float:
    return 2 * shape.embedding_params * tokens


def training_pass(shape: ModelShape, recipe: Trained, machine: Machine, one: Pass) -> float:
    """Forward, recomputation, and backward, which is as long again, or twice where the weights learn."""
    layers = layer_flops(shape, recipe, one.tokens, one.pairs)
    times = _times_through_layers(recipe)
    # Backward of the head: its input's gradient, and its weight's where it learns. The chunked loss
    # computes its logits twice.
    flops = layers * times + head_flops(shape, one.head_tokens) * (3 + (recipe.lora is None))
    # Both factors of an adapter learn.
    flops += 2 * _adapter(shape, recipe) * one.tokens
    return _bound(shape, recipe, machine, flops, TRAIN_EFFICIENCY, times)


def forward_pass(shape: ModelShape, recipe: Recipe, machine: Machine, one: Pass) -> float:
    flops = layer_flops(shape, recipe, one.tokens, one.pairs) + head_flops(shape, one.head_tokens)
    return _bound(shape, recipe, machine, flops, FORWARD_EFFICIENCY, 1)


def answering(shape: ModelShape, recipe: Trained | Eval, machine: Machine, stats: TokenStats) -> float:
    """Greedy answers to every row."""
    rows = passes.answering(stats, recipe)
    return sampling(shape, recipe, machine, rows, stats.prompt_tokens, stats.completion_tokens)


def sampling(
    shape: ModelShape,
    recipe: Trained | Eval,
    machine: Machine,
    work: Sampling,
    prompt_tokens: float,
    completion_tokens: float,
) -> float:
    """Prompts read, and completions decoded a batch at a time.

    Each step of a batch reads all weights and the batch's keys and values, and is never shorter than its
    launches. Completions are assumed as long as the data's; in the slow case all run to the limit.
    """
    limit = recipe.max_completion_length
    mean = min(completion_tokens, limit)
    steps = (limit, min(limit, LONGEST_OVER_MEAN * mean), mean)[machine.place]
    batches = work.completions / work.at_once
    prompts = work.at_once / work.group
    reading = Pass(1, 1, prompt_tokens, 0)
    flops = prompts * layer_flops(shape, recipe, reading.tokens, reading.pairs)
    prefill = _bound(shape, recipe, machine, flops, FORWARD_EFFICIENCY, 1)
    # Half of a completion is there on the average.
    cache = work.at_once * (prompt_tokens + steps / 2) * cache_bytes(shape)
    bytes_read = cache + weight_bytes(shape, recipe, one_row=work.at_once == 1) + 2 * shape.embedding_params
    flops = work.at_once * (layer_flops(shape, recipe, 1, prompt_tokens) + head_flops(shape, 1))
    step = max(
        machine.reading(bytes_read) + machine.computing(flops, FORWARD_EFFICIENCY),
        machine.launching(shape.text.layers),
    )
    return batches * (prefill + steps * step)


def cache_bytes(shape: ModelShape) -> int:
    """Keys and values of one token, in 16 bit."""
    return 2 * shape.text.layers * shape.text.keys * 2


def weight_bytes(shape: ModelShape, recipe: Recipe, *, one_row: bool = False) -> float:
    """Bytes that move when the decoder layers' weights are used once."""
    if getattr(recipe, "load_in_4bit", False):
        return shape.text.linear_params * (NF4_BYTES if one_row else UNPACKED_BYTES)
    wide = recipe.dtype == "float32" or (isinstance(recipe, Trained) and recipe.lora is None)
    return shape.text.linear_params * (4 if wide else 2)


# --- inside ----------------------------------------------------------------------------------


def _times_through_layers(recipe: Trained) -> int:
    """Times through the layers: forward, recomputation, input gradients, and weight gradients."""
    return 2 + recipe.gradient_checkpointing + (recipe.lora is None)


def _adapter(shape: ModelShape, recipe: Recipe) -> int:
    """Parameters that run beside the layers' own weights."""
    if not isinstance(recipe, Trained) or recipe.lora is None:
        return 0
    return memory.trainable_params(shape, recipe)


def _bound(
    shape: ModelShape,
    recipe: Recipe,
    machine: Machine,
    flops: float,
    efficiency: tuple[float, float, float],
    times: int,
) -> float:
    """Seconds of going through all layers so often: the GPU's work, or launching it, whichever is longer."""
    busy = machine.computing(flops, efficiency) + machine.reading(times * weight_bytes(shape, recipe))
    return max(busy, machine.launching(times * shape.text.layers))

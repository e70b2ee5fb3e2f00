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
from toasterft.recipe import Eval, Trained
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
    slow, likely, fast = (
        Speed(shape, recipe, gpu, place).phases(stats, held_out) for place in (SLOW, LIKELY, FAST)
    )
    return {name: Range(fast[name], likely[name], slow[name]) for name in likely}


def pace(shape: ModelShape, stats: TokenStats, recipe: Trained | Eval, gpu: Gpu) -> dict[str, str]:
    """The bottleneck of a phase in the likely case: `gpu`, `cpu` (preparing images), or `launches`."""
    speed, found = Speed(shape, recipe, gpu, LIKELY), {}
    if passes.caches(shape, recipe):
        each = speed.image(stats)
        found["encode"] = "gpu" if each.ahead == each.gpu else "cpu"
    if isinstance(recipe, Trained):
        taken = speed.training_pass(recipe, passes.of(shape, stats, recipe).mean)
        waiting = speed.launching(_times_through_layers(recipe) * shape.text.layers)
        found["train"] = "launches" if taken == waiting else "gpu"
    return found


def feature_bytes(shape: ModelShape, stats: TokenStats) -> float:
    """Bytes of the cached features of all images, in 16 bit."""
    return stats.images * stats.feature_tokens * shape.text.hidden * 2


def encode_flops(shape: ModelShape, patches: float, tiles: float) -> float:
    """Forward pass of tower and connector over one image."""
    per_tile = patches / max(1.0, tiles)
    attention = 4 * patches * per_tile * shape.vision.hidden * shape.vision.layers
    return 2 * patches * shape.vision_params + attention + 2 * tiles * shape.connector_params


def _times_through_layers(recipe: Trained) -> int:
    """Times through the layers: forward, recomputation, input gradients, and weight gradients."""
    return 2 + recipe.gradient_checkpointing + (recipe.lora is None)


@dataclass(frozen=True)
class ImageSeconds:
    """One image: on the CPU before the tower, and in the tower and connector; so many are prepared side by side."""

    cpu: float
    gpu: float
    threads: float

    @property
    def ahead(self) -> float:
        """Prepared in threads while the tower works: the slower of the two sets the pace."""
        return max(self.gpu, self.cpu / self.threads)


@dataclass(frozen=True)
class Speed:
    """Seconds of a recipe's passes through a model on one GPU, under one set of assumptions (`place`)."""

    shape: ModelShape
    recipe: Trained | Eval
    gpu: Gpu
    place: int

    def computing(self, flops: float, efficiency: tuple[float, float, float]) -> float:
        slower = self.recipe.dtype == "float32" and not self.gpu.is_cpu
        share = FLOAT32_SHARE[self.place] if slower else 1.0
        return flops / (self.gpu.half_tflops * 1e12 * share * efficiency[self.place])

    def reading(self, count_bytes: float) -> float:
        return count_bytes / (self.gpu.bandwidth_gb_s * 1e9 * BANDWIDTH_EFFICIENCY[self.place])

    def launching(self, layers: float) -> float:
        return layers * LAYER_SECONDS[self.place]

    def phases(self, stats: TokenStats, held_out: TokenStats | None) -> dict[str, float]:
        recipe, image = self.recipe, self.image(stats)
        answered = stats if isinstance(recipe, Eval) else held_out
        cached = passes.caches(self.shape, recipe)
        found = {"start": (CPU_START_SECONDS if self.gpu.is_cpu else START_SECONDS)[self.place]}
        if cached:
            found["encode"] = (stats.images + (held_out.images if held_out else 0)) * image.ahead
        if isinstance(recipe, Trained):
            found |= self._training(recipe, stats, image)
        if answered is not None:
            # Images that are prepared on the way into a pass keep the GPU waiting.
            inline = 0.0 if cached else answered.rows * answered.images_per_row * (image.gpu + image.cpu)
            rows = passes.answering(answered, recipe)
            found["evaluate"] = inline + self.sampling(
                rows, answered.prompt_tokens, answered.completion_tokens
            )
            if isinstance(recipe, Trained):
                found["evaluate"] += self._validation_losses(recipe, stats, answered)
        return found

    def _training(self, recipe: Trained, stats: TokenStats, image: ImageSeconds) -> dict[str, float]:
        """`rollout` where completions are sampled, and `train`."""
        work, found = passes.of(self.shape, stats, recipe), {}
        encoded_again = 1 - passes.cached_share(self.shape, recipe, feature_bytes(self.shape, stats))
        tower_passes = 3 if recipe.train_vision else 1
        inline = encoded_again * stats.images_per_row * (image.gpu * tower_passes + image.cpu)
        if work.rollouts is not None:
            prompts = work.rollouts.completions / work.rollouts.group
            found["rollout"] = prompts * inline + self.sampling(
                work.rollouts, stats.prompt_tokens, work.mean.completion_tokens
            )
        prompts = work.mean.prompts * (work.passes + work.scoring)
        found["train"] = (
            prompts * inline
            + work.passes * self.training_pass(recipe, work.mean)
            + work.scoring * self.forward_pass(work.mean)
        )
        return found

    def _validation_losses(self, recipe: Trained, stats: TokenStats, held_out: TokenStats) -> float:
        """Forward passes over the held-out rows every `eval_steps`; policy methods have no such loss."""
        work, size = passes.of(self.shape, stats, recipe), recipe.per_device_eval_batch_size
        if not recipe.eval_steps or work.rollouts is not None:
            return 0.0
        rows = Pass(size, work.mean.branches, held_out.prompt_tokens, held_out.completion_tokens)
        return work.optimizer_steps // recipe.eval_steps * held_out.rows / size * self.forward_pass(rows)

    def image(self, stats: TokenStats) -> ImageSeconds:
        pixels = stats.tower_patches * self.shape.vision.patch_px**2
        flops = encode_flops(self.shape, stats.tower_patches, stats.tiles)
        return ImageSeconds(
            cpu=pixels / 1e6 * PREPARE_SECONDS_PER_MPX[self.place],
            gpu=self.computing(flops, FORWARD_EFFICIENCY),
            threads=PREPARE_THREADS[self.place],
        )

    def training_pass(self, recipe: Trained, one: Pass) -> float:
        """Forward, recomputation, and backward, which is as long again, or twice where the weights learn."""
        times = _times_through_layers(recipe)
        # Backward of the head: its input's gradient, and its weight's where it learns. The chunked loss
        # computes its logits twice.
        head = self._head_flops(one.head_tokens) * (3 + (recipe.lora is None))
        # Both factors of an adapter learn.
        adapter = 2 * self._adapter * one.tokens
        flops = self._layer_flops(one.tokens, one.pairs) * times + head + adapter
        return self._bound(flops, TRAIN_EFFICIENCY, times)

    def forward_pass(self, one: Pass) -> float:
        flops = self._layer_flops(one.tokens, one.pairs) + self._head_flops(one.head_tokens)
        return self._bound(flops, FORWARD_EFFICIENCY, 1)

    def sampling(self, work: Sampling, prompt_tokens: float, completion_tokens: float) -> float:
        """Prompts read one by one, and completions decoded side by side.

        Each step reads all weights, the rows' prompts and what they wrote, and is never shorter than its launches.
        Completions are assumed as long as the data's; in the slow case all run to the limit.
        """
        text, limit = self.shape.text, self.recipe.max_completion_length
        data = min(completion_tokens, limit)
        mean, longest = ((limit, limit), (data, min(limit, LONGEST_OVER_MEAN * data)), (data, data))[
            self.place
        ]
        # Places are taken again while some wait; when none does, the longest is waited for.
        steps = mean * work.together / work.at_once + longest - mean
        one = Pass(1, 1, prompt_tokens, 0)
        prefill = self._bound(self._layer_flops(one.tokens, one.pairs), FORWARD_EFFICIENCY, 1)
        # Keys and values in 16 bit, a prompt's once for its group; half of a completion is there on the average.
        positions = work.at_once * (prompt_tokens / work.group + mean / 2)
        weights = self.weight_bytes(one_row=work.at_once == 1) + 2 * self.shape.embedding_params
        flops = work.at_once * (self._layer_flops(1, prompt_tokens) + self._head_flops(1))
        busy = self.reading(positions * 4 * text.layers * text.keys + weights)
        busy += self.computing(flops, FORWARD_EFFICIENCY)
        writing = steps * max(busy, self.launching(text.layers))
        return work.completions * (prefill / work.group + writing / work.together)

    def weight_bytes(self, *, one_row: bool = False) -> float:
        """Bytes that move when the decoder layers' weights are used once."""
        recipe, linears = self.recipe, self.shape.text.linear_params
        if recipe.load_in_4bit:
            return linears * (NF4_BYTES if one_row else UNPACKED_BYTES)
        wide = recipe.dtype == "float32" or (isinstance(recipe, Trained) and recipe.lora is None)
        return linears * (4 if wide else 2)

    @property
    def _adapter(self) -> int:
        """Parameters that run beside the layers' own weights."""
        if not isinstance(self.recipe, Trained) or self.recipe.lora is None:
            return 0
        return memory.trainable_params(self.shape, self.recipe)

    def _layer_flops(self, tokens: float, pairs: float) -> float:
        """Forward pass through all decoder layers, adapters included."""
        text = self.shape.text
        attention = 4 * text.layers * text.queries * pairs
        return 2 * (text.linear_params + self._adapter) * tokens + attention

    def _head_flops(self, tokens: float) -> float:
        return 2 * self.shape.embedding_params * tokens

    def _bound(self, flops: float, efficiency: tuple[float, float, float], times: int) -> float:
        """Seconds of going through all layers so often: the GPU's work, or launching it, whichever is longer."""
        busy = self.computing(flops, efficiency) + self.reading(times * self.weight_bytes())
        return max(busy, self.launching(times * self.shape.text.layers))

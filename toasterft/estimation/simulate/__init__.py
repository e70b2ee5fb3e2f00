"""Replay a run's steps on the `meta` device and count live bytes: its memory without a GPU.

Everything is the real thing (transformers' model code, PEFT's LoRA, bitsandbytes' 4-bit layers and 8-bit
optimizer, our packed attention and chunked loss) except the numbers: on `meta` a tensor has a shape and no data, so a
step of a full-size model takes about a second. `Tracker` sees every tensor that an operator returns and every
storage that dies, and keeps the highest sum. It works on a CPU as well, where a test holds it against
torch.profiler. `toasterft.estimation.memory` is the same in closed form, with the same arguments, and a test holds it
against this.

What CUDA does and `meta` does not is put in by `Cuda`: autocast, the choice of an attention kernel, and dropout with
a mask of bytes.

    counting    live bytes by phase: `Tracker`
    cuda        what CUDA would do with a call: `Cuda`
    meta        the model without numbers, what it is given, how it is run: `build`
    steps       training steps: `peak`
    inference   passes without gradients: `generate_peak`, `encode_peak`

What it does not see, because it never passes through an operator's result:

- the CUDA context (300 to 600 MB), cuBLAS and cuDNN workspaces;
- what the allocator holds beyond what is asked of it: 512-byte rounding, fragmentation;
- scratch memory inside a kernel: flash attention's backward keeps one float32 query gradient, and, with
  grouped heads, key and value gradients of all heads; bitsandbytes' 4-bit matmul may unpack one weight;
- Unsloth's kernels, which keep less than what is counted here;
- the paged part of an optimizer, which can leave the GPU: it is counted as if it stayed.
"""

from __future__ import annotations

from typing import Any

from toasterft.estimation import Plan, passes
from toasterft.estimation.memory import Sequences
from toasterft.estimation.simulate.counting import Tracker
from toasterft.estimation.simulate.cuda import MASK_ALIGNMENT, Cuda
from toasterft.estimation.simulate.inference import encode_peak, generate_peak
from toasterft.estimation.simulate.meta import META, NAME, build, last_hidden, pack
from toasterft.estimation.simulate.steps import peak
from toasterft.models.architectures import Config, architecture
from toasterft.recipe import Policy, Trained

__all__ = [
    "MASK_ALIGNMENT",
    "META",
    "NAME",
    "Cuda",
    "Tracker",
    "build",
    "encode_peak",
    "generate_peak",
    "last_hidden",
    "of_plan",
    "pack",
    "peak",
]


def of_plan(plan: Plan, config: Config) -> dict[str, dict[str, Any]]:
    """Replay the largest moment of every phase of a training plan.

    Args:
        config: the model's config.json.

    Returns:
        Phase → the result of `peak`, `generate_peak` or `encode_peak`: without CUDA's context and the allocator's
        slack.
    """
    shape, recipe, stats = plan.shape, plan.recipe, plan.stats
    assert isinstance(recipe, Trained)
    work = passes.of(shape, stats, recipe)
    longest = work.longest
    cached, images = passes.caches(shape, recipe), longest.prompts * stats.images_per_row
    through_pixels = architecture(shape.model_type).connector_linear is not None and not cached
    found: dict[str, dict[str, Any]] = {}
    if cached and shape.vision.image_px is not None:
        found["encode"] = encode_peak(config, tiles=recipe.encode_batch_size)
    found["train"] = peak(
        config,
        recipe,
        Sequences.of(longest, round(images * stats.feature_tokens), packed=passes.caches(shape, recipe)),
        tower=not cached,
        tiles=round(images * stats.tiles) if through_pixels else 0,
    )
    if work.rollouts is not None and recipe.lora is not None:
        assert isinstance(recipe, Policy)
        found["rollout"] = generate_peak(
            config,
            recipe,
            prompts=work.rollouts.at_once // work.rollouts.group,
            generations=work.rollouts.group,
            prompt_tokens=round(longest.prompt_tokens),
            image_tokens=round(stats.feature_tokens * stats.images_per_row),
            completion_tokens=recipe.max_completion_length,
            top_p=recipe.top_p,
        )
    return found

"""The memory of a run without a GPU: its steps replayed on the `meta` device, live bytes counted.

Everything is the real thing (transformers' model code, PEFT's LoRA, bitsandbytes' 4-bit layers and 8-bit
optimizer, TRL's chunked loss, our tree) except the numbers: on `meta` a tensor has a shape and no data, so a
step of a full-size model takes about a second. `Tracker` sees every tensor that an operator returns and every
storage that dies, and keeps the highest sum. It works on a CPU as well, where a test holds it against
torch.profiler. `toasterft.estimation.memory` says the same in closed form, and a test holds it against this.

What CUDA does and `meta` does not is put in by `Cuda`: autocast, the choice of an attention kernel, and dropout with
a mask of bytes.

    counting    live bytes by phase: `Tracker`
    cuda        what CUDA would do with a call: `Cuda`
    meta        the model without numbers, what it is given, how it is run: `build`
    steps       training steps: `peak`, `policy_peak`
    passes      passes without gradients: `generate_peak`, `encode_peak`

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

from toasterft.estimation import Plan
from toasterft.estimation import passes as work
from toasterft.estimation.simulate.counting import Tracker
from toasterft.estimation.simulate.cuda import MASK_ALIGNMENT, Cuda
from toasterft.estimation.simulate.meta import META, NAME, Config, build, last_hidden, pack
from toasterft.estimation.simulate.passes import encode_peak, generate_peak
from toasterft.estimation.simulate.steps import chunked_loss, peak, policy_peak
from toasterft.recipe import Policy, Trained

__all__ = [
    "MASK_ALIGNMENT",
    "META",
    "NAME",
    "Config",
    "Cuda",
    "Tracker",
    "build",
    "chunked_loss",
    "encode_peak",
    "generate_peak",
    "last_hidden",
    "of_plan",
    "pack",
    "peak",
    "policy_peak",
]


def of_plan(plan: Plan, config: Config) -> dict[str, dict[str, Any]]:
    """Replay the largest moment of every phase of a training plan.

    Args:
        config: the model's config.json.

    Returns:
        Phase → the result of `peak`, `policy_peak`, `generate_peak` or `encode_peak`: without CUDA's context and
        the allocator's slack.
    """
    recipe, stats = plan.recipe, plan.stats
    assert isinstance(recipe, Trained)
    todo = work.of(plan.shape, stats, recipe)
    rank = None if recipe.lora is None else recipe.lora.r
    shared: dict[str, Any] = {"load_in_4bit": recipe.load_in_4bit, "rank": rank}
    longest, images = todo.longest, round(stats.feature_tokens * stats.images_per_row)
    found: dict[str, dict[str, Any]] = {}
    if work.caches(plan.shape, recipe):
        found["encode"] = encode_peak(config, tiles=recipe.encode_batch_size)
    training: dict[str, Any] = {
        **shared,
        "checkpointing": recipe.gradient_checkpointing,
        "optim": recipe.optim,
    }
    if rank is not None and (isinstance(recipe, Policy) or longest.branches > 1):
        found["train"] = policy_peak(
            config,
            groups=longest.prompts,
            branches=longest.branches,
            prompt_tokens=round(longest.prompt_tokens),
            image_tokens=images,
            completion_tokens=round(longest.completion_tokens),
            **training,
        )
    else:
        found["train"] = peak(
            config,
            batch=longest.prompts,
            tokens=round(longest.prompt_tokens + longest.completion_tokens),
            image_tokens=images,
            completion_tokens=round(longest.completion_tokens),
            **training,
        )
    if isinstance(recipe, Policy) and rank is not None:
        found["rollout"] = generate_peak(
            config,
            prompts=max(1, recipe.rollout_batch_size // recipe.num_generations),
            generations=recipe.num_generations,
            prompt_tokens=round(longest.prompt_tokens),
            image_tokens=images,
            completion_tokens=recipe.max_completion_length,
            top_p=recipe.top_p,
            **shared,
        )
    return found

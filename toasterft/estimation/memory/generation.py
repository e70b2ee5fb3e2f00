"""Peak bytes of generation: prefill, decoding with a key-value cache, sampling."""

from __future__ import annotations

import math

from toasterft.models.architectures import ModelShape

# Per score when sampling, beside the logits: them in float32, their probabilities, and those piled up; or what top-p
# sorts, sums up and marks. Measured by simulation, 2026-11-28.
SAMPLING_BYTES, TOP_P_BYTES = 12, 26
# The engine's: prompts with rows alive, as a multiple of those that fill the batch; steps in which their room grows.
PROMPTS_AHEAD, PROMPT_STEP = 2, 64


def of_generation(
    shape: ModelShape,
    *,
    rows: int,
    prompt_tokens: int,
    completion_tokens: int,
    width_bytes: int,
    prompts: int | None = None,
    image_tokens: int = 0,
    top_p: float = 1.0,
    flash: bool = True,
) -> dict[str, int]:
    """Peak of generating `rows` completions side by side, beside whatever stays on the GPU (`resident`).

    Args:
        prompt_tokens, completion_tokens: of one row, the longest.
        width_bytes: 4 for a fully tuned model, whose weights are float32.
        prompts: different prompts whose rows are that many; as many as rows when unset.
        image_tokens: positions of one prompt that hold image features.
    """
    text, width = shape.text, width_bytes
    group = 1 if prompts is None else rows // prompts
    places = min(rows, PROMPTS_AHEAD * math.ceil(rows / group))
    per_position = 2 * text.layers * text.keys * width
    room = math.ceil(prompt_tokens / PROMPT_STEP) * PROMPT_STEP
    held = (places * room + rows * completion_tokens) * per_position
    features = image_tokens * text.hidden * width
    # Reading a prompt: one layer at a time. A LoRA computes in float32 here, its result beside the scaled one.
    h, i, q, k = text.hidden, text.intermediate, text.queries, text.keys
    reading = prompt_tokens * (2 * 4 * i + 2 * width * i + 4 * h + 4 * width * h)
    if not flash and k < q:
        # Unfused: scores, with and without the causal mask, and the mask; queries, keys and values, all in float32.
        pairs = prompt_tokens**2 * (2 * 4 * text.heads + 4)
        reading = max(reading, pairs + prompt_tokens * (16 * q + 8 * k + 4 * width * h))
    # Writing: one layer's scores and their weights, over all prompts or over what the rows wrote.
    scores = text.heads * max(places * group * prompt_tokens, rows * completion_tokens)
    writing = scores * (4 if width == 4 else 4 + width)
    sampling = rows * text.vocab * (width + (TOP_P_BYTES if top_p < 1 else SAMPLING_BYTES))
    # The prompt that is being read is not in its place yet.
    moments = ((held + prompt_tokens * per_position, reading, 0), (held, writing, 0), (held, 0, sampling))
    cache, activations, logits = max(moments, key=sum)
    return {"image_features": features, "kv_cache": cache, "activations": activations, "logits": logits}

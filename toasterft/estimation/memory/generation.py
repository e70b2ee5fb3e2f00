"""Peak bytes of generation: prefill, decoding with a key-value cache, sampling."""

from __future__ import annotations

from toasterft.models.architectures import ModelShape

# Per score when sampling, beside the logits: a copy and the probabilities; or what top-p sorts, sums up and marks.
# Measured by simulation, 2026-11-21.
SAMPLING_BYTES, TOP_P_BYTES = 8, 26


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
    """Peak of generating `rows` completions, beside whatever stays on the GPU (`resident`).

    Args:
        prompt_tokens, completion_tokens: of one row, the longest.
        width_bytes: 4 for a fully tuned model, whose weights are float32.
        prompts: different prompts, each read once; as many as rows when unset. More than one are padded.
        image_tokens: positions of one prompt that hold image features.
    """
    text, width = shape.text, width_bytes
    prompts = rows if prompts is None else prompts
    length = prompt_tokens + completion_tokens
    per_position = 2 * text.layers * text.keys * width
    features = prompts * image_tokens * text.hidden * width
    # Reading: one layer at a time. A LoRA computes in float32 here, its result beside the scaled one.
    h, i = text.hidden, text.intermediate
    reading = prompts * prompt_tokens * (2 * 4 * i + 2 * width * i + 4 * h + 4 * width * h)
    q, k = text.queries, text.keys
    # Writing: a longer copy of one layer's keys; with a mask, its keys and values spread over all heads.
    per_key = width * (2 * q if prompts > 1 and k < q else k)
    if prompts > 1:
        reading += prompts * prompt_tokens**2
    elif not flash and k < q:
        # Unfused: scores, with and without the causal mask, and the mask; queries, keys and values, all in float32.
        pairs = prompt_tokens**2 * (2 * 4 * text.heads + 4)
        reading = max(reading, pairs + prompt_tokens * (16 * q + 8 * k + 4 * width * h))
        per_key = 4 * (3 * q + 2 * k)
    writing = rows * length * per_key
    sampling = rows * text.vocab * (width + (TOP_P_BYTES if top_p < 1 else SAMPLING_BYTES))
    read, written = prompts * prompt_tokens * per_position, rows * length * per_position
    moments = ((read, reading, 0), (written, writing, 0), (written, 0, sampling))
    cache, activations, logits = max(moments, key=sum)
    return {"image_features": features, "kv_cache": cache, "activations": activations, "logits": logits}

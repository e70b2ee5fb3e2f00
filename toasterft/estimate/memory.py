"""Bytes of a run by phase and item: arithmetic on a `ModelShape`, a `Survey` and a recipe.

A phase is a dict of items whose sum is the phase's peak. A training step has several moments that can be its
peak (the loss, the last layer's backward pass, the optimizer's step …): each is summed up tensor by tensor,
and the items are those of the highest. Which tensors are alive in it was read off a replay of the real model on
the `meta` device (`methods/simulate.py`, 2026-11-21, transformers 5.17, PEFT 0.21, bitsandbytes 0.50, TRL 1.14);
`benchmarks/memory_grid.py` holds these sums to that replay. Neither has been held to a CUDA device yet.

In the formulas: h hidden size, i intermediate size, q and k width of all query and of all key heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toasterft.data.survey import Survey
from toasterft.estimate import work
from toasterft.recipe import Trained
from toasterft.shapes import ModelShape, TextShape

# CUDA context and cuBLAS workspaces. Assumed, not measured.
CUDA_CONTEXT_BYTES = 500_000_000
# What the caching allocator holds beyond what is asked of it, as a share of the tensors. Assumed, not measured.
ALLOCATOR_SLACK = 0.10

# Weights per 8-bit scale, and scales per float32 scale of scales. Derived: bitsandbytes, double quantisation.
NF4_BLOCK, NF4_SCALE_BLOCK = 64, 256
# Per matrix: 16 levels, 256 levels of the scales, and their offset, in float32. Derived: its QuantState.
NF4_TABLES_BYTES = 4 * (16 + 256 + 1)
# Per weight of a large matrix.
NF4_BYTES = 0.5 + 1 / NF4_BLOCK + 4 / (NF4_BLOCK * NF4_SCALE_BLOCK)

# Entries of an 8-bit optimizer state per float32 scale; the levels of both states, once per optimizer; tensors with
# fewer entries keep float32 states; those with as many can move to host memory where the optimizer is paged (a small
# model's LoRA has none). Derived: bitsandbytes.optim.
STATE_BLOCK = 256
STATE_TABLES_BYTES = 2 * 4 * 256
MIN_8BIT_ENTRIES = 4096
MIN_PAGED_ENTRIES = 100_000

# Positions whose logits TRL's chunked loss, and ours, hold at a time. Derived: their source.
LOGIT_CHUNK_TOKENS = 256
# Per logit of a chunk, in float32: itself, its log-probability, its probability, and the product of the two for the
# entropy. Measured by simulation, 2026-11-21.
LOGIT_BYTES = 16
# Up to this `methods/logps.py` keeps all log-probabilities instead of computing them twice.
KEPT_LOGITS_BYTES = 64_000_000
# Per score when sampling, beside the logits: a copy and the probabilities; or what top-p sorts, sums up and marks.
# Measured by simulation, 2026-11-21.
SAMPLING_BYTES, TOP_P_BYTES = 8, 26

# Positions to which rows of an attention bias, and of the efficient kernel's log-sums, are rounded up. Derived:
# torch's attention.cpp, and that kernel's result on `meta`.
BIAS_ALIGNMENT, LOGSUM_ALIGNMENT = 16, 32

# Bytes of a tokenizer's files per entry of its vocabulary. Measured on SmolVLM's (4.8 MB for 49,280), 2026-11-21.
TOKENIZER_BYTES = 98


@dataclass(frozen=True)
class Sequences:
    """What one training pass feeds to the language model.

    Attributes:
        rows: sequences. More than one are taken to be padded, and then attention needs a mask.
        tokens: positions of a row; of its prompt where branches follow.
        head_tokens: positions that the loss is taken on, all rows together.
        image_tokens: positions that hold image features, all rows together.
        branches, branch_tokens: completions packed behind each prompt, and positions of one.
    """

    rows: int
    tokens: int
    head_tokens: int
    image_tokens: int = 0
    branches: int = 0
    branch_tokens: int = 0

    @property
    def positions(self) -> int:
        return self.rows * (self.tokens + self.branches * self.branch_tokens)


# --- phases -------------------------------------------------------------------------------------------


def of_training(
    shape: ModelShape, survey: Survey, recipe: Trained, width_bytes: int, *, flash: bool = True
) -> dict[str, int]:
    """Peak of the training phase, every row as long as the longest.

    Args:
        width_bytes: of the dtype that is computed in: 2, or 4 for float32.
        flash: the GPU has flash attention (compute capability 8.0 and above).
    """
    rows = recipe.per_device_train_batch_size
    images = rows * survey.images_per_row
    sequences = Sequences(
        rows=rows,
        tokens=min(survey.longest_tokens, recipe.max_length),
        head_tokens=round(rows * survey.completion_tokens),
        image_tokens=round(images * survey.feature_tokens),
    )
    if not work.caches(shape, recipe):
        patches = round(images * survey.tower_patches)
        return of_step(shape, recipe, sequences, width_bytes, tower=True, patches=patches, flash=flash)
    features = survey.images * survey.feature_tokens * shape.text.hidden * width_bytes
    # Without room for all features the tower has to stay, to encode some images in every pass.
    tower = work.cached_share(shape, recipe, features) < 1
    return of_step(shape, recipe, sequences, width_bytes, tower=tower, flash=flash)


def of_policy_update(
    shape: ModelShape,
    recipe: Trained,
    *,
    groups: int,
    branches: int,
    prompt_tokens: int,
    completion_tokens: int,
    width_bytes: int,
    image_tokens: int = 0,
    flash: bool = True,
) -> dict[str, int]:
    """Peak of an update on packed trees: each of `groups` prompts once, then its `branches` completions.

    Args:
        image_tokens: positions of one prompt that hold image features.
    """
    sequences = Sequences(
        rows=groups,
        tokens=prompt_tokens,
        head_tokens=groups * branches * completion_tokens,
        image_tokens=groups * image_tokens,
        branches=branches,
        branch_tokens=completion_tokens,
    )
    return of_step(shape, recipe, sequences, width_bytes, tower=False, flash=flash)


def of_encoding(shape: ModelShape, recipe: Trained, width_bytes: int) -> dict[str, int]:
    """Peak of the vision tower on `encode_batch_size` tiles, the whole model on the GPU."""
    width = 4 if recipe.lora is None else width_bytes
    side = shape.vision.image_px or 512
    per_tile = (side // shape.vision.patch_px) ** 2
    held = resident(shape, recipe, width_bytes, tower=True)
    patches = recipe.encode_batch_size * per_tile
    return {
        "weights": held["weights"],
        "adapter": held["adapter"],
        "pixels": _pixel_bytes(shape, patches),
        "activations": _tower_pass(shape, patches, width, norm_bytes=width),
    }


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
) -> dict[str, int]:
    """Peak of writing `rows` completions, beside whatever stays on the GPU (`resident`).

    Args:
        prompt_tokens, completion_tokens: of one row, the longest.
        width_bytes: 4 for a fully tuned model, whose weights are float32.
        prompts: different prompts, each read once; as many as rows when unset. More than one are padded.
        image_tokens: positions of one prompt that hold image features.
    """
    text, width = shape.text, width_bytes
    prompts = rows if prompts is None else prompts
    length = prompt_tokens + completion_tokens
    per_position = 2 * text.layers * _keys(text) * width
    features = prompts * image_tokens * text.hidden * width
    # Reading: one layer at a time. A LoRA computes in float32 here, its result beside the scaled one.
    h, i = text.hidden, text.intermediate
    reading = prompts * prompt_tokens * (2 * 4 * i + 2 * width * i + 4 * h + 4 * width * h)
    if prompts > 1:
        reading += prompts * prompt_tokens**2
    # Writing: with a mask, keys and values of one layer are spread over all heads.
    spread = prompts > 1 and text.kv_heads < text.heads
    writing = rows * length * (2 * _queries(text) if spread else _keys(text)) * width
    sampling = rows * text.vocab * (width + (TOP_P_BYTES if top_p < 1 else SAMPLING_BYTES))
    moments: tuple[dict[str, int], ...] = (
        {"kv_cache": prompts * prompt_tokens * per_position, "activations": reading, "logits": 0},
        {"kv_cache": rows * length * per_position, "activations": writing, "logits": 0},
        {"kv_cache": rows * length * per_position, "activations": 0, "logits": sampling},
    )
    return {"image_features": features, **max(moments, key=lambda items: sum(items.values()))}


# --- what stays ---------------------------------------------------------------------------------------


def resident(shape: ModelShape, recipe: Trained, width_bytes: int, *, tower: bool) -> dict[str, int]:
    """What is on the GPU for as long as a training runs: weights, adapter, gradients, optimizer states.

    Args:
        tower: with the vision tower, which leaves once every image is encoded.
    """
    text, full = shape.text, recipe.lora is None
    vision = shape.vision_params if tower else 0
    linears = shape.linear_params_text
    rest = shape.total_params - linears - shape.vision_params
    learned_vision = vision if recipe.train_vision else 0
    frozen_vision = vision - learned_vision
    if full:
        # Full tuning keeps float32 weights, frozen ones too; autocast does the rest.
        weights = 4 * (linears + rest + frozen_vision)
    elif recipe.load_in_4bit:
        packed = sum(_nf4_bytes(inputs * outputs) for inputs, outputs in text.layer_linears)
        weights = text.layers * packed + (rest + frozen_vision) * width_bytes
    else:
        weights = (linears + rest + frozen_vision) * width_bytes
    trainable = trainable_params(shape, recipe)
    adapter = 0 if full else 4 * trainable
    if full:
        weights += 4 * learned_vision
    states, paged = _optimizer_bytes(shape, recipe)
    return {
        "weights": weights,
        "adapter": adapter,
        "gradients": 4 * trainable,
        "optimizer": states - paged,
        "optimizer_paged": paged,
    }


def trainable_params(shape: ModelShape, recipe: Trained) -> int:
    """Parameters that learn."""
    return sum(count * entries for count, entries, _ in _learned(shape, recipe))


def checkpoint_bytes(shape: ModelShape, recipe: Trained) -> int:
    """Disk for all checkpoints of a run at once, one more than are kept while one is written."""
    saved = trainable_params(shape, recipe) if recipe.lora is not None else shape.total_params
    states, _ = _optimizer_bytes(shape, recipe)
    return (recipe.save_total_limit + 1) * (4 * saved + states + TOKENIZER_BYTES * shape.text.vocab)


def _learned(shape: ModelShape, recipe: Trained) -> Iterator[tuple[int, int, bool]]:
    """(tensors alike, entries of one, is it an embedding) of everything that learns."""
    text, lora = shape.text, recipe.lora
    if lora is not None:
        for inputs, outputs in _adapted(text, recipe):
            yield text.layers, lora.r * inputs, False
            yield text.layers, lora.r * outputs, False
        if recipe.train_connector:
            # Behind cached features a square factor; through pixels about as large.
            yield 2, lora.r * text.hidden, False
    else:
        for inputs, outputs in text.layer_linears:
            yield text.layers, inputs * outputs, False
        vectors = text.layer_params - text.linear_params
        yield vectors // text.hidden, text.hidden, False
        yield 1, shape.embedding_params, True
        if shape.lm_head_params:
            yield 1, shape.lm_head_params, False
        if recipe.train_connector:
            yield 1, shape.connector_params, False
    if recipe.train_vision:
        yield shape.vision.layers, shape.vision_params // shape.vision.layers, False


def _adapted(text: TextShape, recipe: Trained) -> tuple[tuple[int, int], ...]:
    """(in, out) features of the linears of a layer that get a LoRA."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    wanted = (
        names
        if recipe.lora is None or recipe.lora.target_modules == "all-linear"
        else recipe.lora.target_modules
    )
    return tuple(pair for name, pair in zip(names, text.layer_linears) if name in wanted)


def _optimizer_bytes(shape: ModelShape, recipe: Trained) -> tuple[int, int]:
    """Bytes of both Adam states, and how many of them can move to host memory."""
    if recipe.optim == "adamw_torch":
        return 8 * trainable_params(shape, recipe), 0
    total, paged = STATE_TABLES_BYTES, 0
    for count, entries, embedding in _learned(shape, recipe):
        # transformers keeps 32-bit states for embeddings.
        small = embedding or entries < MIN_8BIT_ENTRIES
        state, scales = (8 * entries, 0) if small else (2 * entries, 2 * 4 * -(-entries // STATE_BLOCK))
        total += count * (state + scales)
        if recipe.optim == "paged_adamw_8bit" and entries >= MIN_PAGED_ENTRIES:
            paged += count * state
    return total, paged


def _nf4_bytes(entries: int) -> int:
    """One matrix in NF4 with double quantisation (QLoRA, section 3)."""
    scales = -(-entries // NF4_BLOCK)
    return -(-entries // 2) + scales + 4 * -(-scales // NF4_SCALE_BLOCK) + NF4_TABLES_BYTES


# --- a training step ----------------------------------------------------------------------------------


def of_step(
    shape: ModelShape,
    recipe: Trained,
    sequences: Sequences,
    width_bytes: int,
    *,
    tower: bool,
    patches: int = 0,
    flash: bool = True,
) -> dict[str, int]:
    """Peak of one micro-step in the middle of a run: gradients of the ones before are there.

    Args:
        tower: the vision tower is on the GPU.
        patches: that it runs on in this step; 0 where features come from the cache.
    """
    text, width, full = shape.text, width_bytes, recipe.lora is None
    h, n = text.hidden, sequences.positions
    mixed, stream = width < 4, 4 if full else width
    held = resident(shape, recipe, width, tower=tower)
    given = {"pixels": _pixel_bytes(shape, patches)} if patches else {}
    given["image_features"] = sequences.image_tokens * h * width

    layer = _layer(text, recipe, sequences, width, flash=flash)
    seen = _tower_kept(shape, recipe, patches, width)
    kept = text.layers * (stream * h * n if recipe.gradient_checkpointing else layer)
    # Token ids and labels; rotary tables; the mask where rows are padded.
    batch = 16 * n + 4 * stream * text.head_dim * sequences.tokens + _mask_entries(sequences)
    # Copies of trained float32 weights that autocast makes, held to the end of the forward pass.
    seeing = shape.vision_params if recipe.train_vision else 0
    learned = text.linear_params + seeing if full else trainable_params(shape, recipe)
    lowered = width * learned if mixed else 0
    copies = 0 if recipe.gradient_checkpointing else lowered
    # Around the loss: input and output of the last norm, and the positions that predict something.
    predicting = sequences.head_tokens if sequences.branches else n
    ends = (12 * h if full else 4 * h + width * h) * n + stream * h * predicting
    logits = _logit_bytes(text, sequences)

    # A layer that is computed again shares its float32 input with what is kept.
    again = layer - (4 * h * n if stream == 4 else 0) if recipe.gradient_checkpointing else 0
    # The head's gradient waits for the embedding's where they share their weights.
    head = shape.embedding_params if full else 0
    waiting = 4 * head if text.tied_embeddings else 0
    moments = [
        (seen + kept + batch + lowered + ends, logits),
        # The last layer, and its gradients on their way through the MLP.
        (seen + kept + batch + copies + again + _layer_gradients(text, recipe, n, width) + waiting, 0),
    ]
    if full:
        several = sequences.head_tokens > LOGIT_CHUNK_TOKENS
        # Gradients of the head: that of a chunk; the sum of two; and with the embedding's, at the very end.
        chunk = head * ((width if mixed else 0) + (4 if several else 0))
        moments.append((seen + kept + batch + copies + ends + chunk, logits))
        moments.append((seen + kept + batch + copies + ends + 12 * head if several else 12 * head, 0))
    if not flash and _grouped(text) and sequences.rows == 1 and not sequences.branches:
        # Gradients of unfused attention: three float32 tensors of a number per head and pair of positions.
        pairs = 3 * 4 * text.heads * sequences.tokens**2 + n * (16 * _queries(text) + 6 * h)
        moments.append((kept + batch + pairs - (0 if recipe.gradient_checkpointing else layer), 0))
    if patches:
        moments.append(
            (seen + (width * seeing if mixed else 0) + _tower_pass(shape, patches, width, norm_bytes=4), 0)
        )
        if recipe.train_vision:
            moments.append((seen + _tower_layer(shape, patches, width), 0))
    if recipe.optim == "adamw_torch":
        # torch's AdamW takes square roots of all second moments at once.
        moments.append((4 * trainable_params(shape, recipe), 0))
    activations, logits = max(moments, key=sum)
    return {**held, **given, "activations": activations, "logits": logits}


def _layer(text: TextShape, recipe: Trained, sequences: Sequences, width: int, *, flash: bool) -> int:
    """What one decoder layer keeps for its backward pass."""
    h, i, q, n = text.hidden, text.intermediate, _queries(text), sequences.positions
    mixed = width < 4
    # Both norms keep their float32 input and the inverse root.
    per_token = 2 * (4 * h + 4)
    if recipe.lora is None:
        # Their own weights learn, so the normalised values stay too; and every linear lowers its input for itself.
        per_token += 2 * 4 * h + (width * 5 * h if mixed else 2 * 4 * h) + width * 4 * i
    else:
        inputs = 5 * h + q + i
        dropout = recipe.lora.lora_dropout > 0
        if dropout or (mixed and not recipe.load_in_4bit):
            # Every adapter has an input of its own: dropped out, or cast to float32 and back.
            per_token += inputs * (width + (1 if dropout else 0))
        else:
            per_token += width * (2 * h + i)
        # gate, its activation, up; and the low-rank vectors.
        per_token += width * 3 * i + width * recipe.lora.r * len(_adapted(text, recipe))
    return n * per_token + _attention(text, sequences, width, flash=flash)


def _attention(text: TextShape, sequences: Sequences, width: int, *, flash: bool) -> int:
    """What attention keeps: query, key, value, output, log-sums, and a bias made of the mask."""
    q, rows, tokens, n = _queries(text), sequences.rows, sequences.tokens, sequences.positions
    padded = rows > 1
    if sequences.branches:
        return _tree_attention(text, sequences, width)
    if not padded and not flash and _grouped(text):
        # Unfused: query, key and value of all heads in float32, and a float32 number per head and pair.
        return n * (12 * q + width * q) + 4 * text.heads * rows * tokens**2
    if not padded:
        return n * (width * (2 * q + 2 * _keys(text)) + 4 * text.heads)
    # The kernel that takes a mask knows no grouped heads, and a bool mask is turned into a bias in every layer.
    bias = width * rows * tokens * _up(tokens, BIAS_ALIGNMENT)
    return n * width * 4 * q + bias + 4 * text.heads * rows * _up(tokens, LOGSUM_ALIGNMENT)


def _tree_attention(text: TextShape, sequences: Sequences, width: int) -> int:
    """The same for trees (`engines/tree.py`): the prompts' attention, then that of all branches."""
    q, rows, prompt = _queries(text), sequences.rows, sequences.tokens
    branches, own = rows * sequences.branches, sequences.branch_tokens
    # Query, key, value of all heads and the joined output; then each part's own output.
    total = width * q * (4 * sequences.positions + rows * prompt + branches * own)
    # Every branch has the prompt's keys and values before its own.
    total += 2 * width * q * branches * (prompt + own) + width * branches * own * _up(
        prompt + own, BIAS_ALIGNMENT
    )
    total += 4 * text.heads * (rows * prompt + branches * _up(own, LOGSUM_ALIGNMENT))
    if rows > 1:
        total += width * q * branches * own + width * rows * prompt * _up(prompt, BIAS_ALIGNMENT)
    return total


def _layer_gradients(text: TextShape, recipe: Trained, n: int, width: int) -> int:
    """Beyond what a layer keeps: gradients around its MLP's product, and the one that comes in."""
    h, i = text.hidden, text.intermediate
    if recipe.lora is None:
        one_layer = text.linear_params // text.layers
        return n * (2 * width * i + 4 * h) + (width * one_layer if width < 4 else 0)
    if recipe.load_in_4bit or width == 4:
        return n * width * (2 * i + h)
    # The forward pass through the MLP: its product and that in float32 for the adapter, what the adapters lowered
    # copies of, and the plain result.
    return n * (width * i + 4 * i + 5 * width * h)


def _logit_bytes(text: TextShape, sequences: Sequences) -> int:
    chunk = min(LOGIT_CHUNK_TOKENS, sequences.head_tokens if sequences.branches else sequences.positions)
    if sequences.branches and 4 * sequences.head_tokens * text.vocab <= KEPT_LOGITS_BYTES:
        return text.vocab * (LOGIT_BYTES * chunk + 4 * (sequences.head_tokens - chunk))
    return LOGIT_BYTES * chunk * text.vocab


def _mask_entries(sequences: Sequences) -> int:
    """Entries of the bool masks that are there throughout."""
    rows, tokens, own = sequences.rows, sequences.tokens, sequences.branch_tokens
    return rows * sequences.branches * own * (tokens + own) + (rows * tokens**2 if rows > 1 else 0)


def _queries(text: TextShape) -> int:
    return text.heads * text.head_dim


def _keys(text: TextShape) -> int:
    return text.kv_heads * text.head_dim


def _grouped(text: TextShape) -> bool:
    return text.kv_heads < text.heads


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


# --- the vision tower ---------------------------------------------------------------------------------


def _pixel_bytes(shape: ModelShape, patches: int) -> int:
    """float32 pixels as the processor gives them; Qwen2.5-VL's hold every picture twice, as a film."""
    frames = 2 if shape.model_type == "qwen2_5_vl" else 1
    return 4 * 3 * frames * patches * shape.vision.patch_px**2


def _tower_pass(shape: ModelShape, patches: int, width: int, *, norm_bytes: int) -> int:
    """Alive in a frozen tower's MLP; nothing of a layer is kept for later.

    Args:
        norm_bytes: of a normalised value: 4 under autocast.
    """
    vision = shape.vision
    h, i = vision.hidden, vision.intermediate
    # The residual before and after attention, and the normalised input.
    per_patch = 3 * width * h + norm_bytes * h
    # The MLP's hidden values before and after their activation; a gated one has them twice.
    per_patch += (4 if vision.gated_mlp else 2) * width * i
    if shape.model_type == "internvl":
        per_patch += width * h  # a scaled copy
    if shape.model_type == "llava_onevision":
        per_patch += (vision.layers - 2) * width * h  # it asks for the output of every layer
    # Pixels in the dtype of the weights; Idefics3 makes a mask of them.
    entries = patches * vision.patch_px**2
    return (
        patches * per_patch
        + 3 * entries * width
        + (entries if shape.model_type in work.TAKES_FEATURES else 0)
    )


def _tower_kept(shape: ModelShape, recipe: Trained, patches: int, width: int) -> int:
    """What a tower that learns keeps for its backward pass: float32 residuals, and the rest as autocast has it."""
    if not (recipe.train_vision and patches):
        return 0
    vision = shape.vision
    h = vision.hidden
    pixels = 3 * patches * vision.patch_px**2 * width
    if recipe.gradient_checkpointing:
        return patches * 4 * h * (vision.layers + 1) + pixels
    return (
        patches * (4 * h + vision.layers * _tower_layer_kept(shape, width)) + pixels + width * vision.params
    )


def _tower_layer_kept(shape: ModelShape, width: int) -> int:
    """Per patch: residuals, statistics, four lowered inputs, query, key, value, output, and the MLP's values."""
    vision = shape.vision
    mlp = (4 if vision.gated_mlp else 2) * width * vision.intermediate
    return 2 * 4 * vision.hidden + 16 + 8 * width * vision.hidden + 4 * vision.heads + mlp


def _tower_layer(shape: ModelShape, patches: int, width: int) -> int:
    """A layer of a learning tower in its backward pass, beyond what is kept."""
    vision = shape.vision
    return patches * (9 * width * vision.hidden + 4 * vision.hidden + 3 * width * vision.intermediate)

"""Bytes of a run by phase and item: arithmetic on a `ModelShape`, a `Survey` and a recipe.

A phase is a dict of items whose sum is the phase's peak. A training step has several moments that can be its
peak (the loss, the last layer's backward pass, the optimizer's step …): each is summed up tensor by tensor,
and the items are those of the highest. Which tensors are alive in it was read off a replay of the real model on
the `meta` device (`methods/simulate.py`, 2026-11-21, transformers 5.17, PEFT 0.21, bitsandbytes 0.50, TRL 1.14);
`benchmarks/memory_grid.py` holds these sums to that replay: 324 configurations, 0.3 % apart at worst. Neither has
been held to a CUDA device yet.

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
# Python, torch, transformers and what a first step brings in: resident memory of a process whose model is negligible.
# Measured: toast-tiny's sft and grpo on Linux, torch 2.13, 0.59 to 0.64 GB, 2026-11-21.
PROCESS_BYTES = 600_000_000
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
    flash: bool = True,
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
    q, k = _queries(text), _keys(text)
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


# --- what stays ---------------------------------------------------------------------------------------


def resident(shape: ModelShape, recipe: Trained, width_bytes: int, *, tower: bool) -> dict[str, int]:
    """What is on the GPU for as long as a training runs.

    Args:
        tower: with the vision tower, which leaves once every image is encoded.

    Returns:
        `weights` (those that do not learn, or all in full tuning), `adapter` (those that do), `gradients`,
        `optimizer`, and `optimizer_paged`: states that can move to host memory when the GPU is full.
    """
    linears = shape.linear_params_text
    rest = shape.total_params - linears - (0 if tower else shape.vision_params)
    trainable = trainable_params(shape, recipe)
    if recipe.lora is None:
        # Full tuning keeps float32 weights, frozen ones too; autocast does the rest.
        weights, adapter = 4 * (linears + rest), 0
    else:
        if recipe.train_vision:
            rest -= shape.vision_params
        if recipe.train_connector and work.caches(shape, recipe):
            rest += shape.text.hidden**2  # the zero matrix that the factor stands on
        packed = sum(_nf4_bytes(inputs * outputs) for inputs, outputs in shape.text.layer_linears)
        held = shape.text.layers * packed if recipe.load_in_4bit else linears * width_bytes
        weights, adapter = held + rest * width_bytes, 4 * trainable
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
    """Peak of one micro-step in the middle of a run: gradients of those before are there.

    Args:
        tower: the vision tower is on the GPU.
        patches: that it runs on in this step; 0 where features come from the cache.
    """
    step = _Step(shape, recipe, sequences, width_bytes, patches, flash)
    activations, logits = max(step.moments(), key=sum)
    given = {"pixels": _pixel_bytes(shape, patches)} if patches else {}
    return {
        **resident(shape, recipe, width_bytes, tower=tower),
        **given,
        "image_features": sequences.image_tokens * shape.text.hidden * width_bytes,
        "activations": activations,
        "logits": logits,
    }


@dataclass(frozen=True)
class _Step:
    """What is alive beside weights, states and batch at each moment of a step that can be its peak."""

    shape: ModelShape
    recipe: Trained
    sequences: Sequences
    width: int
    patches: int
    flash: bool

    @property
    def text(self) -> TextShape:
        return self.shape.text

    @property
    def full(self) -> bool:
        """The language model itself learns."""
        return self.recipe.lora is None

    @property
    def mixed(self) -> bool:
        """Autocast computes in 16 bit what is stored in 32."""
        return self.width < 4

    @property
    def checkpoints(self) -> bool:
        return self.recipe.gradient_checkpointing

    @property
    def stream(self) -> int:
        """Bytes of a number between layers: float32 embeddings make a float32 stream."""
        return 4 if self.full else self.width

    def moments(self) -> Iterator[tuple[int, int]]:
        """(activations, logits) in bytes, one pair per moment."""
        h, n = self.text.hidden, self.sequences.positions
        tower = self.tower_kept()
        kept = (
            tower
            + self.batch()
            + self.text.layers * (self.stream * h * n if self.checkpoints else self.layer())
        )
        logits = self.logits()
        # Copies of trained float32 weights that autocast makes: until the forward pass ends, or until they are used.
        lowered = self.lowered()
        copies = 0 if self.checkpoints else lowered
        # Around the loss: input and output of the last norm, and the positions that predict something.
        predicting = self.sequences.head_tokens if self.sequences.branches else n
        ends = n * (12 * h if self.full else 4 * h + self.width * h) + self.stream * h * predicting
        yield kept + lowered + ends, logits
        # The last layer's backward pass. The head's gradient waits for the embedding's where they are one.
        head = self.shape.embedding_params if self.full else 0
        waiting = 4 * head if self.text.tied_embeddings else 0
        yield kept + copies + waiting + self.layer_backward(), 0
        if self.full:
            # Gradients of the head: of one chunk; of two and their sum; with the embedding's, at the very end.
            several = self.sequences.head_tokens > LOGIT_CHUNK_TOKENS
            first = head * ((self.width if self.mixed else 0) + (4 if several else 0))
            yield kept + copies + ends + first, logits
            yield (kept + copies + ends if several else 0) + 12 * head, 0
        if self.unfused():
            yield kept + copies + self.unfused_backward(), 0
        if self.patches:
            seeing = self.width * self.shape.vision_params if self.mixed and self.recipe.train_vision else 0
            yield tower + seeing + _tower_pass(self.shape, self.patches, self.width, norm_bytes=4), 0
            yield tower + self.tower_backward(), 0
        if self.recipe.optim == "adamw_torch":
            # torch's AdamW takes the roots of all second moments at once.
            yield 4 * trainable_params(self.shape, self.recipe), 0

    def batch(self) -> int:
        """Token ids, labels and their order; rotary tables; bool masks."""
        rows, tokens, own = self.sequences.rows, self.sequences.tokens, self.sequences.branch_tokens
        masks = rows * self.sequences.branches * own * (tokens + own) + (rows * tokens**2 if rows > 1 else 0)
        return 16 * self.sequences.positions + 4 * self.stream * self.text.head_dim * tokens + masks

    def lowered(self) -> int:
        vision = self.shape.vision_params if self.full and self.recipe.train_vision else 0
        learned = self.text.linear_params + vision if self.full else trainable_params(self.shape, self.recipe)
        return self.width * learned if self.mixed else 0

    def logits(self) -> int:
        chosen = self.sequences.head_tokens
        chunk = min(LOGIT_CHUNK_TOKENS, chosen if self.sequences.branches else self.sequences.positions)
        # Our own loss keeps the log-probabilities of all chunks where they are small.
        small = self.sequences.branches and 4 * chosen * self.text.vocab <= KEPT_LOGITS_BYTES
        return self.text.vocab * (LOGIT_BYTES * chunk + (4 * (chosen - chunk) if small else 0))

    def layer(self) -> int:
        """What one decoder layer keeps for its backward pass."""
        h, i, w = self.text.hidden, self.text.intermediate, self.width
        # Both norms keep their float32 input and its inverse root; the MLP gate, activation and up.
        per_token = 2 * (4 * h + 4) + 3 * w * i
        if self.recipe.lora is None:
            # The norms' own weights learn, so normalised values stay; and every linear lowers its input for itself.
            per_token += 2 * 4 * h + (w * 5 * h if self.mixed else 2 * 4 * h) + w * i
        else:
            dropout = self.recipe.lora.lora_dropout > 0
            if dropout or (self.mixed and not self.recipe.load_in_4bit):
                # Every adapter has an input of its own: dropped out (and a mask), or cast to float32 and back.
                per_token += (5 * h + _queries(self.text) + i) * (w + dropout)
            else:
                per_token += w * (2 * h + i)
            per_token += w * self.recipe.lora.r * len(_adapted(self.text, self.recipe))
        return self.sequences.positions * per_token + self.attention()

    def layer_backward(self) -> int:
        """The layer itself where it is computed again, and gradients around its MLP's product."""
        h, i, w, n = self.text.hidden, self.text.intermediate, self.width, self.sequences.positions
        again = self.layer() if self.checkpoints else 0
        if self.checkpoints and self.stream == 4:
            again -= 4 * h * n  # it shares its float32 input with what is kept
        if self.full:
            own = self.text.linear_params // self.text.layers
            return again + n * (2 * w * i + 4 * h) + (w * own if self.mixed else 0)
        if self.recipe.load_in_4bit or not self.mixed:
            return again + n * w * (2 * i + h)
        # The forward pass is higher: the product, its float32 copy for the adapter and that with dropout, what the
        # other adapters made copies of, and the plain result.
        copies = 8 if self.recipe.lora is not None and self.recipe.lora.lora_dropout > 0 else 4
        return again + n * (w * i + copies * i + 5 * w * h)

    def attention(self) -> int:
        """Query, key, value, output and log-sums; and where a mask is needed, a bias made of it in every layer."""
        q, rows, tokens, w = _queries(self.text), self.sequences.rows, self.sequences.tokens, self.width
        heads, n = self.text.heads, self.sequences.positions
        if self.sequences.branches:
            return self.tree_attention()
        if self.unfused():
            # Query, key, value of all heads in float32, and a float32 number per head and pair of positions.
            return n * (12 * q + w * q) + 4 * heads * tokens**2
        if rows == 1:
            return n * (w * (2 * q + 2 * _keys(self.text)) + 4 * heads)
        # The kernel that takes a mask wants keys and values of all heads.
        bias = w * rows * tokens * _up(tokens, BIAS_ALIGNMENT)
        return n * w * 4 * q + bias + 4 * heads * rows * _up(tokens, LOGSUM_ALIGNMENT)

    def tree_attention(self) -> int:
        """The same for packed trees (`engines/tree.py`): the prompts' attention, then that of all branches."""
        q, rows, prompt, w = _queries(self.text), self.sequences.rows, self.sequences.tokens, self.width
        branches, own = rows * self.sequences.branches, self.sequences.branch_tokens
        # Query, key, value of all heads and the joined output; then each part's own output and log-sums.
        total = w * q * (4 * self.sequences.positions + rows * prompt + branches * own)
        total += 4 * self.text.heads * (rows * prompt + branches * _up(own, LOGSUM_ALIGNMENT))
        # Every branch has the prompt's keys and values before its own, and a bias.
        total += branches * w * (2 * q * (prompt + own) + own * _up(prompt + own, BIAS_ALIGNMENT))
        if rows > 1:
            total += w * (q * branches * own + rows * prompt * _up(prompt, BIAS_ALIGNMENT))
        return total

    def unfused(self) -> bool:
        """Without flash attention, torch has no kernel for grouped heads and no mask."""
        plain = self.sequences.rows == 1 and not self.sequences.branches
        return plain and not self.flash and self.text.kv_heads < self.text.heads

    def unfused_backward(self) -> int:
        """Probabilities and two gradients of them, in float32."""
        q, tokens = _queries(self.text), self.sequences.tokens
        total = 12 * self.text.heads * tokens**2 + tokens * (16 * q + 6 * self.text.hidden)
        return total - (0 if self.checkpoints else self.layer())

    def tower_kept(self) -> int:
        """What a tower that learns keeps: float32 residuals, and what autocast makes in between."""
        vision = self.shape.vision
        if not (self.recipe.train_vision and self.patches):
            return 0
        h, w, mlp = vision.hidden, self.width, _tower_mlp(self.shape, self.width)
        pixels = 3 * vision.patch_px**2 * w
        # Two residuals, statistics of two norms, four lowered inputs, query, key, value and output, and the MLP.
        layer = 0 if self.checkpoints else 4 * h + 16 + 8 * w * h + 4 * vision.heads + mlp
        return self.patches * (pixels + 4 * h + vision.layers * (4 * h + layer))

    def tower_backward(self) -> int:
        """A layer of a tower that learns, beyond what is kept."""
        vision, w = self.shape.vision, self.width
        if not (self.recipe.train_vision and self.checkpoints):
            return 0
        mlp = _tower_mlp(self.shape, w) + w * vision.intermediate
        return self.patches * (9 * w * vision.hidden + 4 * vision.hidden + mlp)


def _queries(text: TextShape) -> int:
    return text.heads * text.head_dim


def _keys(text: TextShape) -> int:
    return text.kv_heads * text.head_dim


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


# --- the vision tower ---------------------------------------------------------------------------------


def _pixel_bytes(shape: ModelShape, patches: int) -> int:
    """float32 pixels as the processor gives them; Qwen2.5-VL's hold every picture twice, as a film."""
    frames = 2 if shape.model_type == "qwen2_5_vl" else 1
    return 4 * 3 * frames * patches * shape.vision.patch_px**2


def _tower_pass(shape: ModelShape, patches: int, width: int, *, norm_bytes: int) -> int:
    """Alive in the MLP of one of a tower's layers; a frozen one keeps nothing for later.

    Args:
        norm_bytes: of a normalised value: 4 under autocast.
    """
    vision = shape.vision
    # The residual before and after attention, their sum so far, and the normalised input.
    vectors = 3 * width + norm_bytes
    if shape.model_type == "internvl":
        vectors += width  # a scaled copy
    if shape.model_type == "llava_onevision":
        vectors += width * (vision.layers - 2)  # it asks for the output of every layer
    # Pixels in the dtype of the weights; Idefics3 makes a mask of them.
    pixels = 3 * width + (1 if shape.model_type in work.TAKES_FEATURES else 0)
    return patches * (vectors * vision.hidden + _tower_mlp(shape, width) + pixels * vision.patch_px**2)


def _tower_mlp(shape: ModelShape, width: int) -> int:
    """Per patch: hidden values of the MLP before and after their activation; a gated one has them twice."""
    return (4 if shape.vision.gated_mlp else 2) * width * shape.vision.intermediate

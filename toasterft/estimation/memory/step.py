"""Peak bytes of a training step: each moment that can be the peak, summed up tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toasterft.estimation.memory.resident import adapted_linears, resident, trainable_params
from toasterft.estimation.memory.vision import mlp_bytes, pixel_bytes, tower_pass
from toasterft.estimation.passes import Pass
from toasterft.models.architectures import ModelShape, TextShape
from toasterft.recipe import Trained

# Positions whose logits are held at a time. Derived: `engine/logprobs.py`.
LOGIT_CHUNK_TOKENS = 128
# Per logit of a chunk, in float32: itself, its log-probability, its probability, and the product of the two for the
# entropy. Measured by simulation, 2026-11-21.
LOGIT_BYTES = 16
# Up to this `engine/logprobs.py` keeps all log-probabilities instead of computing them twice.
KEPT_LOGITS_BYTES = 64_000_000

# Positions to which rows of an attention bias, and of the efficient kernel's log-sums, are rounded up. Derived:
# torch's attention.cpp, and that kernel's result on `meta`.
BIAS_ALIGNMENT, LOGSUM_ALIGNMENT = 16, 32


@dataclass(frozen=True)
class Sequences:
    """The input of the language model in one training pass.

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

    @classmethod
    def of(cls, one: Pass, image_tokens: int, *, packed: bool) -> Sequences:
        """Of a pass: completions behind their shared prompt where they are packed, else in rows of their own.

        Args:
            image_tokens: positions that hold image features, all prompts together.
        """
        head_tokens = round(one.head_tokens)
        if not packed:
            tokens = round(one.prompt_tokens + one.completion_tokens)
            return cls(one.prompts, tokens, head_tokens, image_tokens)
        prompt, completion = round(one.prompt_tokens), round(one.completion_tokens)
        return cls(one.prompts, prompt, head_tokens, image_tokens, one.branches, completion)

    @property
    def positions(self) -> int:
        return self.rows * (self.tokens + self.branches * self.branch_tokens)


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
        width_bytes: of the dtype that is computed in: 2, or 4 for float32.
        tower: the vision tower is on the GPU.
        patches: that it runs on in this step; 0 where features come from the cache.
        flash: the GPU has flash attention (compute capability 8.0 and above).
    """
    step = _Step(shape, recipe, sequences, width_bytes, patches, flash)
    activations, logits = max(step.moments(), key=sum)
    return {
        **resident(shape, recipe, width_bytes, tower=tower),
        **({"pixels": pixel_bytes(shape, patches)} if patches else {}),
        "image_features": sequences.image_tokens * shape.text.hidden * width_bytes,
        "activations": activations,
        "logits": logits,
    }


@dataclass(frozen=True)
class _Step:
    """Bytes alive beside weights, states and batch at each moment of a step that can be its peak."""

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
        """Full tuning: the language model's own weights train."""
        return self.recipe.lora is None

    @property
    def mixed(self) -> bool:
        """Mixed precision: autocast computes in 16 bit what is stored in 32."""
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
        predicting = self.stream * h * self.sequences.head_tokens
        ends = n * (12 * h if self.full else 4 * h + self.width * h) + predicting
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
            yield tower + seeing + tower_pass(self.shape, self.patches, self.width, norm_bytes=4), 0
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
        chunk = min(LOGIT_CHUNK_TOKENS, chosen)
        # The log-probabilities of all chunks are kept where they are small.
        small = 4 * chosen * self.text.vocab <= KEPT_LOGITS_BYTES
        return self.text.vocab * (LOGIT_BYTES * chunk + (4 * (chosen - chunk) if small else 0))

    def layer(self) -> int:
        """Activations that one decoder layer saves for its backward pass."""
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
                per_token += (5 * h + self.text.queries + i) * (w + dropout)
            else:
                per_token += w * (2 * h + i)
            per_token += w * self.recipe.lora.r * len(adapted_linears(self.text, self.recipe))
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
        q, rows, tokens, w = self.text.queries, self.sequences.rows, self.sequences.tokens, self.width
        heads, n = self.text.heads, self.sequences.positions
        if self.sequences.branches:
            return self.tree_attention()
        if self.unfused():
            # Query, key, value of all heads in float32, and a float32 number per head and pair of positions.
            return n * (12 * q + w * q) + 4 * heads * tokens**2
        if rows == 1:
            return n * (w * (2 * q + 2 * self.text.keys) + 4 * heads)
        # The kernel that takes a mask wants keys and values of all heads.
        bias = w * rows * tokens * _up(tokens, BIAS_ALIGNMENT)
        return n * w * 4 * q + bias + 4 * heads * rows * _up(tokens, LOGSUM_ALIGNMENT)

    def tree_attention(self) -> int:
        """The same for packed trees (`engine/packed_attention.py`): the prompts' attention, then that of all branches."""
        q, rows, prompt, w = self.text.queries, self.sequences.rows, self.sequences.tokens, self.width
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
        q, tokens = self.text.queries, self.sequences.tokens
        total = 12 * self.text.heads * tokens**2 + tokens * (16 * q + 6 * self.text.hidden)
        return total - (0 if self.checkpoints else self.layer())

    def tower_kept(self) -> int:
        """Activations that a trained tower saves: float32 residuals, and autocast's copies in between."""
        vision = self.shape.vision
        if not (self.recipe.train_vision and self.patches):
            return 0
        h, w, mlp = vision.hidden, self.width, mlp_bytes(self.shape, self.width)
        pixels = 3 * vision.patch_px**2 * w
        # Two residuals, statistics of two norms, four lowered inputs, query, key, value and output, and the MLP.
        layer = 0 if self.checkpoints else 4 * h + 16 + 8 * w * h + 4 * vision.heads + mlp
        return self.patches * (pixels + 4 * h + vision.layers * (4 * h + layer))

    def tower_backward(self) -> int:
        """One layer's backward pass in a trained tower, beyond what is saved."""
        vision, w = self.shape.vision, self.width
        if not (self.recipe.train_vision and self.checkpoints):
            return 0
        mlp = mlp_bytes(self.shape, w) + w * vision.intermediate
        return self.patches * (9 * w * vision.hidden + 4 * vision.hidden + mlp)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple

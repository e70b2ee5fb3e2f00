"""The facts of one model, and the parameters they come to."""

from __future__ import annotations

from dataclasses import dataclass

from toasterft.models.geometry import Geometry


@dataclass(frozen=True)
class TextShape:
    """The language model: a decoder with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_position: int
    """Longest sequence in tokens the positions were made for."""
    tied_embeddings: bool
    attention_bias: bool
    """Biases on the query, key and value projections."""
    output_bias: bool = False
    """A bias on the attention's output projection."""
    mlp_bias: bool = False

    @property
    def layer_linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) features of one layer's linears: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        )

    @property
    def linear_params(self) -> int:
        """Weights of all layers' linears, biases not counted."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.layer_linears)

    @property
    def layer_params(self) -> int:
        """All layers and the final norm; neither the embedding nor the head."""
        outputs = [outputs for _, outputs in self.layer_linears]
        biases = self.attention_bias * sum(outputs[:3]) + self.output_bias * outputs[3]
        biases += self.mlp_bias * sum(outputs[4:])
        norms = 2 * self.hidden
        return self.linear_params + self.layers * (biases + norms) + self.hidden


@dataclass(frozen=True)
class VisionShape:
    """The vision tower, the connector not counted."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    image_px: int | None
    """Edge of the square tile it was built for; None where it takes any size."""
    patch_px: int
    params: int
    gated_mlp: bool = False
    class_tokens: int = 0
    """Positions per tile besides its patches."""
    window_px: int | None = None
    """Edge of the attention window; None where every layer sees the whole tile."""
    full_attention_layers: int | None = None
    """Layers that see the whole image in spite of `window_px`; None for all."""


@dataclass(frozen=True)
class ConnectorShape:
    """What turns the tower's output into the language model's input.

    `kind` is `linear` (pixel shuffle, one linear), `mlp` (two linears) or `merger` (norm, two linears).
    """

    kind: str
    params: int


@dataclass(frozen=True)
class ModelShape:
    """Everything an estimator needs to know of one model."""

    model_type: str
    text: TextShape
    vision: VisionShape
    connector: ConnectorShape
    geometry: Geometry

    @property
    def vision_params(self) -> int:
        return self.vision.params

    @property
    def connector_params(self) -> int:
        return self.connector.params

    @property
    def text_layer_params(self) -> int:
        """The language model's layers and final norm."""
        return self.text.layer_params

    @property
    def embedding_params(self) -> int:
        return self.text.vocab * self.text.hidden

    @property
    def lm_head_params(self) -> int:
        """The output projection; 0 where it shares the embedding's weights."""
        return 0 if self.text.tied_embeddings else self.embedding_params

    @property
    def total_params(self) -> int:
        return (
            self.vision_params
            + self.connector_params
            + self.text_layer_params
            + self.embedding_params
            + self.lm_head_params
        )

    @property
    def linear_params_text(self) -> int:
        """Weights that 4-bit quantisation and LoRA touch: the linears of the language model's layers."""
        return self.text.linear_params

    def lora_params(self, r: int) -> int:
        """Trainable parameters of LoRA of rank `r` on every linear of the language model's layers."""
        return self.text.layers * sum(r * (inputs + outputs) for inputs, outputs in self.text.layer_linears)

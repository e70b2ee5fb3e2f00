"""Sizes of a vision-language model and the parameter counts that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from toasterft.models.geometry import Geometry


@dataclass(frozen=True)
class TextShape:
    """The language model: a decoder with grouped-query attention and a gated MLP.

    Attributes:
        max_position: longest sequence, in tokens, that the positions were made for.
        attention_bias: biases on the query, key and value projections.
        output_bias: a bias on the attention's output projection.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_position: int
    tied_embeddings: bool
    attention_bias: bool
    output_bias: bool = False
    mlp_bias: bool = False

    @property
    def queries(self) -> int:
        """Width of the queries of all heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values, of all key-value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) features of one layer's linears: q, k, v, o, gate, up, down."""
        up = (self.hidden, self.intermediate)
        key = (self.hidden, self.keys)
        return (self.hidden, self.queries), key, key, (self.queries, self.hidden), up, up, up[::-1]

    @property
    def linear_params(self) -> int:
        """Weights of all layers' linears, biases not counted: what 4-bit quantisation and LoRA touch."""
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
    """The vision tower, the connector not counted.

    Attributes:
        image_px: edge of the square tile it was built for; None where it takes any size.
        gated_mlp: the MLP has a gate beside its up projection.
        frames: copies of a picture that the processor gives (2 where a still is a short film).
        scaled_layers: each layer multiplies its outputs by learned scales.
        all_hidden_states: the model reads the output of every layer, so all stay alive.
        masks_pixels: the model computes a mask of padding from the pixels.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    image_px: int | None
    patch_px: int
    params: int
    gated_mlp: bool = False
    frames: int = 1
    scaled_layers: bool = False
    all_hidden_states: bool = False
    masks_pixels: bool = False


@dataclass(frozen=True)
class ModelShape:
    """Sizes of one model; counts are numbers of parameters, not bytes.

    Attributes:
        connector_params: of what turns the tower's output into the language model's input.
    """

    model_type: str
    text: TextShape
    vision: VisionShape
    connector_params: int
    geometry: Geometry

    @property
    def vision_params(self) -> int:
        return self.vision.params

    @property
    def embedding_params(self) -> int:
        return self.text.vocab * self.text.hidden

    @property
    def lm_head_params(self) -> int:
        """The output projection; 0 where it shares the embedding's weights."""
        return 0 if self.text.tied_embeddings else self.embedding_params

    @property
    def total_params(self) -> int:
        text = self.text.layer_params + self.embedding_params + self.lm_head_params
        return self.vision_params + self.connector_params + text

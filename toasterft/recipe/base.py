"""Building blocks of recipes: nested sections, and the fields of every command that opens a model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


class Prompt(Section):
    """How a question becomes text, and where in the output the answer is looked for.

    Saved with the adapter, and reused by every later command on it.
    """

    system: str | None = None
    """System message before the question; none by default."""
    question_suffix: str = ""
    """Text appended to every question, in training and afterwards."""
    think_tag: str = "think"
    """Name of the tag around the reasoning, without brackets."""
    answer_tag: str = "answer"
    """Name of the tag around the answer, without brackets."""
    chat_template: str | None = None
    """Jinja chat template, or the path of a .jinja file; the model's own by default."""


# Linear layers of a decoder's layer, in every architecture here; in the order of `TextShape.layer_linears`.
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Lora(Section):
    """Low-rank adapters on the language model's linear layers (PEFT's names)."""

    r: int = Field(16, ge=1, le=1024)
    """Rank."""
    lora_alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout before the first factor."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """`all-linear` (of the language model), or layer names such as [q_proj, v_proj]."""

    @field_validator("target_modules")
    @classmethod
    def _layers_are_there(cls, value: Any) -> Any:
        names = value if isinstance(value, tuple) else LINEARS
        wrong = [name for name in names if name.split(".")[-1] not in LINEARS]
        if wrong or not names:
            raise ValueError(
                f"no linear layer is named {', '.join(wrong) or 'here'}; there are {', '.join(LINEARS)}"
            )
        return value


class Recipe(Section):
    """What every command that opens a model has in common."""

    method: str
    """The command this recipe is for; one word everywhere."""
    model: str = "SmolVLM-256M"
    """Folder, earlier run, catalog name, or hub id."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seed of data order, adapter initialisation, dropout and sampling."""
    engine: Literal["auto", "plain", "unsloth"] = "auto"
    """`unsloth` needs CUDA; `auto` takes it where it is installed and the model supports it."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto`: bfloat16 where the GPU has it, float16 on older GPUs, float32 on a CPU."""
    image_longest_edge: int | None = Field(None, ge=16, le=4096)
    """Longest image edge in px; the model's own default when unset (SmolVLM: 2048)."""
    cache_limit_gb: float | None = Field(None, ge=0.0)
    """Size limit of the image-feature cache in GB; half the free disk when unset."""
    encode_batch_size: int = Field(8, ge=1)
    """Vision tiles encoded per forward pass."""
    images: str | None = None
    """One more folder where rows' pictures may lie; paths of another machine are found in it by name."""
    limit: int | None = Field(None, ge=1)
    """Use only N examples: `eval` draws them by its seed, the others take the first."""
    gpu: str | None = None
    """GPU to plan for; the one present, else an A40."""
    price: float | None = Field(None, gt=0.0)
    """Dollars per hour, instead of the catalog's."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_stay_what_they_are(cls, data: Any) -> Any:
        # YAML 1.1 reads `yes`/`no`/`on` as booleans; a model called "no" is not worth guarding,
        # but a boolean where a name belongs is worth naming.
        if isinstance(data, dict):
            for key in ("model", "data", "eval_data", "images"):
                if isinstance(data.get(key), (int, float)) and not isinstance(data[key], bool):
                    data = {**data, key: str(data[key])}
        return data

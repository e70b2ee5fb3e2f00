"""What a run is asked to do: one validated, frozen object per command.

A YAML file, dashed flags and `key=value` words become one dict, and that dict is validated once.
Names are Hugging Face's. Unknown keys are refused with a suggestion, and every mistake is reported
in the same message. A field that nothing reads would be a lie; `tests/test_recipe_fields.py` records
which ones a real run touches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from toasterft.errors import RecipeError, did_you_mean

PACKAGE = Path(__file__).parent
# An installed wheel carries the recipes inside the package, a checkout keeps them beside it.
RECIPE_FOLDERS = (PACKAGE / "recipes", PACKAGE.parent / "recipes")

# What people type when they mean a Hugging Face name.
SYNONYMS = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "gradient_accumulation": "gradient_accumulation_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "max_seq_length": "max_length",
    "max_new_tokens": "max_completion_length",
    "image_size": "image_longest_edge",
    "load_in_4_bit": "load_in_4bit",
    "rank": "lora.r",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "alpha": "lora.lora_alpha",
    "lora.rank": "lora.r",
    "lora.alpha": "lora.lora_alpha",
    "lora.dropout": "lora.lora_dropout",
    "system_prompt": "prompt.system",
}


# A stop rule: a figure of metrics.jsonl, a direction, a number.
UNTIL = re.compile(r"\s*([\w/]+)\s*(>=|<=)\s*([-+.\deE]+)\s*")


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
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


class Recipe(Section):
    """What every command that opens a model has in common."""

    method: str
    """The command this recipe is for; one word everywhere."""
    model: str = "SmolVLM-256M"
    """Folder, earlier run, catalog name, or hub id."""
    seed: int = 42
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
    limit: int | None = Field(None, ge=1)
    """Use only the first N examples."""
    gpu: str | None = None
    """GPU to plan for; the one present, else an A40."""
    price: float | None = Field(None, ge=0.0)
    """Dollars per hour, instead of the catalog's."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_stay_what_they_are(cls, data: Any) -> Any:
        # YAML 1.1 reads `yes`/`no`/`on` as booleans; a model called "no" is not worth guarding,
        # but a boolean where a name belongs is worth naming.
        if isinstance(data, dict):
            for key in ("model", "data", "eval_data"):
                if isinstance(data.get(key), (int, float)) and not isinstance(data[key], bool):
                    data = {**data, key: str(data[key])}
        return data


class Trained(Recipe):
    """What every training method has in common."""

    data: str = "smolcot-7k"
    """Folder, .jsonl/.json file, set built here, catalog name, or hub id."""
    split: str | None = None
    """Rows to train on; `train` where the data names splits, else all."""
    eval_data: str | None = None
    """Data to evaluate on; the same data's validation split when unset."""
    eval_split: str | None = None
    """Rows to evaluate on; `validation`, else `test`, where the data names splits."""
    eval_limit: int | None = Field(200, ge=1)
    """Evaluate on at most N rows (chosen by seed); null for all."""
    prompt: Prompt = Prompt()
    """Prompt template, tags, system message."""
    load_in_4bit: bool = True
    """NF4 with double quantisation for the language model's linear layers; false is 16-bit."""
    rows_without_reasoning: Literal["keep", "drop"] = "keep"
    """Rows that carry no trace train on the answer alone, or are left out."""
    max_length: int = Field(2048, ge=16)
    """Longest sequence in tokens, images included; longer samples are dropped and counted."""
    lora: Lora | None = Lora()
    """Adapter settings; null trains the whole language model (16-bit weights)."""
    train_connector: bool = False
    """Also adapt the vision-language connector (Idefics3/SmolVLM), behind the cached features."""
    train_vision: bool = False
    """Also train the vision tower; turns the feature cache off."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass."""
    learning_rate: float = Field(3e-4, gt=0.0)
    """Peak learning rate."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Learning-rate schedule."""
    warmup_steps: float = Field(0, ge=0.0)
    """Steps of warm-up; a number below 1 is a share of all steps."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Weight decay."""
    max_grad_norm: float = Field(1.0, ge=0.0)
    """Gradient clipping norm."""
    optim: Literal["paged_adamw_8bit", "adamw_8bit", "adamw_torch"] = "paged_adamw_8bit"
    """Optimizer."""
    per_device_train_batch_size: int = Field(1, ge=1)
    """Sequences per forward pass and device."""
    gradient_accumulation_steps: int = Field(32, ge=1)
    """Forward passes per optimizer step."""
    num_train_epochs: float = Field(1.0, gt=0.0)
    """Passes over the data."""
    max_steps: int = -1
    """Optimizer steps; overrides epochs when positive."""
    logging_steps: int = Field(1, ge=1)
    """Write metrics every N optimizer steps."""
    eval_steps: int | None = Field(None, ge=1)
    """Measure the loss on the evaluation rows every N optimizer steps; only at the end when unset."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Sequences per forward pass in evaluation and generation."""
    save_steps: int = Field(50, ge=1)
    """Write a checkpoint every N optimizer steps, and one at the end."""
    save_total_limit: int = Field(2, ge=1)
    """Keep at most N checkpoints."""
    load_best_model_at_end: bool = False
    """End with the checkpoint of the lowest evaluation loss (needs eval_steps)."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Further places the metrics go; the ledger has them always."""
    max_completion_length: int = Field(256, ge=1)
    """Longest generated answer in tokens."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Trained:
        if self.load_best_model_at_end and not self.eval_steps:
            raise ValueError("load_best_model_at_end needs eval_steps")
        if self.load_best_model_at_end and self.save_steps % (self.eval_steps or 1):
            raise ValueError(
                f"load_best_model_at_end needs save_steps ({self.save_steps}) to be a multiple of "
                f"eval_steps ({self.eval_steps})"
            )
        if self.lora is None and self.load_in_4bit:
            raise ValueError("4-bit weights cannot be trained themselves: lora=null needs load_in_4bit=false")
        return self


class Sft(Trained):
    """Supervised fine-tuning on question → reasoning → answer."""

    method: Literal["sft"] = "sft"


class Dpo(Trained):
    """Direct preference optimisation on pairs of a better and a worse completion; names and meanings are TRL's."""

    method: Literal["dpo"] = "dpo"
    learning_rate: float = Field(1e-5, gt=0.0)
    """Peak learning rate."""
    per_device_train_batch_size: int = Field(1, ge=1)
    """Pairs per forward pass and device."""
    beta: float = Field(0.1, gt=0.0)
    """How dear it is to leave the policy this run started from; the paper's τ for ipo."""
    loss_type: tuple[Literal["sigmoid", "hinge", "ipo", "robust", "bco_pair", "apo_zero", "sft"], ...] = (
        "sigmoid",
    )
    """One loss, or several that are added: [sigmoid, bco_pair, sft] is MPO."""
    loss_weights: tuple[float, ...] | None = None
    """A factor for each loss; 1 each when unset. MPO's are [0.8, 0.2, 1.0]."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Share of the pairs that are taken to be the wrong way round (loss_type robust)."""
    disable_dropout: bool = True
    """Train without dropout, so that the policy differs from its reference by what it learned alone."""

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_loss_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _losses_can_act(self) -> Dpo:
        if not self.loss_type:
            raise ValueError("loss_type is empty: nothing would be learned")
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"loss_weights needs one number for each of {len(self.loss_type)} losses, got {len(self.loss_weights)}"
            )
        if self.label_smoothing and "robust" not in self.loss_type:
            raise ValueError("label_smoothing acts in loss_type=robust alone")
        if self.disable_dropout and self.lora is not None and self.lora.lora_dropout:
            raise ValueError("lora.lora_dropout acts with disable_dropout=false alone")
        return self


class Policy(Trained):
    """What methods that learn from their own samples have in common; names and meanings are TRL's."""

    learning_rate: float = Field(1e-5, gt=0.0)
    """Peak learning rate."""
    per_device_train_batch_size: int = Field(8, ge=1)
    """Completions per forward pass and device; exact in any split with gradient_accumulation_steps."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """Forward passes per optimizer step."""
    num_generations: int = Field(8, ge=2, le=256)
    """Completions sampled per prompt (G)."""
    num_iterations: int = Field(1, ge=1)
    """Optimizer steps per batch of samples."""
    epsilon: float = Field(0.2, gt=0.0, lt=1.0)
    """Clip range below: the ratio new/old stays above 1 - epsilon."""
    epsilon_high: float | None = Field(None, gt=0.0)
    """Clip range above; epsilon when unset. ClipLow sets it lower than epsilon."""
    delta: float | None = Field(None, gt=1.0)
    """Cap of the unclipped ratio."""
    beta: float = Field(0.0, ge=0.0)
    """Weight of the KL distance to the policy this run started from."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of the group, of the whole step, or not."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "grpo"
    """How token losses are averaged."""
    temperature: float = Field(1.0, gt=0.0)
    """Sampling temperature; log-probabilities are taken at it."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling."""
    mask_truncated_completions: bool = False
    """Leave completions that hit max_completion_length out of the loss."""
    branches_per_forward: int | None = Field(None, ge=1)
    """Completions of one prompt per forward pass at most; all of a group when unset."""
    rollout_batch_size: int = Field(64, ge=1)
    """Completions sampled at once; no effect on the result's distribution."""
    rewards: dict[str, float] = {"accuracy": 1.0, "format": 0.5}
    """Weights of reward functions: accuracy, format, length, or your own as my.module:fn."""
    until: str | None = None
    """Stop early once a logged figure, averaged over ten steps, meets this: `format_rate >= 0.98`."""
    log_completions_steps: int = Field(10, ge=1)
    """Show and keep sampled completions every N optimizer steps."""

    @property
    def prompts_per_step(self) -> int:
        """Groups per optimizer step and device."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps // self.num_generations

    @property
    def updates_differ(self) -> bool:
        """Whether a sample is used after the policy moved; only then can the ratio leave 1."""
        return self.num_iterations > 1

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Policy:
        completions = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if completions % self.num_generations:
            raise ValueError(
                f"per_device_train_batch_size x gradient_accumulation_steps ({completions}) must be a multiple of "
                f"num_generations ({self.num_generations}): groups are never split over steps"
            )
        large, small = self.per_device_train_batch_size, self.num_generations
        if max(large, small) % min(large, small):
            raise ValueError(
                f"per_device_train_batch_size ({large}) must divide num_generations ({small}) or be a multiple of it"
            )
        if self.until is not None and not UNTIL.fullmatch(self.until):
            raise ValueError(f"until={self.until!r} is not `figure >= number` or `figure <= number`")
        if not self.rewards:
            raise ValueError("rewards is empty: nothing would be learned")
        clips = self.epsilon != 0.2 or self.epsilon_high is not None or self.delta is not None
        if clips and not self.updates_differ:
            raise ValueError(
                "this clip range cannot act: with one update per sample the ratio is exactly 1; "
                "num_iterations=2 makes it act"
            )
        return self


class Grpo(Policy):
    """Group-relative policy optimisation on sampled answers."""

    method: Literal["grpo"] = "grpo"


# What `refiner` may say instead of a teacher's name.
LOCAL_REFINERS = ("local", "none")


class Dyme(Policy):
    """DyME: per prompt group, memorise the reference where every sample is wrong, else explore."""

    method: Literal["dyme"] = "dyme"
    model: str = "SmolVLM-500M"
    """Folder, earlier run, catalog name, or hub id."""
    rewards: dict[str, float] = {"accuracy": 1.0, "format": 1.0, "thinking": 1.0}
    """Weights of accuracy, format, length, thinking (facts), thinking_lemma (reference), thinking_judge, my.module:fn."""
    sft_weight: float = Field(1.0, ge=0.0)
    """Advantage of a memorised row: 1 as the official code, num_generations as the paper's equation 8."""
    soft_power: float | None = Field(None, gt=0.0)
    """Memorise in partly solved groups too, with weight sft_weight·(1 - c/G)^soft_power; unset is binary."""
    switch_threshold: float | None = Field(None, gt=0.0, lt=1.0)
    """An answer counts as right where the weighted mean of all rewards is above this; accuracy when unset."""
    anneal: bool = False
    """Memorise in every group and explore beside it, with a weight that falls to 0 along a cosine (ablation)."""
    memorise: bool = True
    """False: groups without a right answer teach nothing (ablation)."""
    memorise_until: float = Field(1.0, gt=0.0, le=1.0)
    """Memorise only in this first share of the optimizer steps (ablation)."""
    explore: bool = True
    """False: groups with a right answer teach nothing (ablation)."""
    refiner: str = "local"
    """Who rewrites the reference of a memorised group from the facts: local, none, or a teacher (see judge)."""
    judge: str | None = None
    """Teacher whose verdict is the reward thinking_judge: a catalog name or a .yaml row, as in `cot build`."""
    teachers_usd: float | None = Field(None, gt=0.0)
    """Dollars that judge and refiner may cost; they count towards --budget, which caps them when this is unset."""

    @model_validator(mode="after")
    def _switch_can_act(self) -> Dyme:
        if "accuracy" not in self.rewards:
            raise ValueError("rewards needs accuracy: it decides between memorising and exploring")
        if self.switch_threshold is not None and sum(self.rewards.values()) <= 0:
            raise ValueError("switch_threshold needs rewards of positive weight in sum")
        if self.anneal and self.soft_power is not None:
            raise ValueError("anneal and soft_power both weigh the reference: choose one")
        if not (self.memorise or self.explore):
            raise ValueError("neither memorise nor explore: nothing would be learned")
        if ("thinking_judge" in self.rewards) != (self.judge is not None):
            raise ValueError(
                "judge and the reward thinking_judge need each other: judge=NAME rewards.thinking_judge=1"
            )
        return self


class Eval(Recipe):
    """Accuracy with intervals of a run or model."""

    method: Literal["eval"] = "eval"
    data: str = "chartqa"
    """Folder, .jsonl/.json file, set built here, catalog name, or hub id."""
    split: str | None = None
    """Rows to score; `test`, else `validation`, where the data names splits, else all."""
    step: bool = False
    """Append "Let's think step by step." to every question."""
    suffix: str | None = None
    """Append this text to every question."""
    reasoner: str | None = None
    """Run or model that writes the reasoning, from which this one answers; its own when unset."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Questions answered per forward pass."""
    max_completion_length: int = Field(256, ge=1)
    """Longest generated answer in tokens."""
    prompt: Prompt | None = None
    """Prompt settings; those saved with the run when unset."""
    load_in_4bit: bool | None = None
    """4-bit weights; as the adapter was trained when unset, 16-bit for a base model."""


class Axes(Section):
    """What a matrix of evaluations crosses."""

    models: dict[str, str | dict[str, Any]] = Field(min_length=1)
    """Name in the table: run, folder, catalog name or hub id; or `model` with further keys of eval."""
    prompts: dict[str, dict[str, Any]] = Field({"plain": {}}, min_length=1)
    """Name in the table: keys of eval such as step, suffix, prompt, max_completion_length."""
    load_in_4bit: tuple[bool, ...] = ()
    """[false, true] evaluates 16-bit and 4-bit weights beside each other; as trained when unset."""

    @model_validator(mode="before")
    @classmethod
    def _a_list_names_itself(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("models"), list):
            return {**data, "models": {Path(str(name)).name: str(name) for name in data["models"]}}
        return data


class Matrix(Eval):
    """Models x prompt conditions, each cell an evaluation; keys beside `matrix` are those of every cell."""

    matrix: Axes
    """What is crossed."""

    @model_validator(mode="after")
    def _cells_are_evaluations(self) -> Matrix:
        if "model" in self.model_fields_set:
            raise ValueError("model: a matrix names its models under matrix.models")
        for name, own in self.matrix.models.items():
            if isinstance(own, dict) and not own.get("model"):
                raise ValueError(f"matrix.models.{name} names no model")
        for name, keys in [*self.matrix.models.items(), *self.matrix.prompts.items()]:
            other = sorted({"data", "split", "limit"} & set(keys)) if isinstance(keys, dict) else []
            if other:
                raise ValueError(f"{name}: every cell answers the same questions; {other[0]} is set for all")
        for model in self.matrix.models:
            for prompt in self.matrix.prompts:
                self.cell(model, prompt, None)
        return self

    def cell(self, model: str, prompt: str, load_in_4bit: bool | None) -> Eval:
        """One cell as a recipe of its own.

        Args:
            load_in_4bit: None leaves it to the cell's keys.

        Raises:
            RecipeError: with the cell's names.
        """
        named = self.matrix.models[model]
        keys = self.model_dump(exclude={"matrix"}, exclude_unset=True) | {"method": "eval"}
        keys |= {"model": named} if isinstance(named, str) else named
        keys |= self.matrix.prompts[prompt]
        keys |= {} if load_in_4bit is None else {"load_in_4bit": load_in_4bit}
        found: Eval = validate(Eval, keys, f"matrix cell {model}, {prompt}")
        return found

    def with_suffixes(self, texts: Sequence[str]) -> Matrix:
        """With a further prompt condition for each text, which is appended to every question."""
        swept = {f"+ {text!r}": {"suffix": text} for text in texts}
        axes = self.matrix.model_copy(update={"prompts": {**self.matrix.prompts, **swept}})
        return self.model_copy(update={"matrix": axes})


class Ask(Recipe):
    """One question about one image."""

    method: Literal["ask"] = "ask"
    step: bool = False
    """Append "Let's think step by step." to the question."""
    suffix: str | None = None
    """Append this text to the question."""
    max_completion_length: int = Field(256, ge=1)
    """Longest generated answer in tokens."""
    prompt: Prompt | None = None
    """Prompt settings; those saved with the run when unset."""
    load_in_4bit: bool | None = None
    """4-bit weights; as the adapter was trained when unset, 16-bit for a base model."""


class Pairs(Recipe):
    """Preference pairs: the data's trace and answer beside the model's own wrong sample."""

    method: Literal["pairs"] = "pairs"
    data: str = "smolcot-7k"
    """Rows with reasoning: folder, .jsonl/.json file, set built here, catalog name, or hub id."""
    split: str | None = None
    """Rows to sample answers to; `train` where the data names splits, else all."""
    n: int | None = Field(None, ge=1)
    """Pairs wanted; one for each row that has a wrong sample when unset."""
    tries: int = Field(4, ge=1, le=256)
    """Samples per row."""
    temperature: float = Field(1.0, gt=0.0)
    """Sampling temperature."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling."""
    max_completion_length: int = Field(256, ge=1)
    """Longest sample in tokens; one that is cut off there makes no pair."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Rows sampled at once, `tries` completions of each."""
    prompt: Prompt | None = None
    """Prompt settings; those saved with the run when unset."""
    load_in_4bit: bool | None = None
    """4-bit weights; as the adapter was trained when unset, 16-bit for a base model."""

    @property
    def num_generations(self) -> int:
        """The policy methods' word for `tries`."""
        return self.tries


class Pretrain(Section):
    """Teaching toast-tiny to see charts and to handle small tables as text, from random weights."""

    method: Literal["pretrain"] = "pretrain"
    seed: int = 0
    """Seed of the first weights and of every chart."""
    max_steps: int = Field(2400, ge=1)
    """Optimizer steps."""
    per_device_train_batch_size: int = Field(128, ge=2)
    """Lessons per step."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Peak learning rate; falls to a fiftieth along a cosine."""
    warmup_steps: int = Field(200, ge=0)
    """Steps of warm-up."""
    weight_decay: float = Field(0.01, ge=0.0)
    """Weight decay."""
    seeing: float = Field(0.55, ge=0.0, le=1.0)
    """Share of lessons with an image: transcribe it, or count its labels."""
    tags: float = Field(0.05, ge=0.0, le=1.0)
    """Share of lessons that only write text between the tags; the others reason on a table as text."""
    save_steps: int = Field(200, ge=1)
    """Write a checkpoint every N steps."""
    logging_steps: int = Field(20, ge=1)
    """Write metrics every N steps."""


class Train(Section):
    """Stages, each starting from the adapter of the one before."""

    method: Literal["train"] = "train"
    model: str = "SmolVLM-256M"
    """What the first stage starts from."""
    data: str = "smolcot-7k"
    """Data of every stage that names none of its own."""
    seed: int = 42
    """Seed of every stage that names none of its own."""
    stages: tuple[dict[str, Any], ...] = Field(min_length=1)
    """Recipes of training methods, in order; `budget_share` is a stage's part of --budget."""

    @model_validator(mode="after")
    def _stages_are_recipes(self) -> Train:
        for number in range(len(self.stages)):
            self.stage(number)
        return self

    def stage(self, number: int) -> Trained:
        """One stage as the recipe of its own method.

        Raises:
            ValueError: with the stage's number.
        """
        given = {key: value for key, value in self.stages[number].items() if key != "budget_share"}
        schema = RECIPES.get(str(given.get("method")))
        if schema is None or not issubclass(schema, Trained):
            known = [name for name, each in RECIPES.items() if issubclass(each, Trained)]
            raise ValueError(
                f"stage {number + 1}: method {given.get('method')!r} is none of {', '.join(known)}"
            )
        shared = {"model": self.model, "data": self.data, "seed": self.seed}
        found: Trained = validate(schema, {**shared, **given}, f"stage {number + 1}")
        return found

    def share(self, number: int) -> float:
        """A stage's part of the budget; those that name none divide the rest evenly."""
        named = [stage.get("budget_share") for stage in self.stages]
        rest = 1 - sum(float(share) for share in named if share is not None)
        own = named[number]
        return float(own) if own is not None else max(0.0, rest) / named.count(None)


RECIPES: dict[str, type[Section]] = {
    "sft": Sft,
    "grpo": Grpo,
    "dyme": Dyme,
    "dpo": Dpo,
    "eval": Eval,
    "ask": Ask,
    "pairs": Pairs,
    "pretrain": Pretrain,
    "train": Train,
}


# --- reading ---------------------------------------------------------------------------------


def load(
    method: str,
    source: str | None = None,
    words: list[str] | None = None,
    flags: dict[str, Any] | None = None,
    *,
    matrix: bool = False,
) -> Any:
    """Merge file, `key=value` words and flags (the last one wins), then validate once.

    Args:
        method: the command that was typed; the file's `method:` must agree.
        source: path of a YAML file, or the name of a shipped recipe.
        words: `key=value` strings; dots nest, values are read as YAML.
        flags: values of dashed flags; None means not given.
        matrix: the file crosses models and prompts (`Matrix`).

    Raises:
        RecipeError: with one line per mistake.
    """
    schema: type[Section] = Matrix if matrix else RECIPES[method]
    where = "the command line"
    data: dict[str, Any] = {}
    if source is not None:
        path = find(source)
        where = source
        data = read_yaml(path)
        stated = data.get("method", method)
        if stated != method:
            raise RecipeError(
                f"this recipe is for `{stated}`, not `{method}`",
                where=source,
                next_step=f"toasterft {stated} {source}",
            )
        if ("matrix" in data) != matrix:
            raise RecipeError(
                f"this recipe {'names no matrix' if matrix else 'is a matrix of evaluations'}",
                where=source,
                next_step=f"toasterft eval {'RUN ' if matrix else '--matrix '}{source}",
            )
    data["method"] = method
    for word in words or []:
        key, _, text = word.partition("=")
        try:
            value = yaml.safe_load(text) if text else None
        except yaml.YAMLError:
            value = text
        keys = key.strip().split(".")
        default = schema.model_fields[keys[0]].default if keys[0] in schema.model_fields else None
        if len(keys) > 1 and isinstance(default, dict):
            data.setdefault(keys[0], dict(default))  # rewards.length=0.2 adds to the rewards there are
        _put(data, keys, value)
    for key, value in (flags or {}).items():
        if value is not None:
            data[key] = value
    return validate(schema, data, where)


def validate(schema: type[Section], data: dict[str, Any], where: str) -> Any:
    """The frozen recipe, or one error that names every mistake."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        mistakes = _mistakes(schema, error)
    plural = "1 problem" if len(mistakes) == 1 else f"{len(mistakes)} problems"
    raise RecipeError(
        f"{plural}; nothing was run",
        where=where,
        details=mistakes,
        next_step=f"toasterft recipes fields {data['method']}   lists every key with its default",
    )


def _mistakes(schema: type[Section], error: ValidationError) -> list[str]:
    # A union field reports once per branch, with the branch's own name in the path: one line is enough.
    by_path: dict[str, list[Any]] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        named = [
            part
            for part in parts
            if not part.startswith(("literal[", "tuple[", "constrained-", "bool", "int"))
        ]
        by_path.setdefault(".".join(named) or "(all)", []).append(item)
    return [_mistake(schema, path, items) for path, items in by_path.items()]


def _mistake(schema: type[Section], path: str, items: list[Any]) -> str:
    item = items[0]
    if item["type"] == "extra_forbidden":
        known = fields(schema)
        if path in SYNONYMS and SYNONYMS[path] in known:
            return f"{path}: unknown key — did you mean {SYNONYMS[path]}?"
        return f"{path}: unknown key{did_you_mean(path, list(known))}"
    message = " or ".join(dict.fromkeys(str(each["msg"]).removeprefix("Value error, ") for each in items))
    if item["type"] == "value_error":
        return message if path == "(all)" else f"{path}: {message}"
    given = item["input"]
    shown = "" if isinstance(given, dict) else f", got {given!r}"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def fields(schema: type[BaseModel], prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Every key of a recipe, nested ones dotted, with its default and what it does."""
    found: dict[str, tuple[Any, str]] = {}
    for name, info in schema.model_fields.items():
        default = info.get_default(call_default_factory=False)
        nested = default if isinstance(default, BaseModel) else None
        found[prefix + name] = ("{…}" if nested is not None else default, info.description or "")
        section = _section_of(info.annotation)
        if section is not None:
            found |= fields(section, f"{prefix}{name}.")
    return found


def _section_of(annotation: Any) -> type[Section] | None:
    options = getattr(annotation, "__args__", (annotation,))
    for option in options:
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[keys[-1]] = value


# --- files -----------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """Names and paths of the recipes that come with toasterft."""
    for folder in RECIPE_FOLDERS:
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find(source: str) -> Path:
    """The recipe file for a path or a shipped name."""
    path = Path(source)
    if path.is_file():
        return path
    known = shipped()
    if path.name == source and path.stem in known and path.suffix in ("", ".yaml"):
        return known[path.stem]
    raise RecipeError(
        f"no such recipe{did_you_mean(source, list(known))}", where=source, next_step="toasterft recipes list"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A recipe file as a plain dict."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(
            f"not valid YAML ({getattr(error, 'problem', error)})", where=f"{path}{line}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read ({error})", where=str(path)) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=str(path))
    return data


def dump(recipe: Section) -> str:
    """The resolved recipe as YAML; loading it again gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

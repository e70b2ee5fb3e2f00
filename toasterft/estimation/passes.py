"""Passes and tokens of a run: the same counts for bytes and for seconds.

`of` derives them from a training recipe and its data's token statistics. A method that feeds the model in another
way gets its branch there, and memory, time, dollars and the changes that `--fit` tries follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toasterft.data import sharing
from toasterft.data.token_stats import TokenStats
from toasterft.models.architectures import ModelShape, architecture
from toasterft.recipe import Dpo, Eval, Policy, Recipe, Sft, Trained

# A sampled answer is taken to be at least so long, in tokens: a simplified trace of 45 and its tags. Data
# for policy methods often holds bare answers, but what is rewarded reasons. Assumed.
SAMPLED_TOKENS = 60


@dataclass(frozen=True)
class Pass:
    """One forward pass of training.

    Attributes:
        prompts: prompts in it, each with its images.
        branches: completions that share a prompt (1 outside packed groups).
        prompt_tokens, completion_tokens: of one prompt, and of one completion; or of what several rows share, and of
            all that they have behind it, as one branch.
        predicted_tokens: of a branch, those that the loss is taken on; all of it when unset.
    """

    prompts: int
    branches: int
    prompt_tokens: float
    completion_tokens: float
    predicted_tokens: float | None = None

    @property
    def tokens(self) -> float:
        return self.prompts * (self.prompt_tokens + self.branches * self.completion_tokens)

    @property
    def head_tokens(self) -> float:
        """Positions that the output projection runs on: completions alone."""
        predicted = self.completion_tokens if self.predicted_tokens is None else self.predicted_tokens
        return self.prompts * self.branches * predicted

    @property
    def pairs(self) -> float:
        """Pairs of positions of which one attends to the other, causally."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return self.prompts * (prompt**2 / 2 + self.branches * completion * (prompt + completion / 2))


@dataclass(frozen=True)
class Sampling:
    """Completions that the model generates.

    Attributes:
        completions: in all.
        at_once: completions decoded side by side; as one ends, one of those that wait takes its place.
        together: completions that are asked for at once, those that wait included.
        group: completions of one prompt, which is read once for all of them.
    """

    completions: float
    at_once: int
    together: int
    group: int = 1


@dataclass(frozen=True)
class Workload:
    """One training run.

    Attributes:
        passes: forward and backward passes in all, of `mean` tokens; `longest` is at least as large as any of them.
        scoring: further passes without a gradient (old and reference log-probabilities).
        rollouts: sampling for the training itself; None outside policy methods.
    """

    optimizer_steps: int
    passes: float
    mean: Pass
    longest: Pass
    scoring: float = 0.0
    rollouts: Sampling | None = None


def caches(shape: ModelShape, recipe: Recipe) -> bool:
    """Whether every image goes through the tower once, and features are all that later passes see.

    Completions of one prompt, and rows about one image, then share a forward pass and what is before them.
    """
    kind = architecture(shape.model_type)
    if isinstance(recipe, Trained):
        # A connector of one linear learns behind its features, unless all of it learns.
        behind = kind.connector_linear is not None and recipe.lora is not None
        if recipe.train_vision or (recipe.train_connector and not behind):
            return False
    return kind.takes_features


def rows_per_tree(shape: ModelShape, stats: TokenStats, recipe: Trained) -> tuple[float, int]:
    """Rows that read an image together: their mean, and the most; (1, 1) where none do."""
    if not (isinstance(recipe, Sft | Dpo) and caches(shape, recipe) and stats.sharing):
        return 1.0, 1
    if recipe.branches_per_forward == 1:
        return 1.0, 1
    own, most = round(_own_tokens(stats, recipe)), recipe.branches_per_forward
    return sharing.expected(stats.sharing, recipe.rows_per_step, own, most)


def tokens_of_row(stats: TokenStats, recipe: Trained, rows: float) -> float:
    """Tokens that go through the model for one row, where so many read their images together."""
    return stats.image_tokens / rows + _own_tokens(stats, recipe)


def _own_tokens(stats: TokenStats, recipe: Trained) -> float:
    """Of a row behind its images; both completions of a pair have the question before them."""
    return (1 + isinstance(recipe, Dpo)) * (stats.row_tokens - stats.image_tokens)


def _in_trees(shape: ModelShape, stats: TokenStats, recipe: Sft | Dpo) -> tuple[float, Pass, Pass] | None:
    """(rows of a pass, the mean pass, the longest) where rows about one image share it; None where none do."""
    mean, most = rows_per_tree(shape, stats, recipe)
    if most == 1:
        return None
    each, own = 1 + isinstance(recipe, Dpo), _own_tokens(stats, recipe)
    text = stats.prompt_tokens - stats.image_tokens
    trees = max(1, round(recipe.per_device_train_batch_size / mean))
    longest = each * (stats.longest_prompt_tokens - stats.image_tokens + stats.longest_completion_tokens)
    held = min(most * longest, max(sharing.BRANCH_TOKENS, longest))
    predicted = min(held, most * each * stats.longest_completion_tokens)
    before = min(stats.longest_prompt_tokens - text, recipe.max_length)
    return (
        trees * mean,
        Pass(trees, 1, stats.image_tokens, mean * own, mean * each * stats.completion_tokens),
        Pass(trees, 1, before, held, predicted),
    )


def cached_share(shape: ModelShape, recipe: Recipe, feature_bytes: float) -> float:
    """Share of the images whose features the cache has room for; the others are encoded in every pass."""
    if not caches(shape, recipe):
        return 0.0
    if recipe.cache_limit_gb is None or not feature_bytes:
        return 1.0
    return min(1.0, recipe.cache_limit_gb * 1e9 / feature_bytes)


def answering(stats: TokenStats, recipe: Trained | Eval) -> Sampling:
    """One answer to every row, in evaluation batches."""
    return Sampling(stats.rows, min(stats.rows, recipe.per_device_eval_batch_size), stats.rows)


def of(shape: ModelShape, stats: TokenStats, recipe: Trained) -> Workload:
    """The passes of a training run over the rows that fit `max_length`."""
    if isinstance(recipe, Policy):
        return _of_policy(shape, stats, recipe)
    size, accumulation = recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps
    per_epoch = max(1, math.ceil(math.ceil(stats.kept / size) / accumulation))
    if recipe.max_steps > 0:
        steps = recipe.max_steps
        rows = float(steps * size * accumulation)
    else:
        steps = math.ceil(per_epoch * recipe.num_train_epochs)
        rows = stats.kept * recipe.num_train_epochs
    assert isinstance(recipe, Sft | Dpo)
    if shared := _in_trees(shape, stats, recipe):
        held, mean, longest = shared
        scored = min(rows, stats.kept) / held if isinstance(recipe, Dpo) else 0.0
        return Workload(steps, rows / held, mean, longest, scored)
    if isinstance(recipe, Dpo):
        return _of_pairs(shape, stats, recipe, steps, rows)
    longest_tokens = min(stats.longest_tokens, recipe.max_length)
    completion = min(stats.completion_tokens, longest_tokens)
    return Workload(
        optimizer_steps=steps,
        passes=rows / size,
        mean=Pass(size, 1, stats.prompt_tokens, stats.completion_tokens),
        longest=Pass(size, 1, longest_tokens - completion, completion),
    )


def _of_pairs(shape: ModelShape, stats: TokenStats, recipe: Dpo, steps: int, pairs: float) -> Workload:
    """Both completions of a pair behind one prompt, each as long as the longer; and every pair that is seen goes
    once through the model as it was found."""
    size = recipe.per_device_train_batch_size
    prompts, branches = (size, 2) if caches(shape, recipe) else (2 * size, 1)
    completion = min(stats.longest_completion_tokens, recipe.max_length)
    prompt = min(stats.longest_prompt_tokens, recipe.max_length - completion)
    return Workload(
        optimizer_steps=steps,
        passes=pairs / size,
        mean=Pass(prompts, branches, stats.prompt_tokens, stats.completion_tokens),
        longest=Pass(prompts, branches, prompt, completion),
        scoring=min(pairs, stats.kept) / size,
    )


def _of_policy(shape: ModelShape, stats: TokenStats, recipe: Policy) -> Workload:
    """Groups of completions: sampled once, then learned from in `num_iterations` optimizer steps."""
    group, size = recipe.num_generations, recipe.per_device_train_batch_size
    per_step, iterations = recipe.prompts_per_step, recipe.num_iterations
    batches = math.ceil(max(1, stats.kept // per_step) * recipe.num_train_epochs)
    steps = batches * iterations
    if recipe.max_steps > 0:
        steps, batches = recipe.max_steps, math.ceil(recipe.max_steps / iterations)
    width = min(size, group, recipe.branches_per_forward or group)
    together = max(1, size // group)
    passes_per_step = math.ceil(per_step / together) * math.ceil(group / width)
    scored = (1 if recipe.updates_differ else 0) + (1 if recipe.beta > 0 else 0)
    prompts, branches = (together, width) if caches(shape, recipe) else (together * width, 1)
    limit = recipe.max_completion_length
    written = min(limit, max(SAMPLED_TOKENS, stats.completion_tokens))
    return Workload(
        optimizer_steps=steps,
        passes=steps * passes_per_step,
        mean=Pass(prompts, branches, stats.prompt_tokens, written),
        longest=Pass(prompts, branches, stats.longest_prompt_tokens, limit),
        scoring=batches * passes_per_step * scored,
        rollouts=Sampling(
            batches * per_step * group,
            min(per_step * group, max(group, recipe.rollout_batch_size)),
            per_step * group,
            group,
        ),
    )

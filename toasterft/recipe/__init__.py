"""Settings of a command: one validated, frozen object each.

A YAML file, dashed flags and `key=value` words become one dict, and that dict is validated once.
Names are Hugging Face's. Unknown keys are refused with a suggestion, and every mistake is reported
in the same message. A field that nothing reads would be a lie; `tests/heavy/test_recipe_fields.py`
records which ones a real run touches.

    base            what recipes are made of: `Section`, prompt, lora, and what every command has in common
    supervised      sft, dpo: learning from given rows
    reinforcement   grpo, dyme: learning from own samples
    inference       eval, ask, pairs: a model's answers, nothing learned
    matrix          eval over models x prompts
    registry        `RECIPES`, the recipe of each command by its name, and train: several in stages
    validation      a dict becomes a recipe, or one error that names every mistake
    loading         files, words and flags become that dict, and a recipe a file again
"""

from toasterft.recipe.base import LINEARS, Lora, Prompt, Recipe, Section
from toasterft.recipe.inference import Ask, Eval, Pairs
from toasterft.recipe.loading import PACKAGE, RECIPE_FOLDERS, dump, find, load, of_run, read_yaml, shipped
from toasterft.recipe.matrix import Axes, Matrix
from toasterft.recipe.registry import MODULES, RECIPES, TRAININGS, Train
from toasterft.recipe.reinforcement import LOCAL_REFINERS, UNTIL, Dyme, Grpo, Policy
from toasterft.recipe.supervised import Dpo, Sft, Trained
from toasterft.recipe.validation import SYNONYMS, fields, validate

__all__ = [
    "LINEARS", "LOCAL_REFINERS", "MODULES", "PACKAGE", "RECIPES", "RECIPE_FOLDERS", "SYNONYMS", "TRAININGS", "UNTIL",
    "Ask", "Axes", "Dpo", "Dyme", "Eval", "Grpo", "Lora", "Matrix", "Pairs", "Policy", "Prompt", "Recipe",
    "Section", "Sft", "Train", "Trained", "dump", "fields", "find", "load", "of_run", "read_yaml", "shipped",
    "validate",
]  # fmt: skip

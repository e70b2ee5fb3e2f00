"""Files, `key=value` words and flags become one recipe, and a recipe becomes a file again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from toasterft.errors import RecipeError, did_you_mean
from toasterft.paths import Typed, require_types
from toasterft.recipe.base import Section
from toasterft.recipe.matrix import Matrix
from toasterft.recipe.registry import RECIPES
from toasterft.recipe.validation import validate

PACKAGE = Path(__file__).parents[1]
# Far beyond any recipe: those that come with this package have 40 lines.
MOST_BYTES, MOST_VALUES = 2**20, 10_000
# An installed wheel carries the recipes inside the package, a checkout keeps them beside it.
RECIPE_FOLDERS = (PACKAGE / "recipes", PACKAGE.parent / "recipes")


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
            data[key] = str(value) if isinstance(value, Path) else value
    return validate(schema, data, where)


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[keys[-1]] = value


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
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecipeError(f"{size / 1e6:,.1f} MB are too much for a recipe", where=str(path))
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        _require_bounded(data, path)
    except RecursionError:
        raise RecipeError("nested too deeply", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(
            f"not valid YAML ({getattr(error, 'problem', error)})", where=f"{path}{line}"
        ) from None
    except (OSError, ValueError) as error:  # no UTF-8, a date that is none, a number of thousands of digits
        raise RecipeError(f"cannot be read ({error})", where=str(path)) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=str(path))
    return data


def _require_bounded(data: Any, path: Path) -> None:
    """
    Raises:
        RecipeError: its references (`*name`) make it larger than any recipe, or endless.
    """
    values, waiting = 0, [data]
    while waiting:
        each = waiting.pop()
        values += 1
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        if values > MOST_VALUES:
            raise RecipeError(f"more than {MOST_VALUES:,} values", where=str(path))


class Resolved(Typed):
    """What is read of a run's own recipe by those who only show it."""

    method: str
    model: str | None = None
    data: str | None = None
    eval_data: str | None = None
    split: str | None = None
    eval_split: str | None = None
    limit: int | None = None
    eval_limit: int | None = None
    step: bool | None = None
    suffix: str | None = None
    reasoner: str | None = None
    load_in_4bit: bool | None = None


def of_run(file: Path) -> dict[str, Any]:
    """The resolved recipe of a run; empty where it was not written.

    Raises:
        UserError: it is damaged.
    """
    if not file.is_file():
        return {}
    found: dict[str, Any] = require_types(read_yaml(file), Resolved, str(file))
    return found


def dump(recipe: Section) -> str:
    """The resolved recipe as YAML; loading it again gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

"""What was run, on what machine and data, and what it took beside what was predicted: rows of words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toasterft import catalog, paths, recipe
from toasterft.data import sources
from toasterft.data.write import CARD as DATA_CARD
from toasterft.estimation import Range
from toasterft.publish.report.collect import asked_of, spent
from toasterft.runs import meter, run_folder
from toasterft.runs.run_folder import Run
from toasterft.units import dollars, duration, ranged_time, ranged_usd, size, time_like, when

# Keys of a recipe that are dashed flags on the command line.
FLAGS = ("data", "reasoner", "step", "suffix", "seed", "limit", "gpu", "price")
# What of a data set's own card says how it was made.
TOLD_OF_DATA = ("task", "style", "difficulty", "seed", "generator_version", "licence")

# A longer text is no path, and the system would refuse to look for it.
LONGEST_PATH = 1000

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Held:
    """A quantity that was predicted, beside what came of it.

    Attributes:
        verdict: how they compare; empty where they are not of the same machine.
        bar: low, likely, high and measured as per cent of the drawing's width; None where not drawn.
    """

    name: str
    predicted: str
    measured: str
    verdict: str = ""
    bar: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Bill:
    """Predictions and measurements of one run, in whole and by phase.

    Attributes:
        planned_for: the machine that was planned for; empty where there was no plan.
        comparable: it ran on the machine it was planned for.
    """

    planned_for: str
    ran_on: str
    comparable: bool
    whole: list[Held]
    phases: list[tuple[str, Held, Held]]
    """Name, time, peak memory."""

    @property
    def known(self) -> bool:
        """There is a figure in it."""
        return any({one.predicted, one.measured} != {"–"} for one in self.whole)


# --- what was run ----------------------------------------------------------------------------


def command(asked: dict[str, Any]) -> str:
    """The command that asks for the same again: the settings that differ from the defaults of today.

    Paths are cut to their last part, because a page travels.
    """
    if not asked:
        return ""
    method, asked = str(asked.get("method")), shortened(asked)
    schema = recipe.RECIPES.get(method)
    if schema is None or method == "train":
        return f"toasterft {method} recipe.yaml"
    words = ["toasterft", method, *([] if method == "eval" else ["--model"]), str(asked.get("model"))]
    changed = dict(_changed(asked, {name: info.get_default() for name, info in schema.model_fields.items()}))
    changed.setdefault("data", asked.get("data"))
    for key in FLAGS:
        value = changed.pop(key, None)
        if value is not None:
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    words += [f"{key}={_typed(value)}" for key, value in changed.items() if key not in ("method", "model")]
    return shlex.join(words)


def _changed(asked: dict[str, Any], plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What differs from the defaults, keys of nested sections dotted as the command line has them."""
    for key, value in asked.items():
        default = plain.get(key)
        if isinstance(default, recipe.Section) and isinstance(value, dict):
            yield from _changed(value, default.model_dump(mode="json"), f"{prefix}{key}.")
        elif (list(default) if isinstance(default, tuple) else default) != value or key not in plain:
            yield prefix + key, value


def _typed(value: Any) -> str:
    """A value as the command line reads it: YAML, of which JSON is a part."""
    bare = isinstance(value, str) and value and "\n" not in value and _read(value) == value
    return value if bare else json.dumps(value, ensure_ascii=False)


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def shortened(value: Any) -> Any:
    """Paths of this machine cut to their last part, as on a model card."""
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each) for each in value]
    return Path(value).name if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    """`owner/name` is a hub id, unless there is a file or folder of that name."""
    if "\n" in text or len(text) > LONGEST_PATH:
        return False
    return text.startswith(("/", "~", "./", "../")) or ("/" in text and Path(text).exists())


def run_facts(run: Run) -> Facts:
    """What was run, and on what machine."""
    record, asked = run.record, asked_of(run.path)
    machine, commit = record.get("machine") or {}, record.get("git_commit")
    price, resumed = record.get("usd_per_hour"), len(record.get("resumed_at") or ())
    model = _name(record.get("model_base") or asked.get("model") or "")
    origin = record.get("model_run") or (Path(found).name if (found := record.get("model_adapter")) else None)
    cores = machine.get("cpus")
    teachers = (paths.read_json(run.path / meter.SPEND_FILE) or {}).get("teachers_usd")
    rows = [
        ("model", f"{model}, from {origin}" if origin else model),
        ("trained", _trained(asked) if record.get("method") != "eval" else ""),
        ("machine", _listed(
            _machine(str(record.get("gpu") or "CPU")), cores and f"{cores} cores",
            "no price was named" if price is None else f"{dollars(price)} an hour",
        )),
        ("system", _listed(
            machine.get("platform"), (python := machine.get("python")) and f"Python {python}",
            (engine := record.get("engine")) and f"engine {engine}",
        )),
        ("code", _listed(
            (version := record.get("toasterft")) and f"toasterft {version}", commit and f"commit {commit}"
        )),
        ("asked models", f"{dollars(teachers)} of its dollars" if teachers else ""),
        ("started", _listed(when(record.get("started_at")), resumed and f"resumed {resumed} times")),
        ("ended", ending(record)),
    ]  # fmt: skip
    return [(name, value) for name, value in rows if value]


def _listed(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def _trained(asked: dict[str, Any]) -> str:
    adapter, four_bit = asked.get("lora"), asked.get("load_in_4bit")
    weights = {True: "4-bit", False: "16-bit"}.get(four_bit, "") if isinstance(four_bit, bool) else ""
    if isinstance(adapter, dict) and "r" in adapter:
        return f"LoRA of rank {adapter['r']} on {weights} weights".replace("  ", " ")
    return "the whole language model" if "lora" in asked else ""


def ending(record: dict[str, Any]) -> str:
    """How a run ended."""
    reason = record.get("stop_reason")
    return str(record.get("status", "unknown")) + (f": {reason}" if reason else "")


def data_facts(run: Run) -> Facts:
    """What it learned from, or was asked."""
    record, asked = run.record, asked_of(run.path)
    name = str(asked.get("data") or "")
    if not name:
        return []
    count, split, used = record.get("data_count"), record.get("data_split"), record.get("train_count")
    rows = [
        ("data", _name(name)),
        ("rows", (f"{count:,}" if count is not None else "") + (f" of split {split}" if split else "")),
        ("trained on", f"{used:,} of them" if used is not None and used != count else ""),
        ("evaluated on", _held_out(asked) if "eval_limit" in asked else ""),
        ("limit", f"the first {asked['limit']:,}" if asked.get("limit") else ""),
        ("digest", f"SHA-256 {digest[:16]}…" if (digest := record.get("data_sha256")) else ""),
        *_data_card(name),
    ]
    return [(key, value) for key, value in rows if value]


def _held_out(asked: dict[str, Any]) -> str:
    where = _name(asked["eval_data"]) if asked.get("eval_data") else "the same data"
    limit = asked.get("eval_limit")
    most = f", at most {limit:,} row{'' if limit == 1 else 's'}" if limit else ""
    return f"{where}, split {asked.get('eval_split') or 'validation'}{most}"


def _data_card(name: str) -> Iterator[tuple[str, str]]:
    row = catalog.datasets().get(Path(name).name)
    if row is not None and row.licence:
        yield "licence", row.licence
    here = sources.path_here(name)
    own = paths.read_json(here / DATA_CARD) if here is not None and here.is_dir() else None
    if isinstance(own, dict):
        told = {name: own[name] for name in TOLD_OF_DATA if own.get(name) is not None}
        yield "its card says", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


def recipe_text(folder: Path) -> str:
    """The resolved recipe, paths cut to their last part."""
    asked = asked_of(folder)
    return yaml.safe_dump(shortened(asked), sort_keys=False, allow_unicode=True) if asked else ""


def versions(run: Run) -> str:
    """Installed versions of what decides a run's numbers."""
    return ", ".join(f"{name} {version}" for name, version in (run.record.get("versions") or {}).items())


def _name(value: Any) -> str:
    return str(shortened(str(value)))


# --- the bill --------------------------------------------------------------------------------


def bill(run: Run) -> Bill:
    """What a run took; beside what was predicted, where something was."""
    record = run.record
    seconds, usd = spent(run)
    measured = record.get("measured") or {}
    peak = measured.get("peak_memory_bytes")
    found = run_folder.predicted_and_measured(record)
    ran_on = str(record.get("gpu") or "CPU")
    if found is None:
        return _unfinished(record, ran_on, seconds, usd, peak)
    comparable = bool(found["comparable"])
    whole = [
        _time("time", found["seconds"], comparable),
        _dollars(found["usd"], comparable),
        _memory("peak memory", found["peak_bytes"], comparable),
    ]
    phases = [
        (name, _time(name, row["seconds"], comparable), _memory(name, row["peak_bytes"], comparable))
        for name, row in found["phases"].items()
    ]
    return Bill(_machine(found["planned_for"]), _machine(ran_on), comparable, whole, phases)


def _unfinished(
    record: dict[str, Any], ran_on: str, seconds: float | None, usd: float | None, peak: float | None
) -> Bill:
    """A run without a plan, or one that did not end: what it took so far, and what the whole of it would have."""
    planned = record.get("estimate") or {}
    time, price = planned.get("seconds"), planned.get("usd")
    whole = [
        Held("time", ranged_time(Range(**time)) if time else "–", duration(seconds)),
        Held("dollars", ranged_usd(Range(**price)) if price else "–", dollars(usd)),
        Held("peak memory", size((planned.get("vram_bytes") or {}).get("peak")), size(peak)),
    ]
    measured = (record.get("measured") or {}).get("phases") or {}
    phases = [
        (name, Held(name, "–", duration(row.get("seconds"))), Held(name, "–", size(row.get("peak_bytes"))))
        for name, row in measured.items()
    ]
    return Bill(_machine(planned.get("gpu") or ""), _machine(ran_on), False, whole, phases)


def _machine(name: str) -> str:
    return name.upper() if name.lower() == "cpu" else name


def _time(name: str, row: dict[str, Any], comparable: bool) -> Held:
    predicted, measured = Range(**row["predicted"]), row["measured"]
    said, came = ranged_time(predicted), time_like(predicted, measured)
    return Held(name, said, came, *(_against(predicted, measured) if comparable else ()))


def _dollars(row: dict[str, Any], comparable: bool) -> Held:
    if row["predicted"] is None:
        return Held("dollars", "–", dollars(row["measured"]))
    predicted, measured = Range(**row["predicted"]), row["measured"]
    against = _against(predicted, measured) if comparable and measured is not None else ()
    return Held("dollars", ranged_usd(predicted), dollars(measured), *against)


def _memory(name: str, row: dict[str, Any], comparable: bool) -> Held:
    predicted, measured = row["predicted"], row["measured"]
    held = comparable and predicted and measured
    against = _against(Range(predicted, predicted, predicted), measured) if held else ()
    return Held(name, size(predicted), size(measured), *against)


def _against(predicted: Range, measured: float) -> tuple[str, tuple[float, float, float, float] | None]:
    """Verdict and bar."""
    widest = 1.06 * max(predicted.high, measured)
    if not widest:
        return "", None
    inside = predicted.low <= measured <= predicted.high
    ratio = f"×{measured / predicted.likely:.2f}" if predicted.likely else "not foreseen"
    low, likely, high, at = (
        100 * part / widest for part in (predicted.low, predicted.likely, predicted.high, measured)
    )
    return "inside the range" if inside else ratio, (low, likely, high, at)

"""The model card of an export: recipe, data, scores with intervals, dollars, versions. Light.

Everything comes from the ledger; nothing of this machine's folders is told, because a card travels.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import toasterft
from toasterft import catalog, paths, recipe
from toasterft.data import sources
from toasterft.data.write import CARD as DATA_CARD
from toasterft.models import lookup
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run

FILE = "README.md"
# What of a data set's own card says how it was made; the counts and hashes stay there.
TOLD_OF_DATA = ("licence", "task", "generator_version", "seed", "difficulty", "style")


def text(
    run: Run, runs_dir: Path, exported: dict[str, Any], *, name: str | None = None, files: Sequence[str] = ()
) -> str:
    """The card in Markdown, with the header that the hub reads.

    Args:
        name: what readers call the model: a hub repository, else the run's name.
        exported: what `methods.export` noted: base, dtype and the check of the merge.
        files: names of GGUF files; none for merged weights.
    """
    asked = _anonymous(yaml.safe_load((run.path / run_folder.RECIPE_FILE).read_text(encoding="utf-8")))
    base = exported["base"]
    parts = [
        _header(run, base, gguf=bool(files)),
        f"# {run.id}",
        f"`{base}` after `toasterft {run.record['method']}` on `{Path(str(asked.get('data'))).name}`, "
        f"exported by toasterft {toasterft.__version__} on {datetime.date.today()}.",
        *(_gguf_use(files) if files else _use(name or run.id, exported)),
        "## Scores",
        *_scores(run, runs_dir, gguf=bool(files)),
        "## Data",
        _bullets(_data(run, asked)),
        "## What it took",
        _bullets(_bill(run.record)),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(asked, sort_keys=False, allow_unicode=True)}```",
        "## How the weights were merged",
        _merge(exported),
        "## Versions",
        _bullets({"toasterft": run.record.get("toasterft"), **(run.record.get("versions") or {})}.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def evaluations(run: Run, runs_dir: Path) -> Iterator[Run]:
    """Finished evaluations of a run or of an export of it, oldest first."""
    for other in run_folder.runs(runs_dir):
        record = other.record
        if record["method"] != "eval" or record["status"] != "done":
            continue
        of_run = record.get("model_run") == run.id or record.get("model_adapter") == str(run.path)
        if of_run or _exported_from(Path(str(record.get("model_base")))) == run.id:
            yield other


def _exported_from(folder: Path) -> str | None:
    """The run that an export came from; None for any other model."""
    noted = (paths.read_json(folder / run_folder.ADAPTER_NOTES_FILE) or {}).get("export")
    return str(noted["run"]) if noted else None


def _header(run: Run, base: str, *, gguf: bool) -> str:
    head: dict[str, Any] = {}
    rows = {row.hub_id: row for row in catalog.models().values()}
    if base in rows:
        head["license"] = rows[base].licence.lower() if " " not in rows[base].licence else "other"
    elif base in lookup.embedded():
        head["license"] = "apache-2.0"
    head["library_name"] = "gguf" if gguf else "transformers"
    head["pipeline_tag"] = "image-text-to-text"
    if "/" in base:
        head["base_model"] = base
    head["tags"] = ["toasterft", run.record["method"]]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _use(name: str, exported: dict[str, Any]) -> list[str]:
    prompt = recipe.Prompt(**exported["prompt"])
    asks = [
        f"It reasons between `<{prompt.think_tag}>` and answers between `<{prompt.answer_tag}>`.",
        f"System message: `{prompt.system}`." if prompt.system else "",
        f"Appended to every question: `{prompt.question_suffix}`." if prompt.question_suffix else "",
    ]
    code = (
        "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        f'model = AutoModelForImageTextToText.from_pretrained("{name}")\n'
        f'processor = AutoProcessor.from_pretrained("{name}")'
    )
    return [
        "## Use",
        f'```\ntoasterft ask {name} chart.png "Which year was highest?"\n```',
        f"```python\n{code}\n```",
        " ".join(part for part in asks if part),
    ]


def _gguf_use(files: Sequence[str]) -> list[str]:
    projector = next(name for name in files if name.startswith("mmproj-"))
    weights = next(name for name in reversed(files) if name != projector)
    return [
        "## Use",
        f"```\nllama-mtmd-cli -m {weights} --mmproj {projector} --image chart.png "
        '-p "Which year was highest?"\n```',
        "Files: " + ", ".join(f"`{name}`" for name in files) + ".",
    ]


def _scores(run: Run, runs_dir: Path, *, gguf: bool) -> list[str]:
    rows = [_score_row("at the end of training", run.record, run.record["eval"], run)] if _own(run) else []
    rows += [
        _score_row("evaluation", each.record, each.record["eval"], run, each)
        for each in evaluations(run, runs_dir)
    ]
    missing = ["The GGUF forms were not evaluated: these are the scores of other forms of the same weights."]
    if not rows:
        return ["None measured.", *(missing if gguf else [])]
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    lines = [
        "| data | split | questions | weights | " + " | ".join(names) + " | |",
        "|---|---|--:|---|" + "--:|" * len(names) + "---|",
    ]
    for row in rows:
        cells = [row["data"], row["split"], f"{row['n']:,}", row["weights"]]
        cells += [_rate(row["scores"].get(name)) for name in names]
        lines.append("| " + " | ".join([*cells, row["when"]]) + " |")
    said = "Shares of right answers with 95 % Wilson intervals; `robust` is the headline, `relaxed` ChartQA's own."
    return ["\n".join(lines), said, *(missing if gguf else [])]


def _own(run: Run) -> bool:
    return bool((run.record.get("eval") or {}).get("scores"))


def _score_row(
    when: str, record: dict[str, Any], found: dict[str, Any], run: Run, evaluation: Run | None = None
) -> dict[str, Any]:
    asked = (
        yaml.safe_load(((evaluation or run).path / run_folder.RECIPE_FILE).read_text(encoding="utf-8")) or {}
    )
    four_bit = asked.get("load_in_4bit")
    if four_bit is None:  # an evaluation takes an adapter's base as it was trained on, an export in 16 bit
        notes = paths.read_json(run.path / run_folder.ADAPTER_NOTES_FILE) or {}
        four_bit = bool(record.get("model_run")) and bool(notes.get("load_in_4bit"))
    # Training scores its validation rows; an evaluation records which split it read.
    named = asked.get("eval_data") or asked.get("data") if evaluation is None else asked.get("data")
    split = asked.get("eval_split") or "validation" if evaluation is None else record.get("data_split")
    extra = [word for word in ("step" if asked.get("step") else "", asked.get("suffix") or "") if word]
    return {
        "data": Path(str(named)).name,
        "split": split or "all",
        "n": found["n"],
        "weights": "4-bit" if four_bit else "16-bit",
        "scores": found["scores"],
        "when": " ".join([when, *extra]),
    }


def _rate(rate: dict[str, float] | None) -> str:
    if rate is None:
        return "–"
    return f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f}–{100 * rate['high']:.1f})"


def _data(run: Run, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    record, name = run.record, Path(str(asked.get("data"))).name
    yield "name", name
    yield (
        "rows",
        f"{record.get('data_count'):,}" + (f", split {s}" if (s := record.get("data_split")) else ""),
    )
    yield "SHA-256 of the rows", record.get("data_sha256")
    row = catalog.datasets().get(name)
    if row is not None and row.licence:
        yield "licence", row.licence
    stated = yaml.safe_load((run.path / run_folder.RECIPE_FILE).read_text(encoding="utf-8"))["data"]
    here = sources.path_here(str(stated))
    own = paths.read_json(here / DATA_CARD) if here is not None and here.is_dir() else None
    for key in TOLD_OF_DATA:
        if own and own.get(key) is not None:
            yield key.replace("_", " "), own[key]
    if own and isinstance(own.get("build"), dict):
        yield "reasoning by", ", ".join(map(str, own["build"].get("teachers") or [])) or None


def _bill(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    measured, planned = record.get("measured") or {}, record.get("estimate") or {}
    usd, price = measured.get("usd"), record.get("usd_per_hour")
    yield "time", f"{measured['seconds'] / 60:.1f} min" if measured.get("seconds") is not None else None
    yield "dollars", f"${usd:.3f} at ${price:.2f}/h" if usd is not None and price else "no price was named"
    yield "machine", record.get("gpu") or "CPU"
    if measured.get("peak_memory_bytes"):
        yield "peak memory", f"{measured['peak_memory_bytes'] / 1e9:.2f} GB"
    if planned.get("usd"):
        span = planned["usd"]
        yield (
            "estimated before the start",
            f"${span['likely']:.3f} ({span['low']:.3f}–{span['high']:.3f}) on {planned['gpu']}",
        )
    yield "run", f"{record['id']}, {record['status']}, started {record['started_at']}"
    yield "commit", record.get("git_commit")


def _merge(exported: dict[str, Any]) -> str:
    check = exported["check"]
    return (
        f"The adapter's update was added to `{exported['base']}` in 16 bit (`{exported['dtype']}`), never in 4 bit: "
        "summed in float32, rounded once. On one sample the logits of these files differ from base and adapter by at "
        f"most {check['largest_difference']:.2g} of the largest logit (allowed: {check['tolerance']:g}), and the most "
        f"likely token is the same at {check['same_tokens']} of {check['tokens']} places."
    )


def _bullets(rows: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in rows if value is not None)


def _anonymous(value: Any) -> Any:
    """Paths of this machine shortened to their last part."""
    if isinstance(value, dict):
        return {key: _anonymous(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_anonymous(each) for each in value]
    if isinstance(value, str) and (value.startswith(("/", "~", ".")) or "\\" in value) and "\n" not in value:
        return Path(value).name
    return value

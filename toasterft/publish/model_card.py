"""The model card of an export: recipe, data, scores with intervals, dollars, versions. Light.

Everything comes from the run's record; paths of this machine are shortened, because a card travels.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

import toasterft
from toasterft import catalog, recipe
from toasterft.models import lookup
from toasterft.publish.run_view import RunView, recipe_text, weights_text
from toasterft.publish.scores import added, evaluated_on, evaluations
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run
from toasterft.units import markdown_table, percent

FILE = "README.md"
GGUF_NOTE = "The GGUF forms were not evaluated: these are the scores of other forms of the same weights."


def text(
    run: Run, runs_dir: Path, exported: dict[str, Any], *, name: str | None = None, files: Sequence[str] = ()
) -> str:
    """The card in Markdown, with the header that the hub reads.

    Args:
        name: what readers call the model: a hub repository, else the run's name.
        exported: what `publish.export` noted: base, dtype and the check of the merge.
        files: names of GGUF files; none for merged weights.
    """
    view, base = RunView(run), exported["base"]
    parts = [
        _header(run, base, gguf=bool(files)),
        f"# {run.id}",
        f"`{base}` after `toasterft {view.method}` on `{Path(str(view.recipe.get('data'))).name}`, "
        f"exported by toasterft {toasterft.__version__} on {datetime.date.today()}.",
        *(_gguf_use(files) if files else _use(name or run.id, exported)),
        "## Scores",
        *_scores(run, runs_dir, gguf=bool(files)),
        "## Data",
        _bullets(view.data),
        "## What it took",
        _bullets(_bill(view)),
        "## What was run",
        _bullets([("run", run.id), *view.facts]),
        "## Recipe",
        f"```yaml\n{recipe_text(view.recipe)}```",
        "## How the weights were merged",
        _merge(exported),
        "## Versions",
        _bullets({"toasterft": run.record.get("toasterft"), **(run.record.get("versions") or {})}.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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
    after = [GGUF_NOTE] if gguf else []
    own = bool((run.record.get("eval") or {}).get("scores"))
    rows = [
        _score_row(each, run)
        for each in [*([run] if own else []), *evaluations(run, run_folder.runs(runs_dir))]
    ]
    if not rows:
        return ["None measured.", *after]
    names = list(dict.fromkeys(name for _, scores, _ in rows for name in scores))
    table = markdown_table(
        ["data", "split", ">questions", "weights", *(f">{name}" for name in names), ""],
        [[*named, *(percent(scores.get(name)) for name in names), kind] for named, scores, kind in rows],
    )
    note = "Shares of right answers with 95 % Wilson intervals; `robust` is the headline, `relaxed` ChartQA's own."
    return [table, note, *after]


def _score_row(evaluation: Run, run: Run) -> tuple[list[str], dict[str, Any], str]:
    """What was answered by which weights, the scores, and when: at the end of training, or in an evaluation."""
    record, settings = evaluation.record, evaluation.recipe
    four_bit = settings.get("load_in_4bit")
    if four_bit is None:  # an evaluation takes an adapter's base as it was trained on, an export in 16 bit
        notes = lookup.read_notes(run.path) or {}
        four_bit = bool(record.get("model_run")) and bool(notes.get("load_in_4bit"))
    data, split = evaluated_on(record, settings)
    kind = "at the end of training" if evaluation is run else "evaluation"
    named = [data, split or "all", f"{record['eval']['n']:,}", weights_text(four_bit)]
    return named, record["eval"]["scores"], ", ".join([kind, *added(settings)])


def _bill(view: RunView) -> Iterable[tuple[str, str]]:
    """Measured figures, each with the prediction where there was one."""
    planned = f"predicted for {view.planned_for}: " if view.planned_for else ""
    for each in view.took:
        predicted = f" ({planned}{each.predicted_text})" if planned and each.predicted else ""
        yield each.name, each.measured_text + predicted


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

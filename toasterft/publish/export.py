"""A run's weights as a model of their own: merged into the 16-bit base, checked, saved with the base's own files.

The folder holds what the base's repository holds, with other weights: configuration, tokenizer and processor files
are copied rather than written anew, so that transformers, vLLM and llama.cpp take it as they take the base.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from pathlib import Path
from typing import Any

import safetensors
import torch

import toasterft
from toasterft import paths
from toasterft.data import charts, sources
from toasterft.data.chat import Chat
from toasterft.data.example import Example
from toasterft.engine.batching import IGNORE, Batcher
from toasterft.engine.loaded import AGREEMENT, LoadedModel
from toasterft.errors import ModelError, RunFailed, UserError
from toasterft.models import lookup
from toasterft.models.architectures import architecture
from toasterft.progress import Reporter
from toasterft.publish import merge, model_card
from toasterft.recipe import Prompt
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run

# What makes a folder this model besides its weights; whatever else a run's folder holds stays there.
BASE_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "chat_template.*", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "LICENSE*", "NOTICE*",
)  # fmt: skip
TEMPLATE = "chat_template.jinja"
# Over the weights: the index, the tokenizer and the file system's own needs.
ROOM = 1.1


def write_merged(
    run: Run, runs_dir: Path, folder: Path, report: Reporter, dtype: str | None = None
) -> dict[str, Any]:
    """Write the merged model to the new `folder`, which appears only when it is complete and checked.

    Args:
        dtype: bfloat16, float16 or float32; what the base is stored in where None, bfloat16 if that is 32-bit.

    Returns:
        What was noted in `folder`'s toasterft.json under `export`.

    Raises:
        ModelError: the run has no model, or its base is not here or is itself quantised.
        RunFailed: the merged weights do not answer as base and adapter do.
        UserError: `folder` exists, or the disk is full.
    """
    paths.require_new(folder)
    model = lookup.resolve(str(run.path), runs_dir)
    notes = model.notes or {}
    base = model.weights_folder()
    _require_full_precision(base)
    _require_whole(run, model.adapter)
    target = _dtype(base, dtype)
    _require_room(base, folder, target)
    arch, edge = architecture(model.shape.model_type), notes.get("image_longest_edge")
    prompt = Prompt(**notes.get("prompt", {}))
    try:
        report.phase("loading")
        loaded = merge.load(base, arch, model.adapter, target, edge)
        if prompt.chat_template is not None:
            # The path a recipe named means nothing elsewhere: the template itself travels.
            prompt = prompt.model_copy(update={"chat_template": Chat(loaded.processor, prompt).template})
        with tempfile.TemporaryDirectory() as scratch, paths.new_folder(folder) as part:
            example = _probe(Path(scratch))
            before = _logits(loaded, prompt, example)
            report.phase("merging")
            _save(merge.merge(loaded, target), part)
            del loaded
            _free()
            _copy_files(base, part, target, edge, prompt.chat_template)
            report.phase("checking")
            again = merge.load(part, arch, None, target, edge)
            check = _compare(before, _logits(again, prompt, example), target)
            del again
            _free()
            export = {
                "run": run.id,
                "method": run.record["method"],
                "base": _public_name(model.base_name),
                "dtype": str(target).removeprefix("torch."),
                "prompt": prompt.model_dump(),
                "check": check,
                "toasterft": toasterft.__version__,
                "versions": run_folder.versions(),
                "exported_at": run_folder.now(),
            }
            settings = {"prompt": prompt.model_dump(), "image_longest_edge": edge, "load_in_4bit": False}
            paths.write_json(part / run_folder.ADAPTER_NOTES_FILE, {**settings, "export": export})
            (part / model_card.FILE).write_text(model_card.text(run, runs_dir, export), encoding="utf-8")
    finally:
        report.done()
    return export


def _require_full_precision(base: Path) -> None:
    config = paths.read_json(base / "config.json") or {}
    if config.get("quantization_config"):
        raise ModelError(
            "the base of this run is itself quantised: a merge would round what was learned away",
            where=str(base),
            next_step="name the 16-bit base in the adapter's adapter_config.json, and export again",
        )


def _require_whole(run: Run, adapter: Path | None) -> None:
    if adapter is not None and run.recipe.get("train_vision"):
        raise ModelError(
            "this run trained its vision tower too, and an adapter does not hold it",
            where=str(run.path),
            next_step="train it with lora=null, which saves every weight",
        )


def _dtype(base: Path, name: str | None) -> torch.dtype:
    if name is not None:
        found: torch.dtype = getattr(torch, name)
        return found
    stored = merge.stored_dtype(base)
    return torch.bfloat16 if stored == torch.float32 else stored


def _require_room(base: Path, folder: Path, target: torch.dtype) -> None:
    held = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    needed = int(ROOM * held * target.itemsize / merge.stored_dtype(base).itemsize)
    free = paths.free_bytes(folder)
    if free < needed:
        raise UserError(
            "no space left on the disk for the merged weights; nothing was written",
            where=str(folder),
            why=f"they need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free",
            next_step="free some space, or --out on another disk",
        )


def _save(model: Any, part: Path) -> None:
    try:
        model.save_pretrained(part)
    except safetensors.SafetensorError as error:
        # The Rust side has no errno: its words are all there is.
        if "os error 28" not in str(error):
            raise
        raise OSError(28, "No space left on device") from error


def _copy_files(
    base: Path, part: Path, target: torch.dtype, longest_edge: int | None, template: str | None
) -> None:
    """The base's own files, changed only where the weights' type, the image size or the template differ."""
    for pattern in BASE_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, part / file.name)
    config = paths.read_json(part / "config.json")
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    paths.write_json(part / "config.json", {**config, key: str(target).removeprefix("torch.")})
    if template is not None:
        (part / "chat_template.json").unlink(missing_ok=True)
        (part / TEMPLATE).write_text(template, encoding="utf-8")
    if longest_edge is not None:
        _set_longest_edge(part, longest_edge)


def _set_longest_edge(part: Path, longest_edge: int) -> None:
    """Write the size that was trained with where plain transformers reads it (Idefics3, SmolVLM)."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        whole = paths.read_json(part / name) or {}
        settings = whole if name.startswith("pre") else whole.get("image_processor", {})
        if set(settings.get("size") or {}) == {"longest_edge"}:
            settings["size"] = {"longest_edge": longest_edge}
            paths.write_json(part / name, whole)


def _probe(folder: Path) -> Example:
    """One chart with a question, the same every time."""
    charts.write_dataset(folder / "probe", n=1, seed=0, per_chart=1, splits=(1.0, 0.0, 0.0))
    return sources.load(str(folder / "probe")).examples[0]


def _logits(loaded: LoadedModel, prompt: Prompt, example: Example) -> torch.Tensor:
    """Logits at every place of the answer, [tokens, vocabulary]."""
    batch = Batcher(loaded, Chat(loaded.processor, prompt), None).training([example])
    count = int((batch.pop("labels") != IGNORE).sum())
    with loaded.evaluating() as model:
        moved = {name: value.to(loaded.device) for name, value in batch.items()}
        logits: torch.Tensor = model(**moved, logits_to_keep=count + 1).logits
    return logits[0, :-1].float().cpu()


def _compare(before: torch.Tensor, after: torch.Tensor, target: torch.dtype) -> dict[str, Any]:
    """How far the merged weights are from base and adapter.

    Raises:
        RunFailed: further than rounding the weights to `target` explains.
    """
    largest = float((before - after).abs().max() / before.abs().max().clamp(min=1e-6))
    tolerance = AGREEMENT[target]
    if not largest <= tolerance:
        raise RunFailed(
            "the merged weights do not answer as base and adapter do; nothing was written",
            why=f"their logits differ by {largest:.2g} of the largest one; {tolerance:g} is allowed",
            next_step="--dtype float32 rounds nothing",
        )
    return {
        "sample": "a drawn chart (seed 0) with its reasoning and answer",
        "largest_difference": largest,
        "tolerance": tolerance,
        "tokens": len(before),
        "same_tokens": int((before.argmax(-1) == after.argmax(-1)).sum()),
    }


def _public_name(base_name: str) -> str:
    """A hub id or an embedded model's name as it is, a folder by its last part."""
    return Path(base_name).name if Path(base_name).is_absolute() else base_name


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

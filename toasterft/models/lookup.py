"""Resolve a model's name to a folder, an earlier run, a catalog row, or a hub id, in that order.

Resolving reads JSON files only. Weights of a hub model are downloaded at launch (`ModelRef.weights_folder`).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from toasterft import catalog, paths
from toasterft.errors import ModelError, did_you_mean
from toasterft.models import adapter_files, download, model_files, weight_files
from toasterft.models.architectures import Config, ModelShape, shape_from_config
from toasterft.paths import Typed
from toasterft.recipe import Prompt
from toasterft.runs import run_folder

# Models that come with the package; they are small, and load offline by name.
EMBEDDED = Path(__file__).parent / "weights"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name


class Notes(Typed):
    """What is kept beside an adapter (`ModelSettings.adapter_notes`) or an export."""

    prompt: Prompt | None = None
    image_longest_edge: Annotated[int, Field(ge=16, le=4096)] | None = None
    load_in_4bit: bool | None = None
    base: str | None = None
    base_fingerprint: str | None = None
    export: dict[str, Any] | None = None


@dataclass(frozen=True)
class ModelRef:
    """A resolved model: where its weights are, its shape, the adapter on it.

    Attributes:
        name: what to call it in tables and folder names.
        base: folder or hub id of the full weights.
        base_name: what an adapter calls its base: a hub id, an embedded model's name, or the folder.
        adapter: folder of a LoRA adapter on that base, or None.
        notes: prompt settings and image size the adapter was trained with.
        run: the run it came from, or None.
    """

    kind: Literal["folder", "run", "embedded", "catalog", "hub"]
    name: str
    base: str
    base_name: str
    shape: ModelShape
    adapter: Path | None = None
    notes: dict[str, Any] | None = None
    run: str | None = None

    @property
    def local(self) -> bool:
        """Whether the full weights lie on this machine's disk as a folder."""
        return Path(self.base).is_dir()

    def weights_folder(self) -> Path:
        """The folder of the full weights, downloaded where they are the hub's and not cached.

        Raises:
            ModelError: they cannot be downloaded.
        """
        return Path(self.base) if self.local else download.fetch(self.base)

    def fingerprints(self) -> dict[str, str | None]:
        """Identity of `weights` (their hash, or a hub id) and `adapter` (its hash, or None)."""
        return {
            "weights": fingerprint(Path(self.base)) if self.local else self.base,
            "adapter": weight_files.fingerprint(adapter_files.files(self.adapter)) if self.adapter else None,
        }


def resolve(name: str, runs_dir: Path) -> ModelRef:
    """Resolve the value of `--model`.

    Raises:
        ModelError: with the nearest name, or with what the folder lacks.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, "folder")
    if (runs_dir / name / run_folder.RUN_FILE).is_file():
        return _folder(runs_dir / name, "run")
    if name in embedded():
        return _folder(EMBEDDED / name, "embedded")
    row = _catalog_row(name)
    if row is not None:
        return ModelRef("catalog", row.name, row.hub_id, row.hub_id, _shape(row.hub_id))
    if path.exists():
        raise ModelError("this is a file, not a model folder", where=name)
    if not HUB_ID.fullmatch(name):
        known = [*catalog.models(), *embedded(), *(run.id for run in run_folder.runs(runs_dir))]
        raise ModelError(
            f"no such model{did_you_mean(name, known)}",
            where=name,
            why="it is no folder, no run, no catalog name, and no hub id (owner/name)",
            next_step="toasterft models   lists the catalog",
        )
    shape, notes = _shape(name), None
    with suppress(ModelError):  # only an export of ours has them
        notes = download.json_file(name, run_folder.ADAPTER_NOTES_FILE)
    if notes is not None:
        paths.require_types(notes, Notes, f"{name}: {run_folder.ADAPTER_NOTES_FILE}")
    return ModelRef("hub", name.split("/")[-1], name, name, shape, notes=notes)


def config_of(model: ModelRef) -> Config:
    """The content of a model's config.json, from its folder or its catalog row.

    Raises:
        ModelError: a hub model that is neither here nor in the catalog.
    """
    return _config(model.base)


def embedded() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def _catalog_row(name: str) -> catalog.Model | None:
    for row in catalog.models().values():
        if name.lower() in (row.name.lower(), row.hub_id.lower()):
            return row
    return None


def _config(base: str) -> Config:
    """config.json of a folder, a catalog row, or a hub repository."""
    row = _catalog_row(base)
    if Path(base).is_dir():
        found = paths.read_json(Path(base) / model_files.CONFIG, Typed) or {}
    else:
        found = row.config if row is not None else download.json_file(base, "config.json")
    if found is None:
        raise ModelError("this hub repository has no config.json", where=base)
    return dict(found)


def _shape(base: str) -> ModelShape:
    config, row = _config(base), _catalog_row(base)
    if Path(base).is_dir():
        return shape_from_config(config, model_files.image_settings(Path(base)))
    name = "preprocessor_config.json"
    return shape_from_config(config, row.preprocessor if row else download.json_file(base, name))


def read_notes(folder: Path) -> dict[str, Any] | None:
    """Prompt settings, image size and base of an adapter or export; None for a folder that is not ours.

    Raises:
        UserError: they are damaged.
    """
    notes: dict[str, Any] | None = paths.read_json(folder / run_folder.ADAPTER_NOTES_FILE, Notes)
    return notes


def _folder(path: Path, kind: Literal["folder", "run", "embedded"]) -> ModelRef:
    record = run_folder.read_record(path)
    run = None if record is None else record["id"]
    notes = read_notes(path)
    adapter_config = adapter_files.read_config(path)
    whole = path.resolve()
    if adapter_config is not None:
        adapter_files.check(path)
        name = _base_of(path, adapter_config, notes)
        base = str(EMBEDDED / name) if name in embedded() else name
        if Path(base).is_dir():
            model_files.check(Path(base))
        return ModelRef(kind, whole.name, base, name, _shape(base), whole, notes, run)
    if paths.read_json(path / model_files.CONFIG, Typed) is None:
        raise ModelError(
            "this folder is no model" if run is None else "this run has no saved model",
            where=str(path),
            why="it holds neither config.json nor adapter_config.json"
            if run is None
            else f"its status is {(record or {})['status']!r}",
            next_step="GGUF files are llama.cpp's: llama-mtmd-cli" if list(path.glob("*.gguf")) else None,
        )
    model_files.check(path)
    name = path.name if kind == "embedded" else str(whole)
    return ModelRef(kind, whole.name, str(whole), name, _shape(str(whole)), None, notes, run)


def _base_of(folder: Path, adapter_config: dict[str, Any], notes: dict[str, Any] | None) -> str:
    """The adapter's base, held against the fingerprint taken when it was trained."""
    base: str = adapter_config.get("base_model_name_or_path") or ""
    if not base:
        raise ModelError("this adapter's configuration names no base model", where=str(folder))
    expected = (notes or {}).get("base_fingerprint")
    if base in embedded() or Path(base).is_dir():
        here = EMBEDDED / base if base in embedded() else Path(base)
        if expected and fingerprint(here) != expected:
            raise ModelError(
                "this adapter was trained on another base model",
                where=str(folder),
                why=f"the weights in {base} have changed since",
                next_step="put the old weights back, or train the adapter again",
            )
    elif base.startswith(("/", ".", "~")) or not HUB_ID.fullmatch(base):
        raise ModelError(
            "the base model of this adapter is not here",
            where=str(folder),
            why=f"it was trained on {base}",
            next_step=f"put the model there, or edit base_model_name_or_path in {folder / 'adapter_config.json'}",
        )
    return base


def fingerprint(folder: Path) -> str:
    """Identity of a folder's full weights."""
    return weight_files.fingerprint(weight_files.files(folder))

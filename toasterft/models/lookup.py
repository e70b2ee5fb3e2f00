"""Which model a name means: a folder, an earlier run, a catalog row, or a hub id, in that order.

Resolving reads JSON files only. Weights of a hub model are fetched by `fetch`, at launch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toasterft import catalog, paths
from toasterft.errors import ModelError, did_you_mean
from toasterft.models.architectures import ModelShape, shape_from_config
from toasterft.runs import run_folder

# Models that come with the package; they are small, and load offline by name.
EMBEDDED = Path(__file__).parent / "weights"
# Weights as safetensors only: a pickle from a stranger runs code when it is loaded.
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
NETWORK_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class ModelRef:
    """A model by name, and what its files say of it.

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


def resolve(name: str, runs_dir: Path) -> ModelRef:
    """What `--model NAME` means.

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
        shape = shape_from_config(row.config, row.preprocessor)
        return ModelRef("catalog", row.name, row.hub_id, row.hub_id, shape)
    if path.exists():
        raise ModelError("this is a file, not a model folder", where=name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        known = [*catalog.models(), *embedded(), *(run.id for run in run_folder.runs(runs_dir))]
        raise ModelError(
            f"no such model{did_you_mean(name, known)}",
            where=name,
            why="it is no folder, no run, no catalog name, and no hub id (owner/name)",
            next_step="toasterft models   lists the catalog",
        )
    config = _hub_json(name, "config.json")
    if config is None:
        raise ModelError("this hub repository has no config.json", where=name)
    shape = shape_from_config(config, _hub_json(name, "preprocessor_config.json"))
    return ModelRef("hub", name.split("/")[-1], name, name, shape, notes=_hub_notes(name))


def config_of(model: ModelRef) -> dict[str, Any]:
    """The content of a model's config.json, from its folder or its catalog row.

    Raises:
        ModelError: a hub model that is neither here nor in the catalog.
    """
    if model.local:
        return dict(paths.read_json(Path(model.base) / "config.json"))
    row = _catalog_row(model.base)
    found = row.config if row is not None else _hub_json(model.base, "config.json")
    if found is None:
        raise ModelError("this hub repository has no config.json", where=model.base)
    return dict(found)


def embedded() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def _catalog_row(name: str) -> catalog.Model | None:
    for row in catalog.models().values():
        if name.lower() in (row.name.lower(), row.hub_id.lower()):
            return row
    return None


def _folder(path: Path, kind: Literal["folder", "run", "embedded"]) -> ModelRef:
    record = paths.read_json(path / run_folder.RUN_FILE)
    run = record["id"] if isinstance(record, dict) else None
    notes = paths.read_json(path / run_folder.ADAPTER_NOTES_FILE)
    adapter_config = paths.read_json(path / "adapter_config.json")
    if adapter_config is not None:
        name = _base_of(path, adapter_config, notes)
        base = str(EMBEDDED / name) if name in embedded() else name
        return ModelRef(kind, path.resolve().name, base, name, _shape_of(base), path.resolve(), notes, run)
    config = paths.read_json(path / "config.json")
    if config is None:
        raise ModelError(
            "this folder is no model" if run is None else "this run has no saved model",
            where=str(path),
            why="it holds neither config.json nor adapter_config.json"
            if run is None
            else f"its status is {record.get('status')!r}",
            next_step="GGUF files are llama.cpp's: llama-mtmd-cli" if list(path.glob("*.gguf")) else None,
        )
    if not list(path.glob("*.safetensors")):
        raise ModelError(
            "this folder has a configuration but no weights", where=str(path), why="no *.safetensors in it"
        )
    shape = shape_from_config(config, preprocessor_of(path))
    base = str(path.resolve())
    return ModelRef(
        kind, path.resolve().name, base, path.name if kind == "embedded" else base, shape, None, notes, run
    )


def _base_of(folder: Path, adapter_config: dict[str, Any], notes: dict[str, Any] | None) -> str:
    """The adapter's base, held against the fingerprint taken when it was trained."""
    base = str(adapter_config.get("base_model_name_or_path") or "")
    if not base:
        raise ModelError("this adapter does not say which base it belongs to", where=str(folder))
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
    elif base.startswith(("/", ".", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        raise ModelError(
            "the base model of this adapter is not here",
            where=str(folder),
            why=f"it was trained on {base}",
            next_step=f"put the model there, or edit base_model_name_or_path in {folder / 'adapter_config.json'}",
        )
    return base


def _shape_of(base: str) -> ModelShape:
    path = Path(base)
    if path.is_dir():
        return shape_from_config(paths.read_json(path / "config.json") or {}, preprocessor_of(path))
    row = _catalog_row(base)
    if row is not None:
        return shape_from_config(row.config, row.preprocessor)
    return shape_from_config(
        _hub_json(base, "config.json") or {}, _hub_json(base, "preprocessor_config.json")
    )


def preprocessor_of(folder: Path) -> dict[str, Any] | None:
    """Image-processor settings: a file of their own, or a part of processor_config.json (transformers 5)."""
    own = paths.read_json(folder / "preprocessor_config.json")
    whole = paths.read_json(folder / "processor_config.json") or {}
    nested = whole.get("image_processor")
    settings = own if own is not None else nested
    return None if settings is None else {**whole, **settings}


def fingerprint(folder: Path) -> str:
    """Hash of a folder's weights: every tensor's name and shape, and a sample of the bytes.

    Reading half a gigabyte at every start would be slow; the first and last 64 KiB of each file
    change with any training.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as handle:
            (header_bytes,) = struct.unpack("<Q", handle.read(8))
            header = handle.read(header_bytes)
            digest.update(json.dumps(json.loads(header), sort_keys=True).encode())
            digest.update(handle.read(65536))
            handle.seek(-min(65536, file.stat().st_size), os.SEEK_END)
            digest.update(handle.read())
    return digest.hexdigest()


# --- the hub ---------------------------------------------------------------------------------


def fetch(hub_id: str) -> Path:
    """The folder of a hub model's files, downloaded where they are not cached yet.

    Raises:
        ModelError: no network, no such repository, no access, or no safetensors.
    """
    from huggingface_hub import snapshot_download

    try:
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=HUB_FILES, local_files_only=True))
            if list(folder.glob("*.safetensors")):
                return folder
        except FileNotFoundError:
            pass  # LocalEntryNotFoundError: not cached yet
        _require_network(hub_id)
        folder = Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except ModelError:
        raise
    except Exception as error:  # the client raises a dozen types for "cannot get it"
        raise _unfetchable(hub_id, str(error)) from error
    if not list(folder.glob("*.safetensors")):
        raise ModelError("this hub repository has no safetensors weights", where=hub_id)
    return folder


def _hub_notes(hub_id: str) -> dict[str, Any] | None:
    """Prompt settings of an export that was pushed; None for other models, and where nobody can be asked."""
    try:
        return _hub_json(hub_id, run_folder.ADAPTER_NOTES_FILE)
    except ModelError:
        return None


def _hub_json(hub_id: str, name: str) -> dict[str, Any] | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.file_download import _CACHED_NO_EXIST

    cached = try_to_load_from_cache(hub_id, name)
    if cached is _CACHED_NO_EXIST:
        return None
    try:
        if not isinstance(cached, str):
            _require_network(hub_id)
            cached = hf_hub_download(hub_id, name)
    except LocalEntryNotFoundError as error:
        raise _unfetchable(hub_id, str(error)) from error
    except EntryNotFoundError:
        return None
    except ModelError:
        raise
    except Exception as error:
        raise _unfetchable(hub_id, str(error)) from error
    found: dict[str, Any] = json.loads(Path(cached).read_text(encoding="utf-8"))
    return found


def _require_network(hub_id: str) -> None:
    """One quick question before the hub client's minute of retries."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _unfetchable(hub_id, "HF_HUB_OFFLINE is set and the files are not cached")
    try:
        httpx.head(constants.ENDPOINT, timeout=NETWORK_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise _unfetchable(hub_id, f"{constants.ENDPOINT} cannot be reached ({error})") from error


def _unfetchable(hub_id: str, reason: str) -> ModelError:
    return ModelError(
        "this model cannot be fetched from the hub",
        where=hub_id,
        why=reason.strip().split("\n")[0],
        next_step="check the name, the network and `hf auth login`, or give a folder that holds the weights",
    )

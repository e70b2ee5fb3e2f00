"""Files of models on the hub: JSON at planning time, weights at launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.errors import ModelError
from toasterft.models import weight_files
from toasterft.paths import Typed

# Weights as safetensors only: a pickle from a stranger runs code when it is loaded.
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
NETWORK_TIMEOUT_SECONDS = 10


def fetch(hub_id: str) -> Path:
    """The folder of a hub model's files, downloaded where they are not cached yet.

    Raises:
        ModelError: no network, no such repository, no access, or no safetensors.
    """
    from huggingface_hub import snapshot_download

    try:
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=HUB_FILES, local_files_only=True))
            if any(folder.glob("*.safetensors")):
                return folder
        except FileNotFoundError:
            pass  # LocalEntryNotFoundError: not cached yet
        _require_network(hub_id)
        folder = Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except ModelError:
        raise
    except Exception as error:  # the client raises a dozen types for "cannot get it"
        raise unfetchable(hub_id, str(error)) from error
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            "this hub repository has no safetensors weights", where=hub_id, why=weight_files.SAFETENSORS_ONLY
        )
    return folder


def json_file(hub_id: str, name: str) -> dict[str, Any] | None:
    """The content of a JSON file of a hub repository; None where it has none of that name.

    Raises:
        ModelError: it is not cached, and the hub cannot be reached or refuses.
    """
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
        raise unfetchable(hub_id, str(error)) from error
    except EntryNotFoundError:
        return None
    except ModelError:
        raise
    except Exception as error:
        raise unfetchable(hub_id, str(error)) from error
    found: dict[str, Any] | None = paths.read_json(Path(cached), Typed)
    return found


def _require_network(hub_id: str) -> None:
    """One request before the hub client's minute of retries."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise unfetchable(hub_id, "HF_HUB_OFFLINE is set and the files are not cached")
    try:
        httpx.head(constants.ENDPOINT, timeout=NETWORK_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise unfetchable(hub_id, f"{constants.ENDPOINT} cannot be reached ({error})") from error


def unfetchable(hub_id: str, reason: str) -> ModelError:
    """The error of a hub model that cannot be had, with the first line of the reason."""
    return ModelError(
        "this model cannot be fetched from the hub",
        where=hub_id,
        why=reason.strip().split("\n")[0],
        next_step="check the name, the network and `hf auth login`, or give a folder that holds the weights",
    )

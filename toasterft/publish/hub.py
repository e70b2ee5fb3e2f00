"""Push a finished export to the hub: private by default, and never over anything. Light."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from toasterft.errors import ModelError, UserError

# What the hub itself puts into a new repository.
INITIAL_FILES = {".gitattributes"}


def require_ready(repo: str) -> None:
    """
    Raises:
        UserError: `repo` is no owner/name, or nobody is logged in.
    """
    from huggingface_hub import constants, get_token

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError("this is no hub repository", where=repo, next_step="--repo owner/name")
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            "the hub is switched off here; nothing was run", why="HF_HUB_OFFLINE is set", next_step="unset it"
        )
    if get_token() is None:
        raise UserError(
            "nobody is logged in to the hub; nothing was run",
            next_step="hf auth login   (or HF_TOKEN) with a token that may write",
        )


def push(folder: Path, repo: str, *, public: bool) -> str:
    """One commit with every file of `folder`: readers see an empty repository or all of it.

    Returns:
        The repository's address.

    Raises:
        ModelError: it holds something already, is public unasked, or the hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        there = api.model_info(repo)
        _require_empty(repo, there, public=public)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Exported by toasterft")
    except ModelError:
        raise
    except Exception as error:  # the client raises a dozen types for "cannot put it there"
        raise ModelError(
            "this export could not be pushed to the hub",
            where=repo,
            why=str(error).strip().split("\n")[0],
            next_step=f"the folder is complete: {folder}; the same command goes on from it",
        ) from error
    return str(made)


def _require_empty(repo: str, there: Any, *, public: bool) -> None:
    files = {file.rfilename for file in there.siblings or ()} - INITIAL_FILES
    if files:
        raise ModelError(
            "this repository holds files already; nothing is overwritten",
            where=repo,
            next_step="--repo another",
        )
    if not there.private and not public:
        raise ModelError(
            "this repository is public; nothing was pushed",
            where=repo,
            next_step="--public, or --repo another",
        )

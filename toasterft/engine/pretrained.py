"""The one door to `from_pretrained`: nothing is loaded unchecked, from a pickle, or with code of its own.

`tests/unit/test_strangers.py` finds any other call in the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.errors import ModelError, needed_by
from toasterft.models import model_files

# Attention too: peers' "auto" picks flash attention where it is installed, and then results differ.
PINNED = {"attn_implementation": "sdpa", "use_safetensors": True, "trust_remote_code": False}


def model(kind: Any, folder: Path, **settings: Any) -> Any:
    """A model by a class's `from_pretrained`, and what else that returns.

    Args:
        settings: the loader's own, such as `dtype`.

    Raises:
        ModelError: the folder is refused, or cannot be loaded.
    """
    model_files.check(folder)
    with model_files.explained(folder):
        if not kind.__module__.startswith("transformers."):
            with needed_by(kind.__module__.partition(".")[0]):
                return kind.from_pretrained(str(folder), **{**PINNED, **settings})
        found, info = kind.from_pretrained(str(folder), **{**PINNED, "output_loading_info": True, **settings})
    if lacking := sorted(info["missing_keys"]):
        raise ModelError(
            f"the weights lack {len(lacking)} tensors of this model, which would be random numbers",
            where=str(folder),
            why=f"{lacking[0]} is not among them",
            next_step="copy the folder anew",
        )
    return found


def part(kind: Any, folder: Path) -> Any:
    """A tokenizer, an image processor or a processor.

    Raises:
        ModelError: the folder is refused, or cannot be loaded.
    """
    model_files.check_settings(folder)
    with model_files.explained(folder):
        return kind.from_pretrained(str(folder), trust_remote_code=False)


def tokenizer(folder: Path) -> Any:
    """A folder's tokenizer alone."""
    from transformers import AutoTokenizer

    return part(AutoTokenizer, folder)


def chat_template(folder: Path, loaded_tokenizer: Any) -> Any:
    """A folder's chat template: a file of its own, else what the tokenizer's settings hold."""
    jinja = folder / "chat_template.jinja"
    try:
        if jinja.is_file():
            return jinja.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the chat template cannot be read ({error})", where=str(jinja)) from None
    template = (paths.read_json(folder / "chat_template.json", model_files.Tokens) or {}).get("chat_template")
    return template if template is not None else loaded_tokenizer.chat_template

"""What of this machine goes with a recipe to a rented one: data, pictures, models, teachers' rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toasterft.data import sources
from toasterft.errors import ModelError, RecipeError
from toasterft.models import lookup
from toasterft.recipe import Section

# What folders on the rented machine are called after.
HOME = "toasterft"


class Uploads:
    """Local files of a recipe, and their places on the rented machine.

    Attributes:
        mounts: local paths by their remote ones.
        base: a local folder of full weights among them.
    """

    def __init__(self) -> None:
        self.mounts: dict[str, Path] = {}
        self.base: Path | None = None

    @property
    def sizes_bytes(self) -> dict[Path, int]:
        return {path: _size_bytes(path) for path in self.mounts.values()}

    def pack(self, wanted: Section) -> dict[str, Any]:
        """The recipe as it will be read there."""
        return self._section(wanted.model_dump(mode="json"))

    def _section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        sent = dict(values)
        for key in ("data", "eval_data"):
            if sent.get(key):
                sent[key] = self._data(str(sent[key]))
        if sent.get("images"):
            sent["images"] = self._put("images", Path(sent["images"]).expanduser())
        for key in ("judge", "refiner"):
            if str(sent.get(key) or "").endswith((".yaml", ".yml")):
                sent[key] = self._put("teachers", Path(sent[key]).expanduser())
        if sent.get("model"):
            sent["model"] = self._model(str(sent["model"]))
        own = [name for name in sent.get("rewards") or {} if ":" in name]
        if own:
            raise RecipeError(
                f"rewards of your own cannot be sent: {', '.join(own)}",
                why="only the recipe, the data and the model go to the rented machine",
            )
        template = (sent.get("prompt") or {}).get("chat_template")
        if template is not None and "{" not in template:
            sent["prompt"] = {**sent["prompt"], "chat_template": Path(template).read_text(encoding="utf-8")}
        if sent.get("stages"):
            sent["stages"] = [self._section(stage) for stage in sent["stages"]]
        return sent

    def _data(self, name: str) -> str:
        here = sources.path_here(name)
        if here is None:
            return name
        if here.is_dir():
            return self._put("data", here)
        # A file's pictures lie beside it.
        return f"{self._put('data', here.parent)}/{here.name}"

    def _model(self, name: str) -> str:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            return name
        adapter_config = folder / "adapter_config.json"
        if not adapter_config.is_file():
            self.base = folder.resolve()
        elif Path(base := lookup.resolve(str(folder), folder.parent).base_name).is_dir():
            raise ModelError(
                "this adapter's base is a folder of this machine, which its name would not find there",
                where=name,
                why=f"it was trained on {base}",
                next_step=f"toasterft export {name} --to merged   and launch with the folder that makes",
            )
        return self._put("model", folder)

    def _put(self, kind: str, path: Path) -> str:
        path = path.resolve()
        taken = [there for there, here in self.mounts.items() if here == path]
        if taken:
            return taken[0]
        there = f"~/{HOME}-{kind}/{path.name}"
        while there in self.mounts:
            there += "_"
        self.mounts[there] = path
        return there


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)

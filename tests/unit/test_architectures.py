"""One architecture is one file: everything else finds it by its `model_type`."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from toasterft import catalog
from toasterft.data.token_stats import RawSizes, Row
from toasterft.engine import Request
from toasterft.errors import ModelError
from toasterft.estimation import Plan, fit
from toasterft.models import architectures, lookup
from toasterft.models.architectures import architecture, supported
from toasterft.recipe import Grpo, Sft

PACKAGE = Path(architectures.__file__).parents[2]
INVENTED = '''
from dataclasses import dataclass

from toasterft.models.architectures.common import Architecture, decoder, siglip
from toasterft.models.geometry import TiledGeometry
from toasterft.models.shape import ModelShape

TOWER = (2, 32, 64, 2, 32, 8)


@dataclass(frozen=True, kw_only=True)
class Halves(TiledGeometry):
    """A left and a right tile, of nine features each."""

    def tiles(self, width_px, height_px):
        return 2

    def feature_tokens(self, width_px, height_px):
        return 18


def read_shape(config, preprocessor):
    text = decoder(config["text_config"], "llama", tied=True)
    vision = siglip({}, TOWER, head=False)
    return ModelShape("halves", text, vision, 100, Halves(tile_px=32, patch_px=8))


ARCHITECTURES = (
    Architecture("halves", read_shape, "model.eye", "model.bridge", "model.mind", "x:X", "y:Y", takes_features=True),
)
'''
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 99,
}


@pytest.fixture
def row(tmp_path, monkeypatch):
    """A family that is one file more, and a catalog row of it."""
    (tmp_path / "halves.py").write_text(INVENTED)
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    supported.cache_clear()
    known = catalog.models()
    model = replace(
        known["SmolVLM-256M"],
        name="Halves-1M",
        hub_id="nobody/halves",
        config={"model_type": "halves", "text_config": TEXT},
        preprocessor={},
    )
    monkeypatch.setattr(catalog, "models", lambda: {**known, model.name: model})
    yield model
    supported.cache_clear()


def test_an_invented_family_needs_one_file_and_one_row(row):
    model = lookup.resolve("Halves-1M", Path("runs"))
    assert model.shape.geometry.tower_patches(640, 480) == 2 * 16
    assert architecture("halves").not_quantised == ["lm_head", "model.eye", "model.bridge"]
    assert Request("nobody/halves", architecture(model.shape.model_type)).family.text == "model.mind"
    sizes = RawSizes({Row(((640, 480),), 20, 30): 40}, {(640, 480): 40}, 40, "counted")
    plan = Plan(model.shape, Sft(), sizes)
    estimate = plan.on(catalog.gpu("A40"), price=None, today=datetime.date(2026, 11, 28))
    # Two tiles of 18 positions in front of the text, and an encoding phase, because it takes features.
    assert plan.stats.row_tokens == 20 + 30 + 18
    assert list(estimate.phase_bytes) == ["encode", "train"]
    assert "rollout" in Plan(model.shape, Grpo(), sizes).phase_bytes(catalog.gpu("A40"))
    assert fit.smaller_models(plan) == []
    assert "Halves-1M" in fit.smaller_models(
        Plan(lookup.resolve("SmolVLM-256M", Path("runs")).shape, Sft(), sizes)
    )


def test_without_its_file_it_is_refused():
    with pytest.raises(ModelError, match="'halves' is not supported"):
        architecture("halves")


def test_no_module_outside_names_a_family():
    names = re.compile("|".join(map(re.escape, supported())))
    inside = PACKAGE / "models" / "architectures"
    found = [
        path
        for path in PACKAGE.rglob("*.py")
        if inside not in path.parents and names.search(path.read_text())
    ]
    assert found == []


def test_every_architecture_has_a_tiny_model_and_a_row():
    assert set(tiny.BUILDERS) == set(supported())
    in_catalog = {model.config["model_type"] for model in catalog.models().values()}
    assert set(supported()) == in_catalog

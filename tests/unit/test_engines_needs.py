"""An engine whose packages are not here says which, and `doctor` too."""

from __future__ import annotations

import importlib.util
from importlib import metadata

import pytest

from toasterft import engine
from toasterft.catalog import hardware
from toasterft.cli import doctor
from toasterft.engine import pretrained
from toasterft.errors import MissingExtra


def test_an_engine_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(engine.ENGINES, "unsloth", "no_triton_here")
    with pytest.raises(MissingExtra) as problem:
        engine.open_engine("unsloth")
    assert "the unsloth engine cannot start" in str(problem.value)
    assert problem.value.why == "No module named 'no_triton_here'"
    assert "pip install no_triton_here" in (problem.value.next_step or "")


def test_a_package_that_a_loader_misses_is_no_fault_of_the_folder(tmp_path, monkeypatch):
    class Loader:
        __module__ = "unsloth.models"

        @staticmethod
        def from_pretrained(*_, **__):
            import no_triton_here  # noqa: F401

    monkeypatch.setattr(pretrained.model_files, "check", lambda folder: None)
    with pytest.raises(MissingExtra, match="unsloth"):
        pretrained.model(Loader, tmp_path)


def test_doctor_names_what_unsloth_lacks(monkeypatch):
    monkeypatch.setattr(hardware, "gpu", lambda: object())
    monkeypatch.setattr(hardware, "has_unsloth", lambda: True)
    monkeypatch.setattr(metadata, "version", lambda name: "2026.10.9")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else object())
    found = doctor._unsloth()
    assert not found.ok
    assert found.found == "2026.10.9, without triton"
    assert "pip install triton" in found.remedy

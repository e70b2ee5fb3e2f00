"""What a DyME run's judge and refiner are expected to cost."""

from __future__ import annotations

import datetime
import json

import pytest

from toasterft import catalog, recipe
from toasterft.catalog import Teacher
from toasterft.data import token_stats
from toasterft.estimation import prices, teachers
from toasterft.estimation.plan import Plan
from toasterft.models.architectures import shape_from_config
from toasterft.recipe import Prompt

TODAY = datetime.date(2026, 11, 21)
PRICE = Teacher("t", 1.0, 10.0, None, "a test", "given", image_tokens=1)


def planned(charts_folder, live_teachers, **settings):
    from toasterft.data import sources

    row = catalog.models()["SmolVLM-256M"]
    wanted = recipe.validate(recipe.Dyme, {"method": "dyme", **settings}, "a test")
    sizes = token_stats.measure(sources.load(str(charts_folder)).examples, Prompt(), None)
    return Plan(shape_from_config(row.config, row.preprocessor), wanted, sizes, live_teachers=live_teachers)


JUDGED = {"judge": "x.yaml", "rewards": {"accuracy": 1.0, "thinking_judge": 1.0}, "max_steps": 10}


def test_the_judge_is_paid_for_every_sample(charts_folder):
    plan = planned(charts_folder, {"judge": PRICE}, **JUDGED)
    found, alone = (
        plan.on(catalog.gpu("A40"), price=0.4, today=TODAY),
        planned(charts_folder, {}, max_steps=10),
    )
    survey_ = plan.stats
    text = survey_.prompt_tokens - survey_.image_tokens
    read = prices.INSTRUCTION_TOKENS + teachers.FACTS_TOKENS + text + 60
    # 10 steps of 4 prompts and 8 samples; a word without thinking, 1,000 tokens of it, and the most allowed.
    for said, written in (
        (found.teachers_usd.low, 1),
        (found.teachers_usd.likely, 1001),
        (found.teachers_usd.high, 1024),
    ):
        assert said == pytest.approx(320 * (read * 1.0 + written * 10.0) / 1e6)
    plain = alone.on(catalog.gpu("A40"), price=0.4, today=TODAY)
    assert plain.teachers_usd is None
    assert found.usd.likely == pytest.approx(plain.usd.likely + found.teachers_usd.likely)
    assert any("judge t: $" in note for note in found.notes)


def test_the_refiner_is_paid_for_what_is_memorised_once(charts_folder):
    few = planned(charts_folder, {"refiner": PRICE}, refiner="x.yaml", max_steps=2)
    many = planned(charts_folder, {"refiner": PRICE}, refiner="x.yaml", max_steps=2000)
    gpu = catalog.gpu("A40")
    short, long = (plan.on(gpu, price=0.4, today=TODAY).teachers_usd for plan in (few, many))
    assert short.low < short.likely < short.high
    # 32 training charts: no run memorises more rows than there are.
    assert long.high / short.high == pytest.approx(few.stats.kept / 8)


def test_a_cap_holds_the_estimate_too(charts_folder):
    plan = planned(charts_folder, {"judge": PRICE}, **JUDGED, teachers_usd=0.05)
    found = plan.on(catalog.gpu("A40"), price=0.4, today=TODAY).teachers_usd
    assert found.likely == found.high == 0.05
    assert plan.on(catalog.gpu("A40"), price=None, today=TODAY).as_json()["teachers_usd"]["high"] == 0.05


def test_a_dry_run_counts_its_aides(run_cli, charts_folder, tiny_model, tmp_path):
    row = {
        "name": "mine",
        "base_url": "http://127.0.0.1:9/v1",
        "input_usd_per_mtok": 1,
        "output_usd_per_mtok": 2,
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(row))
    words = [
        "dyme",
        "--data",
        charts_folder,
        "--gpu",
        "A40",
        "--dry-run",
        "--json",
        f"refiner={tmp_path / 'mine.yaml'}",
    ]
    row = run_cli(*words).json()["rows"][0]
    assert 0 < row["teachers_usd"]["low"] < row["usd"]["low"]
    missing = run_cli(*words[:-1], "refiner=nobody")
    assert missing.code == 2
    assert "nobody" in missing.err

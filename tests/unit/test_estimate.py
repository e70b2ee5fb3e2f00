"""Estimates by hand: tokens of the data, passes, seconds, dollars, the ladder and the budget."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from growth import calls
from PIL import Image

from toasterft import catalog, recipe
from toasterft.catalog import Gpu, hardware
from toasterft.data import sources, token_stats
from toasterft.errors import FitError, UserError
from toasterft.estimation import Plan, Range, fit, memory, passes, plan, prices, seconds, suggest, teachers
from toasterft.estimation.passes import Pass, Sampling
from toasterft.estimation.seconds import LIKELY, SLOW, Speed
from toasterft.jobs import guards, prepare
from toasterft.models.architectures import shape_from_config
from toasterft.recipe import Prompt, Sft

# Reading what a row means, where its picture may lie, and its header; 700 where this was written.
MOST_CALLS_AN_IMAGE = 800
TODAY = datetime.date(2026, 11, 21)


def shape(name="SmolVLM-256M"):
    row = catalog.models()[name]
    return shape_from_config(row.config, row.preprocessor)


def planned(*words, method="sft", model="SmolVLM-256M", data="smolcot-7k", held_out=200):
    wanted = recipe.load(method, None, list(words), {"model": model})
    row = catalog.datasets()[data]
    return Plan(
        shape(model), wanted, token_stats.from_catalog(row, row.rows), token_stats.from_catalog(row, held_out)
    )


def on(plan, gpu="A40", price=None):
    return plan.on(catalog.gpu(gpu), price=price, today=TODAY)


def small(plan, share=0.99):
    """A GPU whose memory is this share of the plan's peak."""
    a40 = catalog.gpu("A40")
    return replace(a40, name="Small", vram_gb=plan.peak_bytes(a40) * share / 1e9)


# --- tokens of the data ----------------------------------------------------------------------


def test_tokens_of_a_chart_by_hand():
    found = planned().stats
    # 800 x 557 grows to 2048 x 1426, which is 4 x 3 tiles of 512, and the whole picture once more: 13.
    # Each has 64 features; 13 + 1 fakes, 13 tags, 3 newlines: 13 * 64 + 14 + 13 + 3 = 862.
    assert (found.tiles, found.feature_tokens, found.image_tokens) == (13, 832, 862)
    # 10 of the template and 16 of the question; 12 of the tags, 45 of the trace and 4 of the answer.
    assert (found.prompt_tokens, found.completion_tokens) == (862 + 26, 61)
    assert (found.longest_tokens, found.longest_prompt_tokens, found.over_max_length) == (949, 888, 0)


@pytest.fixture
def folder(tmp_path):
    """Three questions about two pictures."""
    Image.new("RGB", (800, 557)).save(tmp_path / "a.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "b.png")
    rows = [("a.png", "one two three", "7"), ("a.png", "four", "8"), ("b.png", "five six", "9 9 9")]
    lines = [json.dumps({"image": i, "question": q, "answer": a}) for i, q, a in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_data_is_measured_once_for_every_geometry(folder, monkeypatch):
    examples = sources.load(str(folder)).examples
    sizes = token_stats.measure(examples, Prompt(), count=lambda text: len(text.split()))
    # From here on nothing is opened any more.
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened again"))
    geometry = shape().geometry.with_longest_edge(512)
    found = sizes.at(geometry, max_length=93)
    assert (found.rows, found.images, found.tiles) == (3, 2, 1)
    # One tile: 64 features, two fakes and a tag. Questions of 3, 1 and 2 words after a template of 10.
    assert found.prompt_tokens == pytest.approx(67 + 10 + 2)
    # Answers of 1, 1 and 3 words with tags of 12: rows of 67 + 13 + 13, 67 + 11 + 13 and 67 + 12 + 15.
    assert found.completion_tokens == pytest.approx(12 + 5 / 3)
    assert (found.longest_tokens, found.over_max_length) == (94, 1)
    assert found.images_per_row == 1
    assert sizes.length_of_share(geometry, 2 / 3) == 93
    assert sizes.at(shape().geometry, 2048).tiles == (13 + 17) / 2


def test_thousands_of_images_by_their_headers_and_each_once(tmp_path, monkeypatch):
    base = tmp_path / "base.png"
    Image.effect_noise((800, 557), 50).convert("RGB").save(base)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("pixels were decoded"))

    def measured(count):
        examples = sources.load(str(tmp_path / str(count))).examples
        found = token_stats.measure(examples, Prompt(), None).at(shape().geometry, 2048)
        assert (found.images, found.tiles) == (count, 13)

    for count in (500, 2000):
        (tmp_path / str(count)).mkdir()
        with open(tmp_path / str(count) / "train.jsonl", "w") as file:
            for number in range(count):
                os.link(base, tmp_path / str(count) / f"{number}.png")
                row = {"image": f"{number}.png", "question": f"What is bar {number}?", "answer": str(number)}
                file.write(json.dumps(row) + "\n")
    few, many = calls(lambda: measured(500)), calls(lambda: measured(2000))
    assert many < 4.1 * few
    assert many < 2000 * MOST_CALLS_AN_IMAGE


def test_the_models_own_tokenizer_counts(shared):
    count = token_stats.token_counter(shared / "smolvlm-256m")
    assert count("What is the value?") == 5
    assert token_stats.token_counter(Path("/nowhere")) is None


# --- passes ----------------------------------------------------------------------------------


def test_passes_of_sft():
    found = passes.of(shape(), planned().stats, planned().recipe)
    # 7,000 rows by 32 are 218.75 steps; the last one is smaller.
    assert (found.optimizer_steps, found.passes, found.mean.tokens) == (219, 7000, 949)
    assert found.mean.head_tokens == 61
    in_fours = planned("per_device_train_batch_size=4", "num_train_epochs=2")
    found = passes.of(shape(), in_fours.stats, in_fours.recipe)
    # 1,750 batches by 32 are 55 steps an epoch.
    assert (found.optimizer_steps, found.passes, found.mean.tokens) == (110, 3500, 4 * 949)
    few = planned("max_steps=10", "per_device_train_batch_size=4")
    assert passes.of(shape(), few.stats, few.recipe).passes == 10 * 32


def test_rows_about_one_image_are_counted_together():
    apart = planned()
    asked = replace(apart, sizes=replace(apart.sizes, sharing=((10, 700),), _known={}))
    stats = asked.stats
    mean, most = passes.rows_per_tree(shape(), stats, asked.recipe)
    # Four readings for 32 rows: one of the tens is always cut.
    assert (mean, most) == (8, 10)
    found = passes.of(shape(), stats, asked.recipe)
    assert (found.optimizer_steps, found.passes) == (219, 7000 / mean)
    own = 949 - stats.image_tokens
    assert found.mean.tokens == pytest.approx(stats.image_tokens + mean * own)
    assert found.mean.head_tokens == pytest.approx(mean * 61)
    assert found.longest.completion_tokens == 10 * own
    pairs = passes.of(shape(), stats, planned(method="dpo").recipe)
    assert pairs.mean.tokens > found.mean.tokens
    seconds_of = [on(each).phase_seconds["train"].likely for each in (asked, apart)]
    assert seconds_of[0] < seconds_of[1] / 4
    assert any("100% of the rows share their images" in note for note in on(asked).notes)
    assert fit.smaller(asked.recipe)["branches_per_forward"] == 2
    one = asked.changed({"branches_per_forward": 1})
    assert on(one).phase_seconds["train"] == on(apart).phase_seconds["train"]
    ways = fit.ways(asked, small(asked, 0.5))
    assert any(way.changes.get("branches_per_forward") == 2 for way in ways)


def test_passes_of_a_policy():
    asked = planned("num_iterations=2", "limit=500", method="grpo")
    found = passes.of(shape(), asked.stats, asked.recipe)
    # 8 x 4 completions a step are 4 groups of 8; 500 prompts are 125 batches, each used twice.
    assert found.optimizer_steps == 250
    # One group a pass; the old log-probabilities are one more pass per batch and group.
    assert (found.passes, found.scoring) == (1000, 500)
    assert found.rollouts == Sampling(4000, 32, 32, 8)
    # The prompt of 888 once, and eight answers of 61.
    assert found.mean.tokens == 888 + 8 * 61
    # Bare answers of 16 tokens say nothing of how long a model reasons about them.
    bare = planned(method="grpo", data="chartqa")
    assert passes.of(shape(), bare.stats, bare.recipe).mean.completion_tokens == passes.SAMPLED_TOKENS
    # Other families run each completion with its own prompt.
    apart = passes.of(shape("LLaVA-OneVision-0.5B"), asked.stats, asked.recipe)
    assert apart.mean.tokens == 8 * (888 + 61)


def test_pairs_of_a_packed_group():
    # A prompt of 4 sees 4²/2 = 8 pairs; each of 2 branches of 3 sees 3 x 4 and 3²/2 = 4.5 more.
    assert Pass(1, 2, 4, 3).pairs == 8 + 2 * (12 + 4.5)
    # Alone it is a plain causal row: (4 + 3)²/2.
    assert Pass(1, 1, 4, 3).pairs == 49 / 2


# --- seconds ---------------------------------------------------------------------------------

ROUND = Gpu("Round", 24, True, 8.0, half_tflops=100, bandwidth_gb_s=1000, source="for sums by hand")


def test_flops_of_the_tower_by_hand():
    # One tile of 1,024 patches: two per weight, and 12 layers of 1,024² pairs twice over 768.
    tower = 2 * 1024 * shape().vision_params + 4 * 1024**2 * 768 * 12
    assert seconds.encode_flops(shape(), 1024, 1) == tower + 2 * 7_077_888
    assert tower == pytest.approx(0.2157e12, rel=1e-3)


def test_encoding_is_as_slow_as_the_slower_of_cpu_and_gpu():
    each = Speed(shape(), planned().recipe, ROUND, LIKELY).image(planned().stats)
    # 13 tiles of 512² are 3.41 Mpx at 0.08 s; 13 x 0.2157 TFLOP at 35 TFLOP/s.
    assert each.cpu == pytest.approx(13 * 512**2 / 1e6 * 0.08)
    assert each.gpu == pytest.approx(13 * 0.2157 / 35, rel=1e-3)
    assert each.ahead == each.cpu / 2
    fast_cpu = replace(each, cpu=0.01)
    assert fast_cpu.ahead == each.gpu


def test_a_training_pass_is_work_or_launches(monkeypatch):
    asked = planned().recipe
    speed = Speed(shape(), asked, ROUND, LIKELY)
    one = Pass(1, 1, 888, 61)
    # 30 layers three times (forward, again, backward) at 1.2 ms: the GPU waits for Python.
    assert speed.training_pass(asked, one) == pytest.approx(90 * 1.2e-3)
    monkeypatch.setattr(seconds, "LAYER_SECONDS", (0, 0, 0))
    linears, adapter, head = 106_168_320, memory.trainable_params(shape(), Sft()), 49280 * 576
    attention = 4 * 30 * 9 * 64 * 949**2 / 2
    flops = 3 * (2 * (linears + adapter) * 949 + attention) + 2 * adapter * 949 + 3 * 2 * head * 61
    # Each of the three unpacks NF4: 0.516 bytes in, 2 out, 2 in again.
    unpacked = 3 * linears * (seconds.NF4_BYTES + 4)
    by_hand = flops / (100e12 * 0.25) + unpacked / (1000e9 * 0.7)
    assert speed.training_pass(asked, one) == pytest.approx(by_hand)


def test_decoding_reads_weights_and_cache_for_every_token(monkeypatch):
    monkeypatch.setattr(seconds, "LAYER_SECONDS", (0, 0, 0))
    asked = planned("load_in_4bit=false", "max_completion_length=100").recipe
    taken = Speed(shape(), asked, ROUND, LIKELY).sampling(Sampling(8, 8, 8), 888, 61)
    # Likely, the last row goes on until twice the mean, here cut at the limit of 100.
    cache = 8 * (888 + 61 / 2) * (2 * 30 * 3 * 64 * 2)
    weights = 2 * 106_168_320 + 2 * 49280 * 576
    adapter = memory.trainable_params(shape(), Sft())
    per_token = 2 * (106_168_320 + adapter) + 4 * 30 * 9 * 64 * 888 + 2 * 49280 * 576
    step = (cache + weights) / (1000e9 * 0.7) + 8 * per_token / (100e12 * 0.35)
    prefill = 8 * (2 * (106_168_320 + adapter) * 888 + 4 * 30 * 9 * 64 * 888**2 / 2) / (100e12 * 0.35)
    prefill += 8 * 2 * 106_168_320 / (1000e9 * 0.7)
    assert taken == pytest.approx(prefill + 100 * step)
    # Sixty-four rows take eight places in turn: 61 steps each, and the longest is waited for once. A group holds
    # its prompt once.
    more = Speed(shape(), asked, ROUND, LIKELY).sampling(Sampling(64, 8, 64, 8), 888, 61)
    step -= 7 * 888 * (2 * 30 * 3 * 64 * 2) / (1000e9 * 0.7)
    assert more == pytest.approx(prefill + (8 * 61 + 39) * step)
    # One row alone reads packed weights; more rows unpack them first.
    packed = Speed(shape(), planned().recipe, ROUND, LIKELY)
    assert packed.weight_bytes(one_row=True) == pytest.approx(106_168_320 * 0.516, rel=1e-3)
    assert packed.weight_bytes() == pytest.approx(106_168_320 * 4.516, rel=1e-3)


def test_what_sets_the_pace_is_named():
    assert on(planned(), "A40").pace == {"encode": "cpu", "train": "launches"}
    assert on(planned("per_device_train_batch_size=16"), "A40").pace["train"] == "gpu"
    assert on(planned(model="Qwen2.5-VL-3B"), "A40").pace == {"encode": "gpu", "train": "gpu"}
    assert on(planned(), "RTX3060").pace["encode"] == "gpu"


def test_a_slow_start_is_a_slow_everything():
    found = on(planned())
    assert list(found.phase_seconds) == ["start", "encode", "train", "evaluate"]
    for each in (found.seconds, *found.phase_seconds.values()):
        assert 0 < each.low < each.likely < each.high
    assert found.seconds == Range.sum(found.phase_seconds.values())
    assert found.phase_seconds["start"].high == seconds.START_SECONDS[SLOW]


# --- bytes -----------------------------------------------------------------------------------


def test_the_peak_is_the_largest_phase_and_named():
    found = on(planned("num_iterations=2", method="grpo"))
    assert set(found.phase_bytes) == {"encode", "rollout", "train", "evaluate"}
    peaks = {}
    for name, items in found.phase_bytes.items():
        parts = sum(value for key, value in items.items() if key != "peak")
        peaks[name] = items["peak"]
        assert parts == items["peak"]
    assert found.peak_bytes == max(peaks.values()) == peaks[found.phase]
    assert found.vram_bytes == found.phase_bytes[found.phase]
    assert on(planned(held_out=200)).phase_bytes["evaluate"]["peak"] < peaks["rollout"]


def test_an_evaluation_has_a_plan_too():
    wanted = recipe.load("eval", None, [], {"model": "SmolVLM-256M", "data": "chartqa"})
    row = catalog.datasets()["chartqa"]
    sizes = token_stats.from_catalog(row, 2500)
    four, sixteen = (
        on(Plan(shape(), wanted.model_copy(update={"load_in_4bit": held}), sizes)) for held in (True, False)
    )
    assert list(sixteen.phase_seconds) == ["start", "encode", "evaluate"]
    assert four.phase_bytes["evaluate"]["weights"] < sixteen.phase_bytes["evaluate"]["weights"]
    assert sixteen.optimizer_steps == 0


# --- what an estimate reacts to --------------------------------------------------------------


def likely(word, *others, phase="train", method="sft", model="SmolVLM-256M"):
    """Likely seconds of a phase with one more word, over those without it."""
    before, after = (on(planned(*words, method=method, model=model)) for words in (others, (*others, word)))
    return after.phase_seconds[phase].likely / before.phase_seconds[phase].likely


def memory_of(word, *others, phase="train", method="sft"):
    before, after = (on(planned(*words, method=method)) for words in (others, (*others, word)))
    return after.phase_bytes[phase]["peak"] / before.phase_bytes[phase]["peak"]


def test_seconds_react_to_the_recipe():
    assert likely("num_train_epochs=2") == pytest.approx(2)
    assert likely("max_steps=438") == pytest.approx(438 * 32 / 7000)
    # Launch-bound at one row a pass: more rows cost nothing until the GPU is busy.
    assert likely("per_device_train_batch_size=2") == pytest.approx(0.5, rel=0.02)
    assert likely("gradient_checkpointing=false") == pytest.approx(2 / 3)
    busy = ("per_device_train_batch_size=32",)
    assert likely("lora.r=256", *busy) > 1.1
    assert likely("load_in_4bit=false", *busy) < 1
    assert likely("dtype=float32", *busy) > 4
    assert likely("image_longest_edge=512", *busy) < 0.3
    assert likely("limit=700") == pytest.approx(0.1)
    assert likely("train_vision=true") > 3
    assert likely("cache_limit_gb=0") > 2
    assert likely("image_longest_edge=1024", phase="encode") == pytest.approx(5 / 13)
    assert likely("limit=700", phase="encode") == pytest.approx(900 / 7200)
    assert likely("per_device_eval_batch_size=1", phase="evaluate") > 4
    assert likely("max_completion_length=30", phase="evaluate") < 0.6
    assert likely("eval_steps=20", phase="evaluate") > 1.05
    # Every prompt of an epoch is answered twice as often, and read once as before.
    assert likely("num_generations=16", phase="rollout", method="grpo") == pytest.approx(2, rel=0.05)
    assert likely("num_iterations=2", phase="train", method="grpo") > 1.9
    assert likely("beta=0.04", phase="train", method="grpo") > 1.2
    assert likely("branches_per_forward=2", phase="train", method="grpo") > 2
    assert likely("rollout_batch_size=8", phase="rollout", method="grpo") > 2
    assert likely("image_longest_edge=512", model="Qwen2.5-VL-3B") < 1


def test_bytes_react_to_the_recipe():
    assert memory_of("per_device_train_batch_size=8") > 1.2
    assert memory_of("gradient_checkpointing=false", "per_device_train_batch_size=8") > 1.5
    assert memory_of("lora.r=128") > 1.1
    assert memory_of("load_in_4bit=false") > 1.05
    assert memory_of("optim=adamw_torch", "lora.r=128") > 1
    assert memory_of("image_longest_edge=512", "per_device_train_batch_size=8") < 0.9
    assert memory_of("encode_batch_size=64", phase="encode") > 1.5
    assert memory_of("per_device_eval_batch_size=64", phase="evaluate") > 1.5
    assert memory_of("max_completion_length=2048", phase="evaluate") > 1.1
    many = "gradient_accumulation_steps=32"
    assert memory_of("rollout_batch_size=256", many, phase="rollout", method="grpo") > 2
    # No more than a step's completions are written side by side.
    assert memory_of("rollout_batch_size=256", phase="rollout", method="grpo") == 1


def test_disk_reacts_to_the_recipe():
    found = on(planned())
    # 7,200 pictures of 832 positions of 576 values in 16 bit.
    assert found.disk_bytes["feature_cache"] == 7200 * 832 * 576 * 2
    assert on(planned("cache_limit_gb=2")).disk_bytes["feature_cache"] == 2_000_000_000
    assert on(planned("train_vision=true")).disk_bytes["feature_cache"] == 0


# --- dollars ---------------------------------------------------------------------------------


def test_dollars_are_hours_times_a_dated_price():
    found = on(planned(), "A40")
    assert found.usd.likely == found.seconds.likely / 3600 * 0.44
    assert (found.price["as_of"], found.price_flag) == (datetime.date(2026, 8, 19), "94 days old")
    assert any("94 days old" in note for note in found.notes)
    assert on(planned(), "L40S").price_flag is None
    assert on(planned(), "T4").price_flag == "undated"
    given = on(planned(), "A40", price=1.0)
    assert given.usd.high == given.seconds.high / 3600
    assert given.price == {"usd_per_hour": 1.0, "source": "--price", "as_of": None}
    assert (given.price_flag, given.notes) == (None, ())
    nothing = on(planned(), "RTX3060")
    assert (nothing.usd, nothing.price) == (None, None)


def test_colab_costs_compute_units():
    found = on(planned(), "Colab-T4")
    assert found.usd == Range(0, 0, 0)
    assert found.compute_units.likely == pytest.approx(found.seconds.likely / 3600 * 1.2)
    assert on(planned(), "A40").compute_units is None


def test_a_gpu_without_bfloat16_is_named():
    (note, *_) = on(planned(), "T4").notes
    assert note == "T4 has no bfloat16: this runs in float16 with a gradient scaler"
    assert "would emulate it" in on(planned("dtype=bfloat16"), "T4").notes[0]
    assert not any("bfloat16" in note for note in on(planned(), "A40").notes)


def test_a_teachers_bill_by_hand():
    row = replace(catalog.teacher("gemini-3.5-flash-lite"), input_usd_per_mtok=0.3, output_usd_per_mtok=2.5)
    found = prices.of_api(1000, 300, 1120, 60, row)
    # 1,420 tokens in are $0.000426; out: 60, then 60 and 1,000 of thought, then 60 and 6,000.
    assert found.low == pytest.approx(1000 * (0.000426 + 60 * 2.5e-6))
    assert found.likely == pytest.approx(1.15 * 1000 * (0.000426 + 1060 * 2.5e-6))
    assert found.high == pytest.approx(1.5 * 1000 * (0.000426 + 6060 * 2.5e-6))


def test_the_published_bill_lies_in_the_range():
    sizes = token_stats.from_catalog(catalog.datasets()["smolcot-7k"], 7000)
    found = teachers.of_cot(
        sizes, 8000, catalog.teacher("gemini-2.0-flash"), budget_usd=20.48, today=datetime.date(2026, 5, 1)
    )
    assert found.usd.likely < 20.48 < found.usd.high
    assert found.affordable_rows == int(20.48 / (found.usd.likely / 8000))


def test_teachers_have_dates_and_ends():
    row = catalog.teacher("GEMINI-3.8-flash")
    before, after = row.at(datetime.date(2026, 12, 31)), row.at(datetime.date(2027, 1, 1))
    assert (after.input_usd_per_mtok, after.output_usd_per_mtok) == (1.50, 7.50)
    assert before.output_usd_per_mtok == 3.75
    assert row.flag(TODAY) is None
    assert catalog.teacher("gemini-3.1-flash-lite").flag(TODAY) == "190 days old"
    assert catalog.teacher("gemini-2.0-flash").flag(TODAY) == "shut down"
    with pytest.raises(UserError, match=r"did you mean gemini-3.5-flash"):
        catalog.teacher("gemini-3.5-flush")
    for row in catalog.teachers().values():
        assert row.source
        assert (row.image_tokens is None) != (row.tile_tokens is None)


def test_pictures_in_a_teachers_tokens():
    new, old = catalog.teacher("gemini-3.5-flash"), catalog.teacher("gemini-2.5-flash")
    assert new.tokens_of_image(800, 557) == 1120
    # Tiles of two thirds of 557 px, 371: three by two, at 258 each.
    assert old.tokens_of_image(800, 557) == 6 * 258
    assert old.tokens_of_image(384, 200) == 258


# --- all GPUs --------------------------------------------------------------------------------


def test_gpus_are_ranked_by_dollars_and_the_cheapest_that_fits_is_found():
    asked = planned("per_device_train_batch_size=64", "gradient_checkpointing=false")
    rows = plan.ranked(on(asked, name) for name in catalog.gpus())
    priced = [row.usd.likely for row in rows if row.usd is not None]
    assert priced == sorted(priced)
    assert all(row.usd is None for row in rows[len(priced) :])
    assert not all(row.fits for row in rows)
    cheapest = plan.cheapest(rows)
    assert cheapest.fits
    assert all(not row.fits for row in rows[: rows.index(cheapest)])
    easy = [on(planned(), name) for name in catalog.gpus()]
    assert plan.cheapest(easy).gpu == "Colab-T4"
    assert plan.cheapest(easy, rented=True).usd.likely > 0
    assert plan.cheapest([on(planned(), "RTX3060")]) is None


# --- the ladder ------------------------------------------------------------------------------


def total(asked, changes=None):
    wanted = asked.changed(changes or {}).recipe
    return wanted.per_device_train_batch_size * wanted.gradient_accumulation_steps


def test_a_run_that_fits_needs_no_ladder():
    asked = planned()
    assert fit.ways(asked, catalog.gpu("A40")) == []
    assert fit.apply(asked, catalog.gpu("A40"), "lossy") == (asked.recipe, {})


@pytest.mark.parametrize("words", [["per_device_train_batch_size=24", "gradient_accumulation_steps=2"]])
@pytest.mark.parametrize("share", [0.95, 0.5, 0.3])
def test_exact_rungs_keep_batch_times_accumulation(words, share):
    asked = planned(*words, "gradient_checkpointing=false")
    gpu = small(asked, share)
    found = fit.ways(asked, gpu)
    exact = [way for way in found if way.kind == "exact"]
    assert exact
    assert [way.kind for way in found] == sorted(way.kind for way in found)
    for way in exact:
        assert total(asked, way.changes) == 48
        assert set(way.changes) <= {
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "gradient_checkpointing",
            "encode_batch_size",
            "per_device_eval_batch_size",
        }
    for way in found:
        assert way.peak_bytes == asked.changed(way.changes).peak_bytes(gpu)
        assert way.fits == (way.peak_bytes <= gpu.vram_bytes)
        assert way.peak_bytes < asked.peak_bytes(gpu)


def test_the_largest_batch_that_fits_is_offered():
    asked = planned("per_device_train_batch_size=24", "gradient_checkpointing=false", held_out=1)
    twelve = asked.changed({"per_device_train_batch_size": 12, "gradient_accumulation_steps": 64})
    gpu = replace(catalog.gpu("A40"), vram_gb=twelve.peak_bytes(catalog.gpu("A40")) * 1.001 / 1e9)
    (first, second, *_) = fit.ways(asked, gpu)
    assert first.changes == {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 64}
    assert first.words() == "per_device_train_batch_size=12 gradient_accumulation_steps=64"
    assert second.changes == {"gradient_checkpointing": True}


def test_each_phase_has_its_own_rung():
    for phase, word in (
        ("encode", "encode_batch_size"),
        ("evaluate", "per_device_eval_batch_size"),
        ("rollout", "rollout_batch_size"),
    ):
        many = ["gradient_accumulation_steps=64"] if phase == "rollout" else []
        asked = planned(f"{word}=512", *many, method="grpo" if many else "sft", held_out=512)
        assert on(asked).phase == phase
        gpu = small(asked)
        (first, *_) = fit.ways(asked, gpu)
        assert (first.kind, first.changes, first.fits) == ("exact", {word: 256}, True)


def test_groups_stay_whole_on_the_ladder():
    asked = planned("per_device_train_batch_size=16", "gradient_accumulation_steps=3", method="grpo")
    for way in fit.ways(asked, small(asked, 0.1)):
        changed = {**asked.recipe.model_dump(), **way.changes}
        recipe.validate(recipe.Grpo, changed, "the ladder")
        assert way.changes.get("rollout_batch_size", 8) >= 8


def test_lossy_rungs_are_images_length_bits_and_model():
    asked = planned("load_in_4bit=false", model="SmolVLM2-2.2B")
    gpu = small(asked, 0.2)
    lossy = [way for way in fit.ways(asked, gpu) if way.kind == "lossy"]
    keys = [next(iter(way.changes)) for way in lossy]
    assert keys == sorted(keys, key=["image_longest_edge", "max_length", "load_in_4bit", "model"].index)
    models = [way for way in lossy if "model" in way.changes]
    assert models[-1].fits
    # The largest first, and nothing after the first that fits.
    assert not any(way.fits for way in models[:-1])
    assert replace(asked, swappable=False).changed({}).swappable is False
    assert not any("model" in way.changes for way in fit.ways(replace(asked, swappable=False), gpu))
    # 1536 px are four tiles of 384: halves of that, down to one tile.
    assert fit.smaller_edges(asked) == [768, 384]
    assert fit.smaller_edges(planned()) == [1024, 512]
    assert fit.smaller_edges(planned("image_longest_edge=1024")) == [512]
    assert fit.smaller_edges(planned(model="Qwen2.5-VL-3B")) == [512]


def test_what_no_tensor_asks_for_by_hand():
    asked = planned()
    for gpu, besides in ((catalog.gpu("A40"), 500_000_000), (hardware.cpu(), 600_000_000)):
        for items in asked.phase_bytes(gpu).values():
            extra = items.pop("cuda_and_slack")
            assert extra == int(0.10 * sum(items.values())) + besides


@pytest.mark.parametrize(("long", "too_many"), [(500, False), (501, True)])
def test_a_run_may_leave_out_a_twentieth_of_its_samples(long, too_many):
    one, longer = (token_stats.Row((), tokens, 10) for tokens in (50, 1500))
    sizes = token_stats.RawSizes({one: 10_000 - long, longer: long}, {}, 0, "made up")
    assert replace(planned("max_length=100"), sizes=sizes).drops_too_many is too_many


def test_a_lower_max_length_leaves_out_at_most_a_twentieth():
    one, long = (token_stats.Row(((100, 100),), tokens, 10) for tokens in (50, 1500))
    sizes = token_stats.RawSizes({one: 97, long: 3}, {(100, 100): 100}, 0, "made up")
    asked = replace(planned("image_longest_edge=512"), sizes=sizes)
    gpu = small(asked, 0.9)
    (way,) = [way for way in fit.ways(asked, gpu) if "max_length" in way.changes]
    assert way.changes["max_length"] == 67 + 50 + 10
    assert asked.changed(way.changes).stats.over_max_length == 3


def test_apply_takes_what_is_allowed():
    asked = planned("per_device_train_batch_size=24", "gradient_checkpointing=false")
    gpu = small(asked, 0.6)
    assert fit.apply(asked, gpu, "off") == (asked.recipe, {})
    wanted, changes = fit.apply(asked, gpu, "exact")
    assert total(asked, changes) == 24 * 32
    assert replace(asked, recipe=wanted).peak_bytes(gpu) <= gpu.vram_bytes
    assert type(wanted) is type(asked.recipe)
    # Weights of 16 bit that leave no room for anything else: exact changes cannot help.
    asked = planned("load_in_4bit=false", model="SmolVLM2-2.2B")
    gpu = small(asked, 0.6)
    assert fit.apply(asked, gpu, "exact") == (asked.recipe, {})
    wanted, changes = fit.apply(asked, gpu, "lossy")
    assert changes
    changed = asked.changed(changes)
    assert changed.peak_bytes(gpu) <= gpu.vram_bytes
    assert wanted == changed.recipe


# --- the refusal -----------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path):
    def get(*words, gpu=None):
        flags = {"model": "SmolVLM-256M", "data": "chartqa", "gpu": gpu}
        return prepare.prepare_training(recipe.load("sft", None, list(words), flags), tmp_path)

    return get


BIG = ("per_device_train_batch_size=64", "gradient_checkpointing=false", "gradient_accumulation_steps=1")


def present(monkeypatch, name):
    row = catalog.gpu(name)
    found = hardware.Present(name, row.vram_bytes, row.vram_bytes, row.compute_capability, row)
    monkeypatch.setattr(hardware, "gpu", lambda: found)


def test_a_run_that_does_not_fit_this_gpu_is_refused_with_ways_out(prepared, monkeypatch):
    present(monkeypatch, "RTX4060")
    with pytest.raises(FitError) as caught:
        guards.require_ready(prepared(*BIG))
    first, *rest = caught.value.lines()
    assert first.startswith("needs about ")
    assert first.endswith("RTX4060 has 8 GB")
    ways = [line.split() for line in rest if line.strip().startswith(("exact", "lossy"))]
    assert [way[0] for way in ways] == sorted(way[0] for way in ways)
    for way in ways:
        assert way[-1] == "GB"
        assert float(way[-2]) <= 8
    size, accumulation = (int(word.split("=")[1]) for word in ways[0][1:3])
    assert size * accumulation == 64
    assert caught.value.next_step == f"add {' '.join(ways[0][1:3])}"
    assert caught.value.exit_code == 2
    guards.require_ready(prepared())


def test_a_named_gpu_is_refused_only_where_a_gpu_is(prepared, monkeypatch):
    monkeypatch.setattr(hardware, "gpu", lambda: None)
    # A machine without a GPU runs on its CPU, whatever the plan is for.
    guards.require_ready(prepared(*BIG, gpu="RTX4060"))
    guards.require_ready(prepared(*BIG))
    present(monkeypatch, "H200")
    guards.require_ready(prepared(*BIG))
    with pytest.raises(FitError, match="RTX4060 has 8 GB"):
        guards.require_ready(prepared(*BIG, gpu="RTX4060"))
    present(monkeypatch, "RTX4060")
    with pytest.raises(FitError, match="RTX4060 has 8 GB"):
        guards.require_ready(prepared(*BIG, gpu="H200"))


def test_a_refusal_without_a_way_out_says_how_far_off_it_is():
    asked = planned()
    gpu = replace(catalog.gpu("A40"), name="Toaster", vram_gb=0.1)
    found = fit.refusal(asked, gpu)
    assert any("still too much" in line for line in found.lines())
    assert "--gpu all" in found.next_step


# --- the budget ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.9, 0.6])
@pytest.mark.parametrize(
    ("words", "method"),
    [([], "sft"), (["num_train_epochs=3"], "sft"), (["max_steps=500"], "sft"), ([], "grpo")],
)
def test_every_suggestion_is_within_the_budget(words, method, share):
    asked = planned(*words, method=method, model="SmolVLM-500M")
    gpu = catalog.gpu("A40")
    limit = on(asked).usd.likely * share
    found = {each.what: each for each in suggest.within(asked, gpu, limit, price=None, today=TODAY)}
    assert found
    assert set(found) <= {"samples", "epochs", "steps", "images", "model"}
    assert ("steps" in found) == ("max_steps=500" in words)
    for each in found.values():
        assert each.estimate.usd.likely <= limit
        assert each.estimate == on(asked.changed(each.changes))
    # And as little is given up as possible.
    for each in (found[what] for what in ("samples", "steps") if what in found):
        ((key, value),) = each.changes.items()
        assert on(asked.changed({key: value + 1})).usd.likely > limit


def test_a_budget_that_nothing_fits_gets_no_suggestion():
    # Starting alone takes a minute: $0.007 on an A40.
    assert suggest.within(planned(), catalog.gpu("A40"), 0.001, price=None, today=TODAY) == []


def test_a_smaller_model_is_offered_only_if_its_tokens_fit():
    # InternVL makes 3,000 tokens of a large picture; LLaVA-OneVision 7,000.
    asked = planned(model="SmolVLM2-2.2B")
    for name in fit.smaller_models(asked):
        assert not asked.changed({"model": name}).drops_too_many
    assert "SmolVLM-256M" in fit.smaller_models(asked)
    assert fit.smaller_models(planned()) == []

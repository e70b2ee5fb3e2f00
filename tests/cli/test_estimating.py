"""`toasterft estimate …`: every method, every GPU, budgets, teachers; fast, without torch, errors with exit 2."""

from __future__ import annotations

import pytest

from toasterft import recipe
from toasterft.recipe import Trained

METHODS = [name for name, schema in recipe.RECIPES.items() if issubclass(schema, Trained)]
PLAIN = ["--model", "SmolVLM-256M", "--data", "smolcot-7k"]


def test_one_gpu_in_full(run_cli, homes):
    done = run_cli("estimate", "sft", *PLAIN, "--gpu", "A40")
    assert done.code == 0, done.err
    for expected in (
        "estimate sft  SmolVLM-256M on smolcot-7k",
        "7,000 rows, 7,000 images of 13.0 tiles, 6.6 M tokens",
        "949 tokens: 862 image, 26 text, 61 to write; longest 949",
        "219 optimizer steps of 1 × 32 rows; then 200 questions answered",
        "encode",
        "train",
        "evaluate",
        "of 48 GB: fits; peak in",
        "at $0.44/h, RunPod Secure",
        "2026-08-19",
        "unverified on CUDA",
    ):
        assert expected in done.out, done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert not (homes / "runs").exists()


def test_one_gpu_as_json(run_cli):
    found = run_cli("estimate", "sft", *PLAIN, "--gpu", "A40", "--json").json()
    (row,) = found["rows"]
    assert row["gpu"] == "A40"
    assert row["fits"] is True
    assert row["vram_bytes"]["phase"] in row["phase_bytes"]
    assert row["vram_bytes"]["peak"] == max(items["peak"] for items in row["phase_bytes"].values())
    for spread in (row["seconds"], row["usd"], *row["phase_seconds"].values()):
        assert spread["low"] < spread["likely"] < spread["high"]
    assert row["seconds"]["likely"] == pytest.approx(
        sum(spread["likely"] for spread in row["phase_seconds"].values())
    )
    assert row["usd"]["likely"] == row["seconds"]["likely"] / 3600 * 0.44
    assert set(row["price"]) == {"usd_per_hour", "source", "as_of"}
    assert found["total_tokens"] == 7000 * 949
    assert found["over_max_length_share"] == 0
    assert found["budget"] is None
    assert found["ladder"] == []
    assert [edge["image_longest_edge"] for edge in found["image_longest_edges"]] == [512, 1024, 2048]


@pytest.mark.parametrize("method", METHODS)
def test_the_dry_run_uses_the_same_numbers(run_cli, method):
    words = ["--model", "SmolVLM-256M", "--data", "chartqa", "--gpu", "L4", "limit=300", "--json"]
    planned = run_cli(method, *words, "--dry-run").json()
    estimated = run_cli("estimate", method, *words).json()
    assert planned["rows"] == estimated["rows"]
    assert planned["image_longest_edges"] == estimated["image_longest_edges"]
    samples = issubclass(recipe.RECIPES[method], recipe.Policy)
    assert ("rollout" in planned["rows"][0]["phase_seconds"]) == samples


def test_all_gpus_are_sorted_and_the_cheapest_fit_is_marked(run_cli):
    words = [*PLAIN, "--gpu", "all", "per_device_train_batch_size=64", "gradient_checkpointing=false"]
    found = run_cli("estimate", "sft", *words, "--json").json()
    usd = [row["usd"]["likely"] for row in found["rows"] if row["usd"]]
    assert usd == sorted(usd)
    assert {row["gpu"] for row in found["rows"]} >= {"T4", "Colab-T4", "A40", "H200", "RTX3060"}
    fitting = [row["gpu"] for row in found["rows"] if row["fits"] and row["usd"]]
    assert found["cheapest_fit"] == fitting[0]
    assert len(fitting) < len(usd)
    shown = run_cli("estimate", "sft", *words).out
    marked = [line for line in shown.splitlines() if line.strip().startswith("▸")]
    assert fitting[0] in marked[0]
    assert marked[1].startswith(f"▸ cheapest that fits: {fitting[0]}, $")
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


def test_prices_bf16_and_colab_are_footnoted(run_cli):
    shown = run_cli("estimate", "sft", *PLAIN, "gpu=ALL").out
    lines = {line.replace("▸", " ").split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "0.40†" in lines["T4*"]  # undated
    assert lines["L40S"].rstrip().endswith("1.09")  # dated this autumn
    assert "* no bfloat16: runs in float16" in shown
    assert "† price undated or over 90 days old" in shown
    assert "compute units on a paid plan" in " ".join(shown.split())
    assert "cheapest rented" in shown
    own = run_cli("estimate", "sft", *PLAIN, "--gpu", "all", "--price", "2", "--json").json()
    assert {row["price"]["usd_per_hour"] for row in own["rows"]} == {2.0}
    assert not any(row["price_flag"] for row in own["rows"])


def test_t4_trains_in_float16_and_says_so(run_cli):
    assert "! T4 has no bfloat16: this runs in float16" in run_cli("estimate", "sft", "--gpu", "T4").out
    colab = run_cli("estimate", "sft", "--gpu", "colab-t4")
    assert "dollars  $0.00" in colab.out
    assert "on a paid plan" in colab.out


def test_clip_low_is_estimated_as_it_runs(run_cli):
    words = ["--data", "chartqa", "--limit", "300", "--json"]
    preset = run_cli("estimate", "grpo", *words, "--clip-low").json()
    spelled = run_cli(
        "estimate", "grpo", *words, "epsilon=0.2", "epsilon_high=0.1", "num_iterations=2"
    ).json()
    assert preset == spelled
    assert run_cli("estimate", "sft", "--clip-low").code == 2


def test_a_run_that_does_not_fit_is_shown_with_ways_out(run_cli):
    words = [*PLAIN, "--gpu", "RTX4060", "per_device_train_batch_size=64", "gradient_checkpointing=false"]
    done = run_cli("estimate", "sft", *words)
    assert done.code == 0
    assert "of 8 GB: does not fit; peak in train" in done.out
    assert "does not fit RTX4060" in done.out
    ways = run_cli("estimate", "sft", *words, "--json").json()["ladder"]
    assert {way["kind"] for way in ways} == {"exact", "lossy"}
    for way in ways:
        if "gradient_accumulation_steps" in way["changes"]:
            changes = way["changes"]
            assert changes["per_device_train_batch_size"] * changes["gradient_accumulation_steps"] == 64 * 32


def test_a_budget(run_cli):
    enough = run_cli("estimate", "sft", *PLAIN, "--gpu", "A40", "--budget", "5")
    assert "within the budget of $5.00 on A40" in enough.out
    words = ["estimate", "sft", "--model", "SmolVLM-500M", "--data", "smolcot-7k", "--gpu", "A40"]
    usd = run_cli(*words, "--json").json()["rows"][0]["usd"]["likely"]
    over = run_cli(*words, "--budget", f"{usd * 0.8:.3f}")
    assert "over the budget" in over.out
    assert "limit=" in over.out
    assert "image_longest_edge=" in over.out
    found = run_cli(*words, "--budget", f"{usd * 0.8:.3f}", "--json").json()["budget"]
    assert found["within"] is False
    for offer in found["suggestions"]:
        assert offer["estimate"]["usd"]["likely"] <= usd * 0.8
        # What is offered can be typed, and then costs what was said.
        typed = [f"{key}={value}" for key, value in offer["changes"].items()]
        again = run_cli(*words, *typed, "--json").json()["rows"][0]
        if "model" not in offer["changes"]:
            assert again["usd"] == pytest.approx(offer["estimate"]["usd"], rel=1e-6)


def test_a_budget_over_all_gpus(run_cli):
    found = run_cli("estimate", "sft", *PLAIN, "--gpu", "all", "--budget", "1", "--json").json()
    assert found["budget"]["gpu"] == found["cheapest_fit"]
    assert found["budget"]["within"] is True


def test_the_data_itself_is_counted(run_cli, tiny_model, charts_folder):
    words = ["--model", tiny_model(), "--data", charts_folder, "--json"]
    found = run_cli("estimate", "sft", *words).json()
    assert (found["survey"]["rows"], found["survey"]["images"]) == (32, 32)
    assert found["survey"]["provenance"] == "counted on the data"
    # One row a step of 32, and the validation split at the end.
    assert found["rows"][0]["optimizer_steps"] == 1
    assert "evaluate" in found["rows"][0]["phase_seconds"]
    limited = run_cli("estimate", "sft", *words, "--limit", "8").json()
    assert limited["survey"]["rows"] == 8
    own = run_cli("estimate", "eval", *words).json()
    assert list(own["rows"][0]["phase_seconds"]) == ["start", "encode", "evaluate"]
    assert own["survey"]["rows"] == 4


def test_data_without_a_validation_split_is_not_evaluated(run_cli, tiny_model, charts_folder):
    words = ["--model", tiny_model(), "--data", charts_folder / "train.jsonl"]
    assert "evaluate" not in run_cli("estimate", "sft", *words, "--json").json()["rows"][0]["phase_seconds"]
    assert "nothing evaluated" in run_cli("estimate", "sft", *words).out


def test_an_evaluation(run_cli):
    found = run_cli("estimate", "eval", "--model", "SmolVLM-256M", "--data", "chartqa", "--json").json()
    assert found["survey"]["rows"] == 2500
    assert found["recipe"]["load_in_4bit"] is False
    assert run_cli("estimate", "eval", "--gpu", "all", "--limit", "10").code == 0


def test_a_teachers_bill(run_cli):
    words = ["estimate", "cot", "--data", "smolcot-7k"]
    found = run_cli(*words, "--rows", "1000", "--budget", "2", "--json").json()
    usable = [row for row in found["teachers"] if row["usable"]]
    assert [row["usd"]["likely"] for row in usable] == sorted(row["usd"]["likely"] for row in usable)
    assert found["teachers"][: len(usable)] == usable
    one = usable[0]
    assert one["affordable_rows"] == int(2 / (one["usd"]["likely"] / 1000))
    assert one["batch_usd"]["likely"] == one["usd"]["likely"] / 2
    assert one["price"]["source"]
    shown = run_cli(*words, "--budget", "2").out
    assert "7,000 traces for smolcot-7k" in shown
    assert "! † gemini-2.0-flash: shut down" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    (only,) = run_cli(*words, "--teacher", "gemini-3.5-flash", "--json").json()["teachers"]
    assert only["teacher"] == "gemini-3.5-flash"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sft", "--gpu", "A41"], "did you mean A40"),
        (["sft", "--model", "SmolVLM-265M"], "did you mean SmolVLM-256M"),
        (["sft", "--data", "gone.jsonl"], "no such data"),
        (["sft", "lora.rnk=3"], "did you mean lora.r?"),
        (["sft", "max_length=500"], "7000 of 7000 samples are longer than max_length=500"),
        (["sft", "--gpu", "RTX3060", "--budget", "1"], "no price known for RTX3060"),
        (["sft", "eval_data=gone.jsonl"], "no such data"),
        (["eval", "--model", "gone"], "no such model"),
        (["cot", "--data", "smolcot-7k", "--teacher", "gemini-9"], "no price known for the teacher"),
        (["cot", "--data", "gone"], "no such data"),
        (["cot"], "Missing option"),
        (["pretrain"], "No such command"),
        (["sft", "--budget", "-1"], "Invalid value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_exit_with_2(run_cli, words, says, tmp_path):
    done = run_cli("estimate", *words)
    assert done.code == 2, done.out
    assert says in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_plan_is_replayed_on_the_meta_device(run_cli, tiny_model, charts_folder):
    done = run_cli(
        "estimate", "grpo", "--model", tiny_model(), "--data", charts_folder, "--simulate", "--json",
        "per_device_train_batch_size=8", "num_generations=4", "max_completion_length=64",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json()["simulated"]
    assert set(found) == {"encode", "train", "rollout"}
    for phase in ("train", "rollout"):
        assert found[phase]["closed_form_bytes"] == pytest.approx(found[phase]["simulated_bytes"], rel=0.25)
    assert (
        run_cli("estimate", "eval", "--model", tiny_model(), "--data", charts_folder, "--simulate").code == 2
    )


def test_a_pipeline_is_the_sum_of_its_stages(run_cli, tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(
        "method: train\nmodel: SmolVLM-256M\ndata: smolcot-7k\nstages:\n"
        "  - {method: sft, max_steps: 50}\n  - {method: grpo, max_steps: 20, learning_rate: 1.0e-5}\n"
    )
    [row] = run_cli("estimate", "train", file, "--gpu", "A40", "--json").json()["rows"]
    sft, grpo = (
        run_cli(
            "estimate", method, "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40", "--json",
            f"max_steps={steps}",
        ).json()["rows"][0]
        for method, steps in (("sft", 50), ("grpo", 20))
    )  # fmt: skip
    assert row["seconds"]["likely"] == pytest.approx(sft["seconds"]["likely"] + grpo["seconds"]["likely"])
    assert row["usd"]["likely"] == pytest.approx(sft["usd"]["likely"] + grpo["usd"]["likely"])
    assert row["vram_bytes"]["peak"] == max(sft["vram_bytes"]["peak"], grpo["vram_bytes"]["peak"])
    assert list(row["phase_seconds"]) == ["1 sft", "2 grpo"]
    shown = run_cli("estimate", "train", file, "--gpu", "all", "--budget", "100")
    assert shown.code == 0, shown.err
    assert "within the budget of $100" in " ".join(shown.out.split())
    assert "cheapest that fits" in shown.out

"""export: merged weights equal base and adapter, the folder is the base's but for them, nothing is half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import fake_hub
import peft
import pytest
import safetensors.torch
import torch
import transformers
import yaml
from PIL import Image

from toasterft import Recipe, paths, train
from toasterft.runs import run_folder

SETTINGS = dict(
    max_steps=3, per_device_train_batch_size=4, gradient_accumulation_steps=1, max_completion_length=8,
    eval_limit=4, learning_rate=3e-2, max_length=4000, lora={"r": 4},
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_model, charts_folder, tmp_path_factory):
    """Runs of tiny models, each trained once: `trained("idefics3", prompt={…})` is its folder."""
    root = tmp_path_factory.mktemp("trained")
    made: dict[str, Path] = {}

    def get(model_type: str = "idefics3", **settings) -> Path:
        key = f"{model_type} {settings}"
        if key not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TOASTERFT_CACHE", str(root / "cache"))
                asked = {**SETTINGS, "model": tiny_model(model_type), "data": charts_folder, **settings}
                folder = root / f"{model_type}-{len(made)}"
                made[key] = train(Recipe("sft", **asked), price=0.44, out=folder, quiet=True).path
        return made[key]

    return get


@pytest.fixture
def run(trained, homes) -> Path:
    """A run of its own for each test, below TOASTERFT_RUNS."""
    return Path(shutil.copytree(trained(), homes / "runs" / "mine"))


@pytest.fixture
def picture(charts_folder) -> Path:
    return next((charts_folder / "images").glob("*.png"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def logits(model, folder: Path, picture: Path) -> torch.Tensor:
    """The next token's logits, by transformers alone but for the image processor that needs no torchvision."""
    from toasterft.engine import processors
    from toasterft.models.architectures import architecture

    processor = processors.load(str(folder), architecture(model.config.model_type), None)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which is high?"}]}]
    template = {"chat_template": processor.chat_template, "add_generation_prompt": True, "tokenize": False}
    text = processor.tokenizer.apply_chat_template(messages, **template)
    batch = processor(images=[[Image.open(picture).convert("RGB")]], text=[text], return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits[0, -1]


@pytest.mark.parametrize("model_type", ["idefics3", "smolvlm", "qwen2_5_vl", "internvl", "llava_onevision"])
def test_merged_weights_answer_as_base_and_adapter(trained, run_cli, tiny_model, picture, homes, model_type):
    folder, out, base = trained(model_type), homes / "merged", tiny_model(model_type)
    done = run_cli("export", folder, "--out", out, "--dtype", "float32", "--json")
    assert done.code == 0, done.err
    assert done.json()["export"]["check"]["largest_difference"] < 1e-5
    load = transformers.AutoModelForImageTextToText.from_pretrained
    adapted = peft.PeftModel.from_pretrained(load(base, dtype=torch.float32), folder)
    expected, bare = logits(adapted, out, picture), logits(load(base, dtype=torch.float32), base, picture)
    found = logits(load(out, dtype=torch.float32), out, picture)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, bare, atol=1e-2), "the adapter learned nothing: this proves nothing"
    old, new = weights(base), weights(out)
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert all("_proj" in name for name in changed)


def test_a_merge_is_16_bit_and_rounded_once(run, run_cli, tiny_model):
    done = run_cli("export", "mine")
    assert done.code == 0, done.err
    assert "bfloat16" in done.out
    new = weights(run.parent / "mine-merged")
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    assert json.loads((run.parent / "mine-merged" / "config.json").read_text())["dtype"] == "bfloat16"
    state = safetensors.torch.load_file(run / "adapter_model.safetensors")
    a, b = (
        next(value for name, value in state.items() if f"layers.1.mlp.down_proj.lora_{x}" in name)
        for x in "AB"
    )
    place = "model.text_model.layers.1.mlp.down_proj.weight"
    config = json.loads((run / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    assert torch.equal(new[place], (weights(tiny_model())[place] + scale * b @ a).to(torch.bfloat16))


def test_an_adapted_connector_is_merged_too(trained, run_cli, tiny_model, picture, homes):
    folder = trained("idefics3", train_connector=True)
    assert run_cli("export", folder, "--out", homes / "out", "--dtype", "float32").code == 0
    place = "model.connector.modality_projection.proj.weight"
    assert not torch.equal(weights(homes / "out")[place], weights(tiny_model())[place])
    load = transformers.AutoModelForImageTextToText.from_pretrained
    adapted = peft.PeftModel.from_pretrained(load(tiny_model(), dtype=torch.float32), folder)
    found = logits(load(homes / "out", dtype=torch.float32), homes / "out", picture)
    assert torch.allclose(found, logits(adapted, homes / "out", picture), atol=1e-4)


def test_a_fully_tuned_run_becomes_16_bit(trained, run_cli, homes, picture):
    folder = trained("idefics3", lora=None, load_in_4bit=False, learning_rate=1e-3)
    assert run_cli("export", folder, "--out", homes / "out").code == 0
    old, new = weights(folder), weights(homes / "out")
    assert all(torch.equal(old[name].to(torch.bfloat16), new[name]) for name in old)
    assert not (homes / "out" / "run.json").exists()
    assert run_cli("ask", homes / "out", picture, "Which?", "max_completion_length=2").code == 0


def test_prompts_and_image_size_travel(trained, run_cli, charts_folder, homes, picture):
    template = homes / "mine.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}> {% for c in m.content %}"
        "{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}<end_of_utterance>{% endfor %}"
        "{% if add_generation_prompt %}assistant> {% endif %}"
    )
    prompt = {"think_tag": "why", "answer_tag": "so", "system": "Be brief.", "chat_template": str(template)}
    folder = trained("idefics3", prompt=prompt, image_longest_edge=32)
    merged = homes / "merged"
    assert run_cli("export", folder, "--out", merged, "--dtype", "float32").code == 0
    template.unlink()  # the path means nothing elsewhere

    def answers(model, name, *words):
        more = ["max_completion_length=12", "dtype=float32", "--out", homes / name, "--json", *words]
        done = run_cli("eval", model, "--data", charts_folder, *more)
        assert done.code == 0, done.err
        rows = map(json.loads, (homes / name / "samples.jsonl").read_text().splitlines())
        return [(row["text"], row["completion_tokens"]) for row in rows]

    kept = answers(merged, "export")
    source = Path(shutil.copytree(folder, homes / "source"))
    notes = json.loads((merged / "toasterft.json").read_text())
    paths.write_json(source / "toasterft.json", {**notes, "load_in_4bit": False})
    assert kept == answers(source, "run")
    assert notes["prompt"]["answer_tag"] == "so"
    assert "assistant> " in (merged / "chat_template.jinja").read_text()
    assert json.loads((merged / "preprocessor_config.json").read_text())["size"] == {"longest_edge": 32}
    assert run_cli("ask", merged, picture, "Which?", "max_completion_length=2").code == 0
    assert run_cli("sft", "--model", merged, "--data", charts_folder, "--dry-run").code == 0


def test_the_card_tells_what_was_measured(run, run_cli, charts_folder, tmp_path):
    merged = run.parent / "mine-merged"
    assert run_cli("eval", "mine", "--data", charts_folder, "--limit", 2, "max_completion_length=2").code == 0
    done = run_cli("export", "mine", "--eval", charts_folder, "--limit", 3, "--json")
    assert done.code == 0, done.err
    assert [each["load_in_4bit"] for each in done.json()["evaluations"]] == [False, True]
    card = (merged / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "image-text-to-text"
    assert header["library_name"] == "transformers"
    rows = [line.split("|") for line in card.splitlines() if line.startswith("| charts |")]
    assert [(row[2].strip(), row[3].strip(), row[4].strip()) for row in rows] == [
        ("validation", "4", "4-bit"), ("test", "2", "4-bit"), ("test", "3", "16-bit"), ("test", "3", "4-bit"),
    ]  # fmt: skip
    assert all("(" in row[5] and "–" in row[5] for row in rows)
    for expected in ("$0.44 an hour", "CC0-1.0", "learning_rate: 0.03", "transformers: 5", "bfloat16"):
        assert expected in card
    told = card + (merged / "toasterft.json").read_text() + (merged / "config.json").read_text()
    assert str(charts_folder.parent) not in told
    assert str(tmp_path.parent) not in told


def test_what_is_refused(run, run_cli, charts_folder, homes, monkeypatch):
    monkeypatch.setenv("PATH", str(homes))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (homes / "full").mkdir()
    (homes / "full" / "precious").write_text("x")
    (homes / "folder").mkdir()
    before = sorted(homes.rglob("*"))
    for words, says in (
        (["mine", "--out", homes / "full"], "already exists"),
        (["mien"], "did you mean mine?"),
        ([homes / "folder"], "no such run"),
        (["mine", "--to", "gguf"], "git clone --depth 1 https://github.com/ggml-org/llama.cpp"),
        (["mine", "--to", "gguf", "--llama-cpp", homes / "nowhere"], "no such folder"),
        (["mine", "--to", "gguf", "--eval", charts_folder], "cannot load GGUF"),
        (["mine", "--quantize", "Q4_K_M"], "--to merged has no use for --quantize"),
        (["mine", "--to", "hub"], "--repo owner/name"),
        (["mine", "--to", "hub", "--repo", "no-owner"], "this is no hub repository"),
        (["mine", "--limit", 3], "--eval DATA --limit N"),
    ):
        done = run_cli("export", *words)
        assert done.code == 2, (words, done.err)
        assert says in done.err
    assert sorted(homes.rglob("*")) == before


def test_a_run_without_a_model_is_refused(run, run_cli, charts_folder):
    assert run_cli("eval", "mine", "--data", charts_folder, "--limit", 1, "max_completion_length=1").code == 0
    evaluation = next(path.name for path in run.parent.iterdir() if "-eval-" in path.name)
    done = run_cli("export", evaluation)
    assert done.code == 2
    assert "no saved model" in done.err


def test_a_quantised_base_is_refused(run, run_cli, tiny_model, homes):
    base = Path(shutil.copytree(tiny_model(), homes / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"load_in_4bit": True}}))
    adapter = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps({**adapter, "base_model_name_or_path": str(base)}))
    done = run_cli("export", "mine")
    assert done.code == 2
    assert "itself quantised" in done.err


def test_a_full_disk_leaves_nothing(run, run_cli, monkeypatch):
    before = sorted(run.parent.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(paths, "free_bytes", lambda _: 1000)
        done = run_cli("export", "mine")
        assert done.code == 2
        assert "no space left on the disk for the merged weights" in done.err

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
        done = run_cli("export", "mine")
        assert done.code == 2
        assert "no space left on the disk" in done.err
    assert sorted(run.parent.rglob("*")) == before


def test_weights_that_answer_otherwise_are_not_kept(run, run_cli, monkeypatch):
    from toasterft.publish import merge

    def nothing_added(loaded, dtype):
        return loaded.model.unload().to(dtype)

    monkeypatch.setattr(merge, "merge", nothing_added)
    done = run_cli("export", "mine")
    assert done.code == 4
    assert "do not answer as base and adapter do" in done.err
    assert [path.name for path in run.parent.iterdir()] == ["mine"]


# --- GGUF ------------------------------------------------------------------------------------

CONVERTER = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
assert (pathlib.Path(words[0]) / "model.safetensors").is_file()
assert json.loads((pathlib.Path(words[0]) / "config.json").read_text())["model_type"] == "idefics3"
if {fails}:
    print("Model Idefics3 is not supported", file=sys.stderr)
    sys.exit(1)
out = pathlib.Path(words[words.index("--outfile") + 1])
if "--mmproj" in words and {prefixes}:
    out = out.with_name("mmproj-" + out.name)
out.write_bytes(b"GGUF")
"""
QUANTISER = """#!{python}
import json, pathlib, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())
"""


@pytest.fixture
def llama_cpp(homes, monkeypatch):
    """Fake tools that note their arguments: `llama_cpp(on_path=…, fails=…)` is their folder."""
    folder, log = homes / "llama.cpp", homes / "asked.jsonl"

    def make(*, on_path=True, fails=False, prefixes=False):
        for name, text in (("convert_hf_to_gguf.py", CONVERTER), ("build/bin/llama-quantize", QUANTISER)):
            file = folder / (Path(name).name if on_path else name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.format(python=sys.executable, log=str(log), fails=fails, prefixes=prefixes))
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        if on_path:
            monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    make.asked = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    return make


def test_gguf_by_tools_on_path(run, run_cli, llama_cpp):
    llama_cpp()
    done = run_cli("export", "mine", "--to", "gguf", "--quantize", "Q4_K_M", "--json")
    assert done.code == 0, done.err
    out = run.parent / "mine-gguf"
    files = ["mmproj-mine.gguf", "mine-16bit.gguf", "mine-Q4_K_M.gguf"]
    assert done.json()["files"] == files
    assert sorted(path.name for path in out.iterdir()) == sorted([*files, "README.md", "toasterft.json"])
    whole, projector, small = llama_cpp.asked()
    assert whole[1:3] == projector[1:3] == ["--outtype", "auto"]
    assert "--mmproj" in projector
    assert "--mmproj" not in whole
    assert [Path(word).name for word in small] == ["mine-16bit.gguf", "mine-Q4_K_M.gguf", "Q4_K_M"]
    assert sorted(path.name for path in run.parent.iterdir()) == ["mine", "mine-gguf"]
    assert "llama-mtmd-cli" in run_cli("ask", out, out / "README.md", "Which?").err
    card = (out / "README.md").read_text()
    assert "llama-mtmd-cli -m mine-Q4_K_M.gguf --mmproj mmproj-mine.gguf" in card
    assert "GGUF forms were not evaluated" in card


def test_gguf_from_a_checkout_and_an_export_that_is_there(run, run_cli, llama_cpp, monkeypatch):
    folder = llama_cpp(on_path=False, prefixes=True)
    assert run_cli("export", "mine").code == 0
    done = run_cli("export", "mine", "--to", "gguf", "--llama-cpp", folder, "--json")
    assert done.code == 0, done.err
    assert done.json()["files"] == ["mmproj-mine.gguf", "mine-16bit.gguf"]
    assert {Path(words[0]).name for words in llama_cpp.asked()} == {"mine-merged"}
    monkeypatch.setenv("TOASTERFT_LLAMA_CPP", str(folder))
    out = run.parent / "again"
    assert run_cli("export", "mine", "--to", "gguf", "--quantize", "Q8_0", "--out", out).code == 0
    assert (out / "mine-Q8_0.gguf").is_file()
    (folder / "build" / "bin" / "llama-quantize").unlink()
    done = run_cli("export", "mine", "--to", "gguf", "--quantize", "Q8_0", "--out", run.parent / "third")
    assert done.code == 2
    assert "--target llama-quantize" in done.err


def test_a_converter_that_fails_leaves_nothing(run, run_cli, llama_cpp):
    llama_cpp(fails=True)
    done = run_cli("export", "mine", "--to", "gguf")
    assert done.code == 4
    assert "Model Idefics3 is not supported" in done.err
    assert [path.name for path in run.parent.iterdir()] == ["mine"]


# --- the hub ---------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, homes):
    from huggingface_hub import constants

    hub = fake_hub.FakeHub()
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(homes / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    address = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    yield hub
    hub.server.shutdown()


def test_a_push_is_private_whole_and_never_over_anything(run, run_cli, hub, homes):
    done = run_cli("export", "mine", "--to", "hub", "--repo", "someone/mine", "--json")
    assert done.code == 0, done.err
    assert done.json()["url"] == f"{hub.address}/someone/mine"
    repo, merged = hub.repos["someone/mine"], run.parent / "mine-merged"
    assert repo.private
    assert repo.commits == 1
    assert repo.files == {path.name: path.read_bytes() for path in merged.iterdir()}
    assert b"toasterft ask someone/mine" in repo.files["README.md"]
    assert "Bearer hf_mine" in hub.tokens
    again = run_cli("export", "mine", "--to", "hub", "--repo", "someone/mine")
    assert again.code == 2
    assert "nothing is overwritten" in again.err
    hub.repos["someone/open"] = fake_hub.Repo(private=False, files={".gitattributes": b""})
    public = run_cli("export", "mine", "--to", "hub", "--repo", "someone/open")
    assert public.code == 2
    assert "this repository is public" in public.err
    assert run_cli("export", "mine", "--to", "hub", "--repo", "someone/open", "--public").code == 0


def test_a_push_that_fails_can_be_tried_again(run, run_cli, hub):
    hub.full = True
    done = run_cli("export", "mine", "--to", "hub", "--repo", "someone/mine")
    assert done.code == 2
    assert "no space left" in done.err
    assert not hub.repos["someone/mine"].files
    before = (run.parent / "mine-merged" / "model.safetensors").stat().st_mtime_ns
    hub.full = False
    assert run_cli("export", "mine", "--to", "hub", "--repo", "someone/mine").code == 0
    assert (run.parent / "mine-merged" / "model.safetensors").stat().st_mtime_ns == before


def test_a_pushed_export_is_asked_by_its_name(trained, run_cli, hub, homes, picture):
    from toasterft.models import lookup

    folder = Path(shutil.copytree(trained("smolvlm"), homes / "runs" / "mine"))
    notes = paths.read_json(folder / run_folder.ADAPTER_NOTES_FILE)
    notes["prompt"]["question_suffix"] = "Be quick."
    paths.write_json(folder / run_folder.ADAPTER_NOTES_FILE, notes)
    assert run_cli("export", "mine", "--to", "hub", "--repo", "someone/mine").code == 0
    assert lookup.resolve("someone/mine", homes / "runs").notes["prompt"]["question_suffix"] == "Be quick."
    done = run_cli("ask", "someone/mine", picture, "Which?", "--json", "max_completion_length=4")
    assert done.code == 0, done.err
    local = run_cli(
        "ask", homes / "runs" / "mine-merged", picture, "Which?", "--json", "max_completion_length=4"
    )
    assert done.json()["text"] == local.json()["text"]

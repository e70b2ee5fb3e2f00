"""What every benchmark records, and the SmolVLM-shaped model they share."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from toasterft import catalog, paths
from toasterft.runs import run_folder

RESULTS = Path(__file__).parent / "results"
# SmolLM2-360M, as the 500M's decoder is commonly given; SmolVLM-256M's own values are in its config.json.
TEXT_500M = {
    "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
    "num_key_value_heads": 5,
}  # fmt: skip


def environment() -> dict[str, Any]:
    """Machine, versions and commit of a measurement."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    found = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "versions": run_folder.versions(),
        "commit": run_folder._git_commit(),
        "command": command(),
    }
    import torch

    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def command() -> str:
    """What was typed; where things lay on one machine says nothing to a reader."""
    return " ".join(
        ["python", *(word if not Path(word).is_absolute() else Path(word).name for word in sys.argv)]
    )


def write(name: str, result: dict[str, Any]) -> Path:
    """One JSON in results/, with the environment beside the figures."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **result}, indent=2, default=str) + "\n")
    print(f"wrote {path}", file=sys.stderr)
    return path


def smolvlm(tokenizer: Path, folder: Path, size: str = "256M", dtype: str = "float32") -> Path:
    """A random-weight model of SmolVLM's real shape, saved where `--model` can read it."""
    import torch
    import transformers

    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, folder)
    raw = json.loads((tokenizer / "config.json").read_text())
    if size == "500M":
        raw["text_config"] |= TEXT_500M
    config = transformers.Idefics3Config.from_dict(raw)
    torch.manual_seed(0)
    model = transformers.Idefics3ForConditionalGeneration(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def tiny_smolvlm(folder: Path) -> Path:
    """The tests' random Idefics3 of 0.1 M parameters with its generated tokenizer, for trying a benchmark out."""
    tests = str(Path(__file__).parents[1] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    import tiny

    folder.mkdir(parents=True, exist_ok=True)
    found: Path = tiny.smolvlm_like(folder, "idefics3")
    return found


def generated_tokenizer(folder: Path) -> Path:
    """What `smolvlm` reads, where nobody gave a folder: the catalog's sizes around a generated tokenizer.

    It knows 400 tokens, so that texts are some three times as long in it; the vocabulary of the model stays whole.
    """
    tiny_smolvlm(folder)
    (folder / "model.safetensors").unlink()
    row = catalog.models()["SmolVLM-256M"]
    config = paths.read_json(folder / "config.json")
    for name, value in row.config.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    paths.write_json(folder / "config.json", config)
    preprocessor = paths.read_json(folder / "preprocessor_config.json")
    paths.write_json(folder / "preprocessor_config.json", preprocessor | row.preprocessor)
    processor = paths.read_json(folder / "processor_config.json")
    vision = row.config["vision_config"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    processor["image_seq_len"] = patches // row.config["scale_factor"] ** 2
    paths.write_json(folder / "processor_config.json", processor)
    return folder


def child(script: Path, *words: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a part of a benchmark in a process of its own and read the JSON it prints last."""
    done = subprocess.run(
        [sys.executable, str(script), *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def policy_trainer(kind: Any, session: Any, examples: list[Any], **settings: Any) -> Any:
    """A policy trainer on a model in memory, outside any run: for timing single steps."""
    import tempfile

    from toasterft import recipe
    from toasterft.progress import Silent
    from toasterft.runs.meter import Meter
    from toasterft.runs.run_folder import Run
    from toasterft.training.monitor import RunMonitor
    from toasterft.training.trainer_base import TrainingContext

    method = kind.__name__.removesuffix("Trainer").lower().replace("policy", "grpo")
    words = {"max_steps": 1, "save_steps": 1000, "optim": "paged_adamw_8bit", "seed": 0, **settings}
    wanted = recipe.RECIPES[method].model_validate({"method": method, **words})
    record = Run(Path(tempfile.mkdtemp()), {})
    monitor = RunMonitor(record, Silent(), Meter())
    context = TrainingContext(wanted, session, record, examples, [], monitor, Silent())
    return kind(context)


def input_gradients(model: Any, *, wanted: bool) -> None:
    """Embeddings require a gradient as TRL makes them (a frozen tower then runs backward), or do not, as in toasterft."""
    model.disable_input_require_grads()
    if wanted:
        type(model).enable_input_require_grads(model)

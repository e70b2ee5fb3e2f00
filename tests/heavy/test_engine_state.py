"""What an engine leaves as it is: checkpointing in every pass, the adapter of a seed, inputs without gradients."""

from __future__ import annotations

import pytest
import recomputations
import torch

from toasterft.engine import Request, open_engine
from toasterft.models.architectures import supported
from toasterft.recipe import Lora
from toasterft.training import run as route

SAMPLING = ("num_generations=4", "refiner=none", "max_completion_length=6", "max_steps=2")


def opened(folder, **more):
    family = supported()["idefics3"]
    request = Request(
        base=str(folder), family=family, lora=Lora(r=4), train=True, image_longest_edge=64, **more
    )
    return open_engine("plain").load(request)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (("sft", "eval_steps=1", "max_steps=2"), True),
        # Where every sample is wrong its reference is learned: something always is.
        (("dyme", *SAMPLING), True),
        (("dyme", *SAMPLING, "gradient_checkpointing=false"), False),
        (("dpo", "max_steps=2"), True),
    ],
)
def test_every_backward_pass_recomputes_as_the_recipe_says(
    words, again, tiny_model, pairs_folder, run_cli, quick, homes, monkeypatch
):
    monkeypatch.setattr(route, "open_model", route.open_model)
    recomputations.install()
    monkeypatch.setenv(recomputations.FILE, str(homes / "passes"))
    method, *settings = words
    done = run_cli(method, "--model", tiny_model(), "--data", pairs_folder, *quick, *settings)
    assert done.code == 0, done.err
    passes = recomputations.read(homes / "passes")
    assert passes["forward"] > 0
    assert passes["again"] == (passes["forward"] if again else 0)


def test_a_seed_is_an_adapter(tiny_model):
    adapters = [
        {
            name: value
            for name, value in opened(tiny_model(), seed=seed).model.named_parameters()
            if "lora_A" in name
        }
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(value, adapters[1][name]) for name, value in adapters[0].items())
    assert not any(torch.equal(value, adapters[2][name]) for name, value in adapters[0].items())


def test_nothing_makes_inputs_require_a_gradient(tiny_model):
    loaded = opened(tiny_model())
    loaded.model.enable_input_require_grads()  # as PEFT, TRL and the Trainer do
    loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert not loaded.inner.get_input_embeddings()(torch.tensor([[1, 2]])).requires_grad
    assert not any(module._forward_hooks for module in loaded.part(loaded.family.vision).modules())


def test_what_is_kept_of_an_evaluation_can_be_trained_with(tiny_model):
    """A tensor made in inference mode is refused by the backward pass (unsloth#3828)."""
    loaded = opened(tiny_model())
    with loaded.evaluating() as model:
        kept = model.get_input_embeddings()(torch.tensor([[1, 2]]))
    weight = torch.ones(kept.shape[-1], requires_grad=True)
    (kept * weight).sum().backward()
    assert torch.equal(weight.grad, kept.sum(dim=(0, 1)))


def test_a_connector_that_cannot_go_on_is_refused(tiny_model, charts_folder, run_cli, quick, tmp_path):
    words = ("--data", charts_folder, *quick, "max_steps=1", "eval_limit=1", "train_connector=true")
    folder = tmp_path / "run"
    assert run_cli("sft", "--model", tiny_model(), "--out", folder, *words).code == 0
    assert run_cli("sft", "--model", folder, *words, "--dry-run").code == 0
    (folder / "connector_factor.safetensors").unlink()
    done = run_cli("sft", "--model", folder, *words, "--dry-run")
    assert done.code == 2
    for part in (str(folder), "connector_factor.safetensors", "train_connector=false"):
        assert part in done.err

"""All that the goldens take from inside toasterft; whoever moves a module mends it here and nowhere else.

Everything else in this folder goes through the command line and the files that it leaves. Imports stand in the
functions, so that a part whose module is on the move does not stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def main() -> None:
    """The command line, told by `sys.argv`."""
    from toasterft.cli import main as cli_main

    cli_main()


def command_tree() -> Any:
    """The click command at the root, with all that it loads when it is called."""
    import typer

    from toasterft import cli

    root: Any = typer.main.get_command(cli.app)
    root.commands = {name: cli.load(name) for name in root.commands}
    return root


# --- reasoning -------------------------------------------------------------------------------


def checker_says(row: Row, trace: str) -> list[float | None]:
    """[score, coverage, arithmetic, conclusion, number of faults] of the checker for anybody's words."""
    from toasterft.scoring import traces

    found = traces.check(trace, row["table"], row["question"], row["answer"])
    return [found.score, found.coverage, found.arithmetic, found.conclusion, len(found.faults)]


def strict_passes(row: Row, trace: str) -> bool:
    """Whether the strict reader of our own sentences passes a trace."""
    from toasterft.scoring.traces import strict_faults

    return not strict_faults(trace, row["table"], row["question"], row["answer"])


def refined(row: Row, reference: str | None, template: dict[str, Any] | None = None) -> str | None:
    """A reference rewritten by rules in a template's shape (the plain one by default)."""
    from toasterft.teachers.refine import Template, refine

    shape = Template() if template is None else Template.from_json(template)
    return refine(row["table"], row["question"], row["answer"], reference, shape)


def template_learned(traces: Sequence[str]) -> dict[str, Any]:
    """The template that good traces teach, as JSON."""
    from toasterft.teachers.refine import Template, learn

    return learn(Template(), traces).to_json()


# --- keys of paid answers that no command gives without a model's own words --------------------


def request_keys(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Keys of DyME's requests: the judge's, and the refiner's in two shapes."""
    from toasterft.data.example import Example
    from toasterft.teachers import judge
    from toasterft.teachers.api import Request
    from toasterft.teachers.api.types import custom_service
    from toasterft.teachers.refine import Template, api_writer

    service = custom_service("http://192.0.2.1/v1/", "frozen-1")
    headed = Template(("goal", "needs", "facts", "step", "recheck", "conclusion"), True, True)
    examples = [
        Example(str(n), row["question"], row["answer"], reasoning=row["trace"], facts=row["table"])
        for n, row in enumerate(rows)
    ]
    bare = Request("How many?", system="Be brief.", max_tokens=9, attempt=2, parameters={"top_p": 0.5})
    return {
        "judge": [judge.request(one.reasoning or "", one).key(service) for one in examples],
        "refiner": [api_writer.request(one, Template()).key(service) for one in examples],
        "refiner with headings": [api_writer.request(one, headed).key(service) for one in examples],
        "plain": [bare.key(service)],
    }


# --- memory ----------------------------------------------------------------------------------


def closed_form(kind: str, name: str, **sizes: Any) -> dict[str, int]:
    """Bytes of one phase by the closed form, without a GPU's context: step, update, generation or encoding."""
    from toasterft import catalog
    from toasterft.estimation import memory
    from toasterft.models.architectures import shape_from_config
    from toasterft.recipe import Sft

    row = catalog.models()[name]
    shape = shape_from_config(row.config, row.preprocessor)
    if kind == "encoding":
        return memory.of_encoding(shape, Sft(encode_batch_size=sizes["tiles"]), 2)
    if kind == "generation":
        return memory.of_generation(shape, width_bytes=2, **sizes)
    recipe, sequences = _step(kind, **sizes)
    return memory.of_step(shape, recipe, sequences, 2, tower=False)


def _step(kind: str, *, checkpointing: bool, rank: int | None = 16, **sizes: Any) -> tuple[Any, Any]:
    """Recipe and sequences of a step on plain rows, or of an update on completions packed behind their prompts."""
    from toasterft.estimation.memory import Sequences
    from toasterft.recipe import Lora, Sft

    lora = None if rank is None else Lora(r=rank)
    recipe = Sft(lora=lora, gradient_checkpointing=checkpointing, **sizes.get("settings", {}))
    if kind == "step":
        return recipe, Sequences(*(sizes[name] for name in ("batch", "tokens", "trained", "image_tokens")))
    groups, branches, completion = (sizes[name] for name in ("groups", "branches", "completion_tokens"))
    head, images = groups * branches * completion, groups * sizes["image_tokens"]
    return recipe, Sequences(groups, sizes["prompt_tokens"], head, images, branches, completion)


def replayed(name: str, **sizes: Any) -> dict[str, Any]:
    """A training step replayed on torch's meta device; sizes are those of one row."""
    from toasterft import catalog
    from toasterft.estimation import simulate

    rows = sizes["batch"]
    sizes |= {"trained": rows * sizes["completion_tokens"], "image_tokens": rows * sizes["image_tokens"]}
    sizes["settings"] = {setting: sizes[setting] for setting in ("load_in_4bit", "optim")}
    recipe, sequences = _step("step", **sizes)
    return dict(simulate.peak(catalog.models()[name].config, recipe, sequences))

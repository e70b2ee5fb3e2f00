"""The commands as `toasterft --help` lists them; nothing is imported for it."""

from __future__ import annotations

# Panels of the help, and under a command's name the module it is in and the first line of its own help.
PANELS = {
    "start here": {
        "demo": ("demo", "The main job on charts drawn here, with the embedded model: no GPU, hub or data needed."),
        "doctor": ("inspect", "What is installed here, what is missing, and what to do about it."),
        "estimate": ("estimate", "Memory, hours and dollars of a run before it starts, on any GPU."),
    },
    "train": {
        "sft": ("train", "Supervised fine-tuning (4-bit QLoRA) on questions with reasoning and answers."),
        "grpo": ("train", "GRPO: sample answers, reward them, learn from what beat its group."),
        "dyme": ("train", "DyME: per group, memorise the reference where all samples are wrong, else explore."),
        "dpo": ("train", "DPO: prefer the teacher's answer to a wrong one of the model's own (data: cot pairs)."),
        "train": ("train", "Stages from a recipe, each starting from the one before (recipes/clgrpo-4stage.yaml)."),
        "launch": ("launch", "Train on a rented machine through SkyPilot, within a cap; the run folder comes back."),
    },
    "judge": {
        "eval": ("evaluate", "Accuracy with 95 % intervals by the data's scorers, and quality of the reasoning."),
        "ask": ("evaluate", "One question about one image."),
        "compare": ("evaluate", "Is B better than A? Paired tests on the same questions, from stored answers."),
        "arena": ("arena", "People choose between answers, blind; Elo and Bradley–Terry ratings with intervals."),
    },
    "data": {
        "data": ("data", "Data, before it costs money: import it, check it, look at it, divide it, share it."),
        "cot": ("cot", "Reasoning traces for data that has none, with the bill known before the start."),
        "charts": ("demo", "Charts drawn on demand, with questions whose answers can be checked."),
    },
    "share": {
        "export": ("publish", "Merge a run into its 16-bit base: a folder for transformers, GGUF files, or the hub."),
        "report": ("publish", "One page of one run or several, to send or print: settings, cost, accuracy."),
    },
    "look": {
        "runs": ("inspect", "All runs, oldest first."),
        "show": ("inspect", "One run: its settings, what it took, what came out."),
        "models": ("inspect", "The models that have a catalog name."),
        "gpus": ("inspect", "The GPUs a plan can be made for, with dated prices."),
        "cache": ("inspect", "The image-feature cache: what it holds, and a way to empty it."),
        "recipes": ("inspect", "The recipes that come with toasterft."),
    },
}  # fmt: skip


def module_of(name: str) -> str:
    """The module of `toasterft.cli` that a command is in."""
    return next(names[name][0] for names in PANELS.values() if name in names)


def about(name: str) -> str:
    """What a command is for."""
    return next(names[name][1] for names in PANELS.values() if name in names)

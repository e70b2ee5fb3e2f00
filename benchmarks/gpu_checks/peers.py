"""Other people's loops on the same rows, model, adapter and settings as ours. Heavy; Unsloth's come with their engine.

TRL's trainers get pixels through the processor, as anyone's script would. The notebook loop is the one of Unsloth's
vision notebooks, but for two settings: only the language model learns, as in ours, and its collator leaves the size of
pictures to the processor. vLLM is what `fast_inference` starts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import trl

from gpu_checks.task import GENERATIONS, STEPS, Keep, Task, examples, opened_engine, recipe_of, session
from gpu_checks.watching import StepClock, synchronize
from toasterft.data.chat import Chat, target
from toasterft.data.example import Example
from toasterft.engine import pretrained, processors
from toasterft.engine.phases import peak_memory_bytes, restart_peak
from toasterft.models.architectures import architecture
from toasterft.recipe import Prompt

# How TRL's trainer and ours both call the mean number of tokens of a step's completions.
LENGTH = "completions/mean_length"


def trl_sft(task: Task, keep: Keep) -> None:
    """TRL's SFTTrainer with its own collator."""
    import datasets

    model = session(task, opened_engine(task), load_in_4bit=True, train=True)
    rows = [
        {
            "images": [row.images[0].open()],
            "prompt": [{"role": "user", "content": row.question}],
            "completion": [{"role": "assistant", "content": target(row, model.chat.prompt)}],
        }
        for row in examples(task)
    ]
    wanted = recipe_of(task, "sft")
    trainer = trl.SFTTrainer(
        model=model.loaded.model,
        args=trl.SFTConfig(
            **_arguments(task, "sft", wanted, model.loaded.dtype), **_batch(wanted), max_length=None
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=model.loaded.processor,
    )
    _trained(trainer, STEPS["sft"][1], keep, _read)


def trl_grpo(task: Task, keep: Keep) -> None:
    """TRL's GRPOTrainer; where a whole group does not fit, completion by completion."""
    try:
        _trl_grpo(task, keep, micro=GENERATIONS)
    except torch.OutOfMemoryError as error:
        keep(whole_group=f"out of memory: {error}".splitlines()[0][:300])
        out_of_memory = True
    else:
        out_of_memory = False
    if out_of_memory:  # outside of the handler, whose traceback keeps the tensors of the failed step
        torch.cuda.empty_cache()
        _trl_grpo(task, keep, micro=1)


def _trl_grpo(task: Task, keep: Keep, micro: int) -> None:
    import datasets

    model = session(task, opened_engine(task), load_in_4bit=True, train=True)
    rows = [
        {"prompt": [{"role": "user", "content": row.question}], "images": [row.images[0].open()]}
        for row in examples(task)
    ]
    wanted = recipe_of(task, "grpo")
    same = ("epsilon", "epsilon_high", "num_iterations", "beta", "loss_type", "temperature", "top_p")
    trainer = trl.GRPOTrainer(
        model=model.loaded.model,
        reward_funcs=_reward,
        args=trl.GRPOConfig(
            **_arguments(task, "grpo", wanted, model.loaded.dtype),
            **{name: getattr(wanted, name) for name in same},
            per_device_train_batch_size=micro, gradient_accumulation_steps=GENERATIONS // micro,
            num_generations=GENERATIONS, max_completion_length=task.new_tokens,
            # A sampled image token would claim features that no image brings, and end the run.
            generation_kwargs={"suppress_tokens": model.loaded.never_sampled},
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=model.loaded.processor,
    )  # fmt: skip
    keep(micro_batch=micro)
    _trained(trainer, STEPS["grpo"][1], keep, lambda state: _written(state) / wanted.num_iterations)


def _reward(completions: list[Any], **_: Any) -> list[float]:
    """`task.spread`, in TRL's form."""
    return [place % 4 / 4 for place in range(len(completions))]


def notebook(task: Task, keep: Keep) -> None:
    """The loop of Unsloth's vision notebooks."""
    import unsloth
    from unsloth.trainer import UnslothVisionDataCollator

    wanted = recipe_of(task, "sft")
    model, processor = pretrained.model(
        unsloth.FastVisionModel, task.folder, load_in_4bit=True, use_gradient_checkpointing="unsloth",
        max_seq_length=wanted.max_length, use_exact_model_name=True,
    )  # fmt: skip
    model = unsloth.FastVisionModel.get_peft_model(
        model, finetune_vision_layers=False, finetune_language_layers=True, finetune_attention_modules=True,
        finetune_mlp_modules=True, r=wanted.lora.r, lora_alpha=wanted.lora.lora_alpha, lora_dropout=0, bias="none",
        random_state=0,
    )  # fmt: skip
    if task.longest_edge:
        processor.image_processor.size = {"longest_edge": task.longest_edge}
    unsloth.FastVisionModel.for_training(model)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    trainer = trl.SFTTrainer(
        model=model,
        processing_class=processor,
        data_collator=UnslothVisionDataCollator(model, processor, resize="max"),
        train_dataset=[_conversation(row) for row in examples(task)],
        args=trl.SFTConfig(
            **_arguments(task, "sft", wanted, torch.bfloat16 if bf16 else torch.float16), **_batch(wanted),
            max_length=wanted.max_length, remove_unused_columns=False, dataset_text_field="",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
    )  # fmt: skip
    _trained(trainer, STEPS["sft"][1], keep, _read)


def _conversation(row: Example) -> dict[str, Any]:
    """One row as the notebooks write it."""
    asked = [{"type": "image", "image": row.images[0].open()}, {"type": "text", "text": row.question}]
    answered = [{"type": "text", "text": target(row, Prompt())}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


def vllm(task: Task, keep: Keep) -> None:
    """Completions of one prompt from the engine that Unsloth starts with `fast_inference`, on 16-bit weights."""
    import unsloth
    from vllm import SamplingParams

    model, _ = pretrained.model(
        unsloth.FastVisionModel, task.folder, load_in_4bit=False, fast_inference=True, gpu_memory_utilization=0.5,
        max_seq_length=4096, use_exact_model_name=True,
    )  # fmt: skip
    processor = processors.load(str(task.folder), architecture("idefics3"), task.longest_edge)
    row = examples(task)[0]
    prompt = {
        "prompt": Chat(processor, Prompt()).question(row),
        "multi_modal_data": {"image": row.images[0].open()},
    }
    wanted = SamplingParams(n=GENERATIONS, temperature=1.0, max_tokens=task.new_tokens, ignore_eos=True)
    taken = []
    for _ in range(3):
        synchronize()
        began = time.perf_counter()
        [answer] = model.fast_generate([prompt], wanted)
        taken.append(round(time.perf_counter() - began, 4))
        tokens = sum(len(each.token_ids) for each in answer.outputs)
    speed = round(tokens / min(taken[1:]), 2)
    keep(ways={"vllm_16bit": {"tokens_per_second": speed, "seconds": taken[1:], "first_seconds": taken[0]}})


# --- what they share ---------------------------------------------------------------------------


def _arguments(task: Task, method: str, wanted: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Ours in the words of TrainingArguments."""
    return {
        "output_dir": tempfile.mkdtemp(dir=task.scratch), "max_steps": STEPS[method][0], "seed": 0,
        "learning_rate": wanted.learning_rate, "optim": wanted.optim, "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False}, "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16, "use_cpu": task.device == "cpu", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "include_num_input_tokens_seen": "non_padding",
    }  # fmt: skip


def _batch(wanted: Any) -> dict[str, int]:
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    return {name: getattr(wanted, name) for name in names}


def _read(state: Any) -> float:
    """Tokens of an optimizer step's rows, pictures included and padding not."""
    return float(state.num_input_tokens_seen) / state.global_step


def _written(state: Any) -> float:
    """Tokens of the completions that were sampled for an optimizer step."""
    lengths = [row[LENGTH] for row in state.log_history if LENGTH in row]
    return sum(lengths) / len(lengths) * GENERATIONS


def _trained(trainer: Any, warm: int, keep: Keep, tokens: Callable[[Any], float]) -> None:
    """Train, and say how long a step took, how many tokens it had, and what was held at the highest."""
    clock = StepClock(warm)
    trainer.add_callback(clock)
    restart_peak()
    trainer.train()
    keep(
        step_seconds=clock.step_seconds,
        tokens_per_second=tokens(trainer.state) / clock.step_seconds,
        peak_bytes=peak_memory_bytes(),
        allocated_bytes=int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None,
        losses=[row["loss"] for row in trainer.state.log_history if "loss" in row],
    )


PEERS: dict[str, Callable[[Task, Keep], None]] = {
    "trl_sft": trl_sft,
    "trl_grpo": trl_grpo,
    "notebook": notebook,
    "vllm": vllm,
}

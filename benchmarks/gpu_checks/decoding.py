"""Ways to decode one prompt's completions, side by side. Heavy."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import torch
import transformers

from gpu_checks.task import GENERATIONS, Keep, Task, examples
from gpu_checks.watching import synchronize
from toasterft.engine.forward import placed
from toasterft.engine.generate import Writing, complete

ROUNDS = 2


def compare(task: Task, keep: Keep, open_: Callable[[bool], Any]) -> None:
    """Greedy, `GENERATIONS` completions of the first row; the likeliest tokens tell whether two ways agree.

    `plain` is the product's own: one prefill, keys and values held once. Static caches are transformers', with as many
    rows from the start. transformers compiles no 4-bit model, so that captured graphs are measured on 16-bit weights.

    Args:
        open_: the model, given whether its weights are 4-bit.
    """
    found: dict[str, dict[str, Any]] = {}
    for four_bit, ways in _ways(task).items():
        model = open_(four_bit)
        for name, write in ways.items():
            try:
                found[name] = _timed(lambda write=write, model=model: write(task, model))  # type: ignore[misc]
            except Exception as error:  # one way that fails says nothing about the others
                found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            keep(ways=_judged(found))
        del model
        gc.collect()
        torch.cuda.empty_cache()


def _ways(task: Task) -> dict[bool, dict[str, Callable[[Task, Any], list[list[int]]]]]:
    if task.engine == "unsloth":  # its patches have a decoding loop of their own
        return {True: {"plain": _plain}}
    captured = {"captured_16bit": _captured} if task.device == "cuda" else {}
    return {
        True: {"plain": _plain, "static": _static},
        False: {"plain_16bit": _plain, "static_16bit": _static, **captured},
    }


def _plain(task: Task, model: Any) -> list[list[int]]:
    found = complete(
        model.inputs,
        examples(task)[:1],
        model.inputs.prompts,
        Writing(model.chat.end_token_ids, task.new_tokens),
        rows_at_once=GENERATIONS,
        num_generations=GENERATIONS,
    )
    [(_, rows)] = found
    return rows


def _static(task: Task, model: Any) -> list[list[int]]:
    return _generated(task, model, disable_compile=True)


def _captured(task: Task, model: Any) -> list[list[int]]:
    # CUDA graphs without the minute that inductor takes to write kernels.
    config = transformers.CompileConfig(fullgraph=False, backend="cudagraphs", mode="default")
    rows = _generated(task, model, compile_config=config)
    # Where it cannot compile, transformers goes on without.
    if not hasattr(model.loaded.model, "_compiled_call"):
        raise RuntimeError("transformers captured no graph")
    return rows


def _generated(task: Task, model: Any, **options: Any) -> list[list[int]]:
    rows = examples(task)[:1] * GENERATIONS
    inputs = model.inputs.left_padded(model.inputs.prompts(rows))
    ends = model.chat.end_token_ids
    model.loaded.model.eval()
    with torch.no_grad():
        out = model.loaded.model.generate(
            **{**placed(model.loaded, inputs), "input_ids": inputs["input_ids"]},
            max_new_tokens=task.new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=ends[0],
            suppress_tokens=model.loaded.never_sampled or None, cache_implementation="static", **options,
        )  # fmt: skip
    written = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [list(takewhile(lambda token: token not in ends, row)) for row in written]


def _timed(write: Callable[[], list[list[int]]]) -> dict[str, Any]:
    """The best of some rounds, after one that is not counted."""
    taken = []
    for _ in range(1 + ROUNDS):
        synchronize()
        began = time.perf_counter()
        rows = write()
        synchronize()
        taken.append(round(time.perf_counter() - began, 4))
    tokens = sum(map(len, rows))
    return {
        "tokens_per_second": round(tokens / min(taken[1:]), 2),
        "first_seconds": taken[0],
        "seconds": taken[1:],
        "tokens": tokens,
        "ids": rows[0],
    }


def _judged(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without the ids, but with the share of leading tokens that are the product's on the same weights."""
    judged = {}
    for name, row in found.items():
        first = found.get("plain_16bit" if name.endswith("_16bit") else "plain", {}).get("ids")
        judged[name] = {key: value for key, value in row.items() if key != "ids"}
        if first and "ids" in row:
            same = list(takewhile(lambda pair: pair[0] == pair[1], zip(first, row["ids"])))
            judged[name]["same_as_plain"] = round(len(same) / len(first), 3)
    return judged

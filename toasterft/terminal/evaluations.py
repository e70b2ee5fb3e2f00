"""How right a model is: accuracy with intervals, and the demo's before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from toasterft.terminal.output import line, out, pairs, table
from toasterft.units import dollars, duration, percent

# A confusion matrix of more labels is no longer read; its largest entries are.
MATRIX_LABELS = 10


def print_scores(result: dict[str, Any]) -> None:
    """Accuracy with intervals, overall and by kind, what the task adds, and how the model reasons."""
    task = result.get("task", "chart")
    table(
        ["scorer", ">accuracy (95 % interval)"],
        [[name, percent(rate)] for name, rate in result["scores"].items()],
        title=f"{result['n']} questions" + ("" if task == "chart" else f", task {task}"),
    )
    if "per_class" in result:
        _classes(result)
    elif result["by_kind"]:
        table(
            ["kind", ">n", ">robust accuracy"],
            [[kind, str(row["n"]), percent(row["robust"])] for kind, row in result["by_kind"].items()],
        )
    pairs(
        [
            *_of_task(result),
            ("format kept", percent(result["format_rate"])),
            ("mean length", f"{result['mean_completion_tokens']:.0f} tokens"),
            *(_reasoning(result["traces"]) if "traces" in result else []),
        ]
    )


def print_reasoner(reasoner: dict[str, Any], n: int) -> None:
    """Who wrote the reasoning of a two-model pipeline."""
    silent = reasoner["without_reasoning"]
    alone = f"; {silent:,} of {n:,} had none, and were answered alone" if silent else ""
    line(f"reasoning from {reasoner['run']}{alone}")


def _of_task(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Figures that only some tasks have."""
    if read := result.get("pairs"):
        yield f"pairs read of {read['n']:,}", percent(read)
    if closed := result.get("closed"):
        yield f"yes or no ({closed['n']:,})", percent(closed["robust"])
    if others := result.get("open"):
        recall = others["token_recall"]
        found = "" if recall is None else f"; {100 * recall:.1f} % of the words found"
        yield f"open ({others['n']:,})", percent(others["robust"]) + found
    if "macro_recall" in result:
        yield "macro recall", f"{100 * result['macro_recall']:.1f} %"
    if failures := result.get("parse_failures"):
        yield "no option read", percent(failures)


def _reasoning(traces: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The quality of the traces; nothing about them where there are none."""
    yield "answered without reasoning", percent(traces["without_reasoning"])
    yield "repeats itself", percent(traces["repeating"])
    if tokens := traces["tokens"]:
        yield f"reasoning ({traces['n']:,})", f"{tokens['median']:.0f} tokens (median), {tokens['p90']} (p90)"
        yield "no wrong calculation", percent(traces["arithmetic_right"])
    if checked := traces["checked"]:
        yield f"facts all read, and right ({checked['n']:,})", percent(checked["facts_right"])
        yield "nothing wrong said", percent(checked["faultless"])
        yield "valid: both", percent(checked["valid"])


def _classes(result: dict[str, Any]) -> None:
    """Recall by class, and who was taken for whom."""
    labels, counts = result["confusion"]["labels"], result["confusion"]["counts"]
    table(
        ["class", ">n", ">recall (95 %)"],
        [[label, str(row["n"]), percent(row["recall"])] for label, row in result["per_class"].items()],
    )
    if len(labels) <= MATRIX_LABELS:
        table(
            ["is ╲ said", *(f">{label}" for label in labels), ">nothing"],
            [[label, *map(str, row)] for label, row in zip(labels, counts)],
        )
        return
    mistaken = [
        (count, label, said)
        for label, row in zip(labels, counts)
        for said, count in zip([*labels, "nothing"], row)
        if said != label and count
    ]
    table(
        ["is", "said", ">times"],
        [[label, said, str(count)] for count, label, said in sorted(mistaken, reverse=True)[:MATRIX_LABELS]],
    )


def print_demo(found: dict[str, Any], row: dict[str, Any]) -> None:
    """The demo's ending: before and after, one picture with the model's own words, the bill, the places."""
    before = found["base"]
    columns = ["questions", ">n", ">toast-tiny", *(f">after {name}" for name in found["methods"])]
    after = [method["eval"] for method in found["methods"].values()]
    rows = [
        [
            "all",
            str(before["n"]),
            percent(before["scores"]["robust"]),
            *(percent(e["scores"]["robust"]) for e in after),
        ]
    ]
    for kind, group in before["by_kind"].items():
        others = [percent(e["by_kind"].get(kind, {}).get("robust")) for e in after]
        rows.append([kind, str(group["n"]), percent(group["robust"]), *others])
    rows.append(
        ["format kept", "", percent(before["format_rate"]), *(percent(e["format_rate"]) for e in after)]
    )
    out.print()
    table(columns, rows, title="accuracy on charts never seen (95 % interval)")
    print_image(row["image"])
    pairs(
        [
            ("question", row["question"]),
            ("base", row["base_text"]),
            (row["method"], row["text"]),
            ("right answer", row["gold"]),
            ("picture", row["image"]),
        ]
    )
    usd = found["usd_on_default_gpu"]
    out.print()
    out.print(
        Text(
            f"On a rented {found['gpu']} the same fine-tuning would cost about {dollars(usd)}; here it was free."
        )
    )
    for name, method in found["methods"].items():
        out.print(
            Text(f"{name} run  ", style="dim")
            + Text(method["run"])
            + Text(f"  ({duration(method['measured']['seconds'])} since the start)", style="dim")
        )
    last = list(found["methods"].values())[-1]["run"]
    out.print(Text("next  ", style="dim") + Text(f'toasterft ask {last} {row["image"]} "{row["question"]}"'))


def print_image(path: str, width: int = 56) -> None:
    """A picture in the terminal, two pixels per character; nothing where the output is no terminal."""
    if not out.is_terminal:
        return
    from PIL import Image

    image = Image.open(path).convert("RGB")
    height = max(2, round(image.height * width / image.width / 2) * 2)
    pixels: Any = image.resize((width, height), Image.Resampling.LANCZOS).load()
    for top in range(0, height, 2):
        row = Text()
        for column in range(width):
            upper, lower = pixels[column, top], pixels[column, top + 1]
            row.append(
                "▀", style=f"rgb({upper[0]},{upper[1]},{upper[2]}) on rgb({lower[0]},{lower[1]},{lower[2]})"
            )
        out.print(row)

"""Print evaluations: accuracy with intervals, and the demo's before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text

from toasterft.data.example import ImageRef
from toasterft.publish import scores
from toasterft.terminal.output import line, out, pairs, print_next, table
from toasterft.units import dollars, duration, percent

# A confusion matrix of more labels is no longer read; its largest entries are.
MATRIX_LABELS = 10


def print_scores(result: dict[str, Any]) -> None:
    """Accuracy with intervals, overall and by kind, what the task adds, and how the model reasons."""
    task, classes = result.get("task", "chart"), "per_class" in result
    table(
        ["scorer", ">accuracy (95 % interval)"],
        [[row.name, row.text] for row in scores.by_scorer(result)],
        title=f"{result['n']} questions" + ("" if task == "chart" else f", task {task}"),
    )
    if kinds := scores.by_kind(result):
        table(
            ["class" if classes else "kind", ">n", ">recall (95 %)" if classes else ">robust accuracy"],
            [[row.name, str(row.n), row.text] for row in kinds],
        )
    if classes:
        _print_confusion(**result["confusion"])
    pairs(
        (row.name + (f" ({row.n:,})" if row.n is not None else ""), row.text)
        for row in [*scores.of_task(result), *scores.reasoning(result)]
    )


def print_reasoner(reasoner: dict[str, Any], n: int) -> None:
    """Who wrote the reasoning of a two-model pipeline."""
    silent = reasoner["without_reasoning"]
    alone = f"; {silent:,} of {n:,} had none, and were answered alone" if silent else ""
    line(f"reasoning from {reasoner['run']}{alone}")


def _print_confusion(labels: list[str], counts: list[list[int]]) -> None:
    """Which class was taken for which; of many classes the commonest confusions."""
    if len(labels) <= MATRIX_LABELS:
        table(
            ["gold ╲ predicted", *(f">{label}" for label in labels), ">nothing"],
            [[label, *map(str, row)] for label, row in zip(labels, counts)],
        )
        return
    mistaken = [
        (count, label, answer)
        for label, row in zip(labels, counts)
        for answer, count in zip([*labels, "nothing"], row)
        if answer != label and count
    ]
    table(
        ["gold", "predicted", ">times"],
        [
            [label, answer, str(count)]
            for count, label, answer in sorted(mistaken, reverse=True)[:MATRIX_LABELS]
        ],
    )


def print_demo(found: dict[str, Any], row: dict[str, Any]) -> None:
    """The demo's ending: before and after, one picture with the model's own words, the bill, the places."""
    before = found["base"]
    columns = ["questions", ">n", ">toast-tiny", *(f">after {name}" for name in found["methods"])]
    results = [before, *(method["eval"] for method in found["methods"].values())]
    rows = [
        ["all", str(before["n"]), *(percent(each["scores"]["robust"]) for each in results)],
        *(
            [
                kind,
                str(group["n"]),
                *(percent(each["by_kind"].get(kind, {}).get("robust")) for each in results),
            ]
            for kind, group in before["by_kind"].items()
        ),
        ["format kept", "", *(percent(each["format_rate"]) for each in results)],
    ]
    line()
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
    line()
    line(
        f"On a rented {found['gpu']} the same fine-tuning would cost about {dollars(usd)}; here it was free."
    )
    for name, method in found["methods"].items():
        out.print(
            Text(f"{name} run  ", style="dim")
            + Text(method["run"])
            + Text(f"  ({duration(method['measured']['seconds'])} since the start)", style="dim")
        )
    last = list(found["methods"].values())[-1]["run"]
    print_next(f'toasterft ask {last} {row["image"]} "{row["question"]}"')


def print_image(path: str, width: int = 56) -> None:
    """A picture in the terminal, two pixels per character; nothing where the output is no terminal."""
    if not out.is_terminal:
        return
    from PIL import Image

    image = ImageRef(path, Path(path)).open()
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

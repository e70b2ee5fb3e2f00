"""Seconds that `toasterft data check` takes for 20,000 chart-sized images on two cores.

python benchmarks/data_check.py [--images 20000] [--folder check]

Drawn charts, scaled to 800 x 557 px (ChartQA's most frequent size), are RGBA PNGs as most of ChartQA's are.
Each file is its own: a few bytes behind the end of the PNG tell the copies of one drawing apart, so that every
file is read and decoded, and the search for pictures that look the same has something to find.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import common
from PIL import Image

from toasterft.data.charts.draw import draw
from toasterft.data.charts.sample import make_chart

SIZE_PX = (800, 557)
DRAWN_PX = (768, 535)  # the largest the generator draws
DRAWINGS = 200
CORES = 2


def write(folder: Path, images: int) -> None:
    """The data set: one row an image, with a trace of a sentence or two."""
    (folder / "images").mkdir(parents=True)
    drawn = []
    for seed in range(min(DRAWINGS, images)):
        path = folder / "drawing.png"
        chart = draw(make_chart(Random(seed), "core", DRAWN_PX))
        chart.resize(SIZE_PX, Image.Resampling.LANCZOS).convert("RGBA").save(path)
        drawn.append(path.read_bytes())
    path.unlink()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as rows:
        for number in range(images):
            name = f"images/{number:06}.png"
            (folder / name).write_bytes(drawn[number % len(drawn)] + b"%08d" % number)
            value = number % 97 + 1
            row = {
                "id": f"r{number}",
                "image": name,
                "question": f"What is the value of bar {number}?",
                "answer": str(value),
                "reasoning": f"red = {value}, blue = 3. The bar in question is red. So the answer is {value}.",
            }
            rows.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None, help="kept, and used again where it is there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.folder or Path(scratch)) / f"{asked.images}"
        if not (folder / "train.jsonl").exists():
            write(folder, asked.images)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
        load, began = os.getloadavg()[0], time.perf_counter()
        words = [sys.executable, "-m", "toasterft", "data", "check", str(folder), "--json", "--quiet"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    result = {
        "images": asked.images,
        "size_px": SIZE_PX,
        "cores": CORES,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_bytes": used.ru_maxrss * 1024,
        "load_before": round(load, 2),
        "findings": found["counts"],
    }
    print(result)
    common.write("data_check", result)


if __name__ == "__main__":
    main()

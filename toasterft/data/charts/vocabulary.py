"""The words on a chart: label pools, series names, titles.

Every label is a single word without commas, full stops or spaced signs, so that the traces' grammar
(`check.py`) can be read back without guessing. No pool of `HARD` shares a word with `FULL`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """Labels of one sort. Those of an ordered pool are only used as a run of neighbours."""

    noun: str
    words: tuple[str, ...]
    ordered: bool = False


FULL_POOLS = (
    Pool("year", tuple(str(year) for year in range(2005, 2025)), ordered=True),
    Pool(
        "month",
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
        ordered=True,
    ),
    Pool("fruit", ("apple", "pear", "plum", "kiwi", "lemon", "mango", "peach", "grape", "melon", "fig")),
    Pool(
        "country", ("Spain", "Italy", "Japan", "Peru", "Chile", "India", "Kenya", "Egypt", "Norway", "Brazil")
    ),
    Pool("drink", ("tea", "coffee", "water", "milk", "juice", "cocoa")),
    Pool("sport", ("tennis", "soccer", "golf", "rugby", "judo", "hockey")),
)
FULL_SERIES = (
    ("north", "south", "west"),
    ("online", "shop", "phone"),
    ("adults", "teens", "kids"),
)
FULL_QUANTITIES = ("Sales", "Visitors", "Orders", "Tons", "Votes")

HARD_POOLS = (
    Pool("round", tuple(f"R{n}" for n in range(1, 13)), ordered=True),
    Pool("hour", ("6am", "7am", "8am", "9am", "10am", "11am", "noon", "1pm", "2pm", "3pm"), ordered=True),
    Pool("metal", ("iron", "zinc", "gold", "tin", "lead", "silver")),
    Pool("animal", ("cat", "dog", "fox", "owl", "bear", "wolf", "crab", "seal")),
    Pool("planet", ("Mars", "Venus", "Saturn", "Pluto", "Earth")),
)
HARD_SERIES = (
    ("alpha", "beta", "gamma"),
    ("day", "dusk", "night"),
    ("old", "new", "trial"),
)
HARD_QUANTITIES = ("Energy", "Score", "Noise", "Load")

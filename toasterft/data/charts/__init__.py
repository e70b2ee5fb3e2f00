"""Charts drawn at random, with questions whose answers and reasoning can be checked exactly.

A bench for "perceive, then reason" that needs neither a network nor a GPU: every image comes with
its table, every trace can be worked out again (`scoring.traces.strict_faults`), and the same questions can be asked
about the table as text (`text_table`).
"""

from toasterft.data.charts.draw import draw
from toasterft.data.charts.phrases import HEADINGS, core_vocabulary
from toasterft.data.charts.questions import KINDS, ChartItem, kinds_for, make_items, stream
from toasterft.data.charts.sample import make_chart
from toasterft.data.charts.spec import (
    CHART_KINDS,
    DEFAULT_SIZE_PX,
    DIFFICULTIES,
    Chart,
    Fact,
    facts_key,
    facts_table,
    text_table,
)
from toasterft.data.charts.write import GENERATOR_VERSION, dataset_keys, write_dataset

__all__ = [
    "CHART_KINDS",
    "DEFAULT_SIZE_PX",
    "DIFFICULTIES",
    "GENERATOR_VERSION",
    "HEADINGS",
    "KINDS",
    "Chart",
    "ChartItem",
    "Fact",
    "core_vocabulary",
    "dataset_keys",
    "draw",
    "facts_key",
    "facts_table",
    "kinds_for",
    "make_chart",
    "make_items",
    "stream",
    "text_table",
    "write_dataset",
]

"""Is an answer right? The scorers of every task, and the rates and intervals made from them.

The data's card names the task (`data.example.TASKS`). Every task has the scorer `robust`, ours and the
headline: formats are forgiven, values are not, and it is wrong in doubt. What it asks for:

    chart       the same value in any ordinary writing of it, numbers within 5 %
    yesno-open  yes or no (may open a sentence); else the same short answer, numbers exactly
    choice      the option, by its letter or its words
    class       the label; an answer that names none, or two, is a parse failure and wrong
    math        the same number exactly, TeX and expressions worked out

Charts have two more, for comparison with published tables:

    relaxed     ChartQA's relaxed accuracy to the letter
    contains    the simplified-CoT ("Reasoning on a Toaster") script, lenient

A scorer takes plain text with any tags already taken off, and never raises.
"""

from toasterft.scoring.answers.published import contains, relaxed
from toasterft.scoring.answers.values import robust
from toasterft.scoring.numbers import TOLERANCE, digits_for_words
from toasterft.scoring.statistics import share, wilson
from toasterft.scoring.summary import Scored, summarise, table_pairs
from toasterft.scoring.tasks import SCORERS, Verdict, judge, options_of, right, task_of

__all__ = [
    "SCORERS",
    "TOLERANCE",
    "Scored",
    "Verdict",
    "contains",
    "digits_for_words",
    "judge",
    "options_of",
    "relaxed",
    "right",
    "robust",
    "share",
    "summarise",
    "table_pairs",
    "task_of",
    "wilson",
]

"""How good a trace's thinking is, in [0, 1], with no model as a judge.

It takes the place of DyME's checker (arXiv 2506.23061v2), a 14B model that reads facts, question, answer
and trace and says low, medium or high. Here each statement is worked out again:

    readings     red = 7, "red has 7", "7 for red", "red (7)"   against the facts
    steps        16 - 10 = 6, "the sum of red and blue is 10", 15 > 8
    claims       "the largest is 18, so pink", "two bars are above 5", "the values keep rising"
    conclusion   the last of "so X", "the answer is X", or the last statement, against the gold answer

A sentence that is not understood earns nothing and costs nothing, so that free text can be judged too; a
statement that is understood and false is named in `faults`. Saying a thing twice is saying it once.

    text, numbers, lemmas   what is written      facts, table       what is true
    grammar, steps, claims, readings, reading    what a sentence says and whether it holds
    account                 what was found       conclusion, worth  what it comes to
"""

from toasterft.scoring.numbers import NUM, Number, cleaned, number, same_reading, same_result
from toasterft.scoring.tables import NAME, Cell, Folded, Mention, Table, name_key
from toasterft.scoring.traces.claims import trend
from toasterft.scoring.traces.lemmas import lemma_f1, lemmas
from toasterft.scoring.traces.names import needed_rows, table_of
from toasterft.scoring.traces.score import Checked, check, thinking, thinking_lemma, wrong_steps
from toasterft.scoring.traces.sentences import Sentence, sentences

__all__ = [
    "NAME",
    "NUM",
    "Cell",
    "Checked",
    "Folded",
    "Mention",
    "Number",
    "Sentence",
    "Table",
    "check",
    "cleaned",
    "lemma_f1",
    "lemmas",
    "name_key",
    "needed_rows",
    "number",
    "same_reading",
    "same_result",
    "sentences",
    "table_of",
    "thinking",
    "thinking_lemma",
    "trend",
    "wrong_steps",
]

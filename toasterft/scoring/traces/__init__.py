"""Verify a trace against the table and the gold answer, with no model as a judge.

It takes the place of DyME's checker (arXiv 2506.23061v2), a 14B model that reads facts, question, answer
and trace and says low, medium or high. Here each statement is worked out again:

    readings     red = 7, "red has 7", "7 for red", "red (7)"   against the facts
    arithmetic   16 - 10 = 6, "the sum of red and blue is 10"
    claims       15 > 8, "the largest is 18, so pink", "two bars are above 5", "the values keep rising"
    check        the score; the last of "so X", "the answer is X", or the last statement, against the gold answer
    strict       our own sentences: here what is not understood is a fault
    quality      figures over many traces          prose   what gives a trace of a teacher away

For `check` a sentence that is not understood earns nothing and costs nothing, so that free text can be judged
too; a statement that is understood and false is named in `faults`. Saying a thing twice is saying it once.
"""

from toasterft.scoring.traces.check import Checked, check, wrong_steps
from toasterft.scoring.traces.sentences import lemma_f1, lemmas, needed_rows, sentences
from toasterft.scoring.traces.strict import strict_faults

__all__ = [
    "Checked",
    "check",
    "lemma_f1",
    "lemmas",
    "needed_rows",
    "sentences",
    "strict_faults",
    "wrong_steps",
]

"""Scorers of published tables, for comparison: ChartQA's to the letter, and our reading of the simplified-CoT one."""

from __future__ import annotations

import re
import string

from toasterft.scoring.numbers import TOLERANCE, digits_for_words


def _chartqa_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed(prediction: str, gold: str) -> bool:
    """ChartQA's relaxed accuracy as vis-nlp/ChartQA and pix2struct define it, nothing cleaned.

    So `12%` against `12`, `1,200` against `1200` and `0.0` against `0` are wrong, and the year 2017
    against 2010 is right. A gold `nan` is wrong even against itself.
    """
    predicted, wanted = _chartqa_float(prediction), _chartqa_float(gold)
    if predicted is not None and wanted:
        return abs(predicted - wanted) / abs(wanted) <= TOLERANCE
    return prediction.lower() == gold.lower()


_NUMBER = re.compile(
    r"(?<![\w.])-?(?:\d+(?:\.\d+)?|\.\d+)(?![\w]|\.\d)", re.ASCII
)  # `16.9`, `-5`; not the 5 of `5th`
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def contains(prediction: str, gold: str) -> bool:
    """Our reading of the simplified-CoT report's script: the gold occurs in the output, both made plain.

    Lower-case, number words to digits; a gold that is a number must be one of the numbers of the output, sign and
    point included and without tolerance, any other gold stands somewhere in it, ASCII punctuation off. It
    inflates, and is kept so: `Male` is found in `Female`, `12` in "12 or 13", and a gold of punctuation alone in
    everything. Words are turned first, because the hyphen of "twenty-five" is punctuation too.
    """
    output, wanted = (digits_for_words(text.translate(_SIGNS).lower()) for text in (prediction, gold))
    output, wanted = (re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) for text in (output, wanted))
    if _NUMBER.fullmatch(number := wanted.strip(" .$%")):
        return number in _NUMBER.findall(output.replace("$", " "))
    output, wanted = (text.translate(_NO_PUNCTUATION) for text in (output, wanted))
    return wanted.strip() in output


_SIGNS = str.maketrans({"\u2212": "-"})

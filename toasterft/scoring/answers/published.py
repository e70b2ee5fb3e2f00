"""The scorers of published tables, to the letter and with their faults, for comparison with them."""

from __future__ import annotations

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


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def contains(prediction: str, gold: str) -> bool:
    """The simplified-CoT script: the gold occurs anywhere in the output, both made plain.

    Lower-case, number words to digits, ASCII punctuation off. It inflates, and is kept so: `1` is found
    in `16.9`, `Male` in `Female`, and a gold of punctuation alone in everything. Numbers have no
    tolerance. Words are turned first, because the hyphen of "twenty-five" is punctuation too.
    """
    plain, wanted = (digits_for_words(t.lower()).translate(_NO_PUNCTUATION) for t in (prediction, gold))
    return wanted.strip() in plain

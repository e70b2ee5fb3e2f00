"""Word lists that several readers of questions and traces share, each as alternatives of a pattern, lower-case."""

from __future__ import annotations

import re

# "the largest", "the smallest"; the second list of each are words that may mean something else as well.
LARGEST = "largest|highest|greatest|biggest|maximum|max|tallest|longest"
LARGEST_LOOSE = "peak|top|topmost|most"
SMALLEST = "smallest|lowest|minimum|min|shortest"
SMALLEST_LOOSE = "least|fewest"
# "red is higher than blue", "4 points below"
MORE = "more|higher|larger|greater|bigger|above|taller|longer|over"
FEWER = "less|lower|smaller|fewer|below|under|shorter"
# "above 5", "fewer than 5": what stands before the bound
ABOVE = r"above|over|(?:greater|more|higher|larger)\s+than|exceed(?:ing|s|ed)?"
BELOW = r"below|under|(?:less|lower|smaller|fewer)\s+than"

ORDINALS = {"second": 2, "third": 3, "fourth": 4, "fifth": 5}
AMOUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "2": 2, "3": 3, "4": 4, "5": 5}
COLOURS = "red|orange|yellow|green|blue|navy|purple|pink|brown|gr[ae]y|black|white"
TREND = "trend|rising|falling|increasing|decreasing"
# What the marks of a chart are called.
MARKS = (
    "bars?|slices?|segments?|sections?|points?|dots?|columns?|lines?|values?|labels?|categor(?:y|ies)|graphs?"
)
# "about 7": the number need not be exact
HEDGE = (
    "≈|about|approximately|approx\\.?|around|roughly|nearly|almost|close to|just (?:over|under|above|below)"
)

UNITS = "one|two|three|four|five|six|seven|eight|nine"
TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
SCALES = {"trillion": 10**12, "billion": 10**9, "million": 10**6, "thousand": 10**3}

# Words that carry no content, and lemmas that no rule gives.
STOP = frozenset(
    re.findall(
        r"\w+",
        "a about above after again all also am an and any are as at be because been before being below "
        "between both but by can cannot clearly could did do does doing down during each either every few "
        "finally for from further had has have having he hence her here hers him his how however i if in into "
        "is it its itself just let like may me more most much must my need neither next no nor not now of off "
        "on once only or other our out over own please she should since so some such than that the their them "
        "then there therefore these they this those through thus to too under until up us very was we well "
        "were what when where which while who whom whose why will with within without would yet you your ",
    )
)
IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "less": "less", "series": "series",
    "highest": "high", "higher": "high", "lowest": "low", "lower": "low", "largest": "large", "larger": "large",
    "smallest": "small", "smaller": "small", "greatest": "great", "greater": "great", "biggest": "big",
    "bigger": "big", "found": "find", "shown": "show", "gave": "give", "given": "give", "rose": "rise",
    "risen": "rise", "fell": "fall", "fallen": "fall", "grew": "grow", "grown": "grow", "made": "make",
    "taken": "take", "took": "take", "added": "add", "adding": "add",
}  # fmt: skip

"""Pieces of patterns that several readers of sentences share. A name is a single character (`table.Folded`)."""

from __future__ import annotations

import re

from toasterft.scoring import lexicon
from toasterft.scoring.numbers import HEDGE, NUM
from toasterft.scoring.tables import NAME

OPERAND = rf"(?:{NUM}|{NAME})"
EQUALS = (
    r"\s*,?\s*(?:=|≈|(?:which\s+|that\s+)?(?:is|are|was|were|equals?|gives?|makes?|yields?|leaves|comes\s+to|come\s+to|"
    rf"results?\s+in|amounts?\s+to)\b)\s*(?:equal\s+to\s+|us\s+|a\s+total\s+of\s+)?(?:{HEDGE}\s*)?"
)
MORE, FEWER = f"(?:{lexicon.MORE})", f"(?:{lexicon.FEWER})"
POINTS = r"(?:\s+(?:percentage\s+)?(?:points?|units?))?"
BOUND = rf"(?:(?P<above>{lexicon.ABOVE})|(?P<below>{lexicon.BELOW}))\s+(?P<bound>{NUM})"
ASSIGNED = re.compile(rf"(?P<name>[^=,]{{1,80}}?)\s*=\s*(?P<value>{NUM})")
# What may stand left of "=" or "is" and be no label.
GENERIC = re.compile(
    r"\b(?:sum|totals?|difference|ratio|average|mean|median|result|answer|values?|numbers?|counts?|gap|product|quotient|"
    r"change|increase|decrease|share|percentages?|max(?:imum)?|min(?:imum)?|largest|smallest|highest|lowest|range|axis|"
    r"scale|title|units?|step|interval|legend|it|this|that|there|here|which|what|each|one|years?|label|x|y|n|half|rest|"
    r"remainder|all|both|other|the|and|bars?|first|second|last|latest|previous|next|order|rank|¤)\b|¤",
    re.IGNORECASE,
)
USED = "¤"  # stands where a step was read

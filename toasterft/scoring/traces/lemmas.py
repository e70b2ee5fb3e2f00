"""What words two texts share: the thinking reward of "Pure DyME", without a tagger."""

from __future__ import annotations

import re

from toasterft.scoring.numbers import cleaned

_STOP = frozenset(
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
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")
_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "less": "less", "series": "series",
    "highest": "high", "higher": "high", "lowest": "low", "lower": "low", "largest": "large", "larger": "large",
    "smallest": "small", "smaller": "small", "greatest": "great", "greater": "great", "biggest": "big",
    "bigger": "big", "found": "find", "shown": "show", "gave": "give", "given": "give", "rose": "rise",
    "risen": "rise", "fell": "fall", "fallen": "fall", "grew": "grow", "grown": "grow", "made": "make",
    "taken": "take", "took": "take", "added": "add", "adding": "add",
}  # fmt: skip


def _lemma(word: str) -> str:
    """A crude lemma: plural, -ing and -ed taken off. Both sides go through it, so a stem will do."""
    if word in _IRREGULAR or len(word) < 4 or not word.isalpha():
        return _IRREGULAR.get(word, word)
    for ending, put in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + put
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1].removesuffix("e")
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and re.search("[aeiouy]", stem):
            doubled = stem[-1] == stem[-2] and stem[-1] not in "lsz"
            return stem[:-1] if doubled else stem
    return word.removesuffix("e")


def lemmas(text: str) -> set[str]:
    """The content lemmas of a text: lower-case, stop words off, numbers kept."""
    words = (word.removesuffix("'s") for word in _WORD.findall(cleaned(text).lower()))
    return {_lemma(word) for word in words if word not in _STOP and (len(word) > 1 or word.isdigit())}


def lemma_f1(trace: str, reference: str) -> float:
    """F1 over the two sets of content lemmas: the thinking reward of "Pure DyME" (official code).

    The paper's lemmas are spaCy's (en_core_web_sm) of nouns, names, verbs, adjectives and numbers. Here
    a word is what the stop list leaves, so adverbs count too, and `_lemma` strips endings by rule; both
    sides alike, which keeps the F1 of equal texts at 1 and of texts without a common word at 0.
    """
    said, wanted = lemmas(trace), lemmas(reference)
    both = len(said & wanted)
    return 2 * both / (len(said) + len(wanted)) if both else 0.0

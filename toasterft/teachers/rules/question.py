"""Parse a question: operations, numbers, and the names it mentions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

from toasterft.scoring import lexicon
from toasterft.scoring.numbers import fraction

# Operation: the words that can mean nothing else, and those that may.
OPERATIONS: dict[str, tuple[str, str]] = {
    "largest": (lexicon.LARGEST, rf"(?<!at )(?!topmost)(?:{lexicon.LARGEST_LOOSE})|peaked|hardest|high"),
    "smallest": (lexicon.SMALLEST, rf"(?<!at )(?:{lexicon.SMALLEST_LOOSE})|bottom|easiest|low"),
    "sum": ("sums?|add(?:ed|ing)?|sum up", r"total|together|altogether|combin\w*|plus|both|overall|net"),
    "difference": (
        r"differen\w*|subtract\w*",
        rf"(?!over|under|taller|longer|shorter)(?:{lexicon.MORE}|{lexicon.FEWER})|gap|minus|increas\w*|decreas\w*|chang\w*|deduct\w*|exceeds?|"
        r"dr[oa]p\w*|r[io]se\w*|gr[eo]w\w*|f[ae]ll\w*|declin\w*|between|compared|farther",
    ),
    "mean": ("averages?|mean|avg", ""),
    "median": ("medians?", "middle"),
    "mode": ("modes?", r"frequent\w*|repeat\w*"),
    "ratio": (r"ratios?|divided? .*\bby|quotient", r"times|proportion|over|divid\w*"),
    "product": (r"product|multipl\w*", ""),
    "count": ("", "how many|number of|count|occurrences?"),
    "colour": ("", "colou?rs?|kinds?|types?"),
}


@cache
def words(pattern: str) -> re.Pattern[str]:
    """Whole words of a pattern, in any case; nothing at all for an empty one."""
    return re.compile(rf"\b(?:{pattern})\b" if pattern else r"(?!)", re.IGNORECASE)


_SURE = {name: words(sure) for name, (sure, _) in OPERATIONS.items()}
_LOOSE = {name: words(loose) for name, (_, loose) in OPERATIONS.items()}
# "the same or better", "at least somewhat": shares that are added, where nothing else is asked for
_ADDED = words("and|or|at least|at most")
# "how many bars", not "how many more", "number of times"
_COUNTED = re.compile(
    r"\b(?:how many|number of|count|occurrences?)\b(?! (?:more|less|fewer|times|percent\w*|points?)\b)",
    re.IGNORECASE,
)
# "Which city has more men?" asks for the largest; "more than" compares.
_MORE = re.compile(
    r"\b(?:more|higher|larger|greater|(less|fewer|lower|smaller))\b(?!\s+tha?[en])", re.IGNORECASE
)
# "In which year …", "Name the …"
_WHICH = re.compile(
    r"\W*(?:in |at |on )?(?:which|whose|who|what|where|when|identify|name|find)\b", re.IGNORECASE
)
_NUMBERS = re.compile(
    r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?![\w-]|\.\d)"
)  # 1,200.5; not the 5 of "15-19" or "v5"
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")  # "o'clock" is one
_EMPTY = frozenset(
    re.findall(
        r"\S+",
        "a an and are as at be by did do does for from had has have how in is it many much of on or that "
        "the their there they this to was were what what's which who whose will with",
    )
)
_END = words("(rightmost|latest|last|most recent)|leftmost|earliest|first")
_RANGE = words("from|between|to|through|until|during")  # "from 2009 to 2014"
_YEAR = re.compile(r"(?:19|20)\d\d")
SAME_WORD = 0.84  # similarity of two spellings; the names in ChartQA's tables were read off pictures
LONG_ENOUGH = 6  # letters of a name that are not found in other words by chance


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def tokens(text: str) -> list[str]:
    """Lower-case words that carry meaning; all words where none does."""
    found = _WORD.findall(text.lower())
    return [word for word in found if word not in _EMPTY] or found


@dataclass(frozen=True)
class Question:
    """One question about a table whose labels and series are `names`, or one side of a comparison in it."""

    text: str
    names: tuple[str, ...] = ()

    @cached_property
    def words(self) -> list[str]:
        return tokens(self.text)

    @cached_property
    def operations(self) -> frozenset[str]:
        """Every operation the words may ask for."""
        found = {
            name for name in OPERATIONS if _SURE[name].search(self.text) or _LOOSE[name].search(self.text)
        }
        more = _MORE.search(self.text)
        if more and _WHICH.match(self.text):
            found.add("smallest" if more[1] else "largest")
        if not any(pattern.search(self.text) for pattern in _SURE.values()) and _ADDED.search(self.text):
            found.add("sum")
        if _COUNTED.search(self.text) and not _SURE["difference"].search(self.text):
            found -= {"difference", "ratio"}
        return frozenset(found)

    @cached_property
    def required(self) -> frozenset[str]:
        """Operations that a right derivation must contain; a word of a mentioned name may be just that name."""
        taken = {
            word for name in self.names if self.mention(name) >= 0.6 for word in _WORD.findall(name.lower())
        }
        return frozenset(
            name
            for name, pattern in _SURE.items()
            if any(word.lower() not in taken for word in pattern.findall(self.text))
        )

    @cached_property
    def numbers(self) -> list[Fraction]:
        """Amounts in the question; what looks like a year is taken for one."""
        found = (
            fraction(text.rstrip(",")) for text in _NUMBERS.findall(self.text) if not _YEAR.fullmatch(text)
        )
        return [value for value in found if value is not None]

    @cached_property
    def rank(self) -> int:
        """2 for "second largest"; 1 where no rank is named."""
        return next((rank for word, rank in lexicon.ORDINALS.items() if word in self.words), 1)

    @cached_property
    def amount(self) -> int | None:
        """2 for "two largest"."""
        return next((lexicon.AMOUNTS[word] for word in self.words if word in lexicon.AMOUNTS), None)

    @cached_property
    def end(self) -> int | None:
        """-1 for the rightmost or latest, 0 for the leftmost or earliest mark."""
        found = _END.search(self.text)
        return None if found is None else -1 if found[1] else 0

    @cached_property
    def is_range(self) -> bool:
        return _RANGE.search(self.text) is not None

    def has(self, pattern: str) -> bool:
        """Whether a word or phrase of this pattern stands in the question."""
        return words(pattern).search(self.text) is not None

    @cached_property
    def mention(self) -> Callable[[str], float]:
        """The share of a name's letters in the question, 0 to 1 (a little more for its exact writing)."""
        return cache(self._mention)

    def _mention(self, name: str) -> float:
        parts = tokens(name)
        total = sum(map(len, parts))
        there = sum(len(word) for word in parts if self._has_word(word))
        # "Re publican": names that were read off in pieces.
        letters = _squeezed(name)
        if len(letters) >= LONG_ENOUGH and letters in _squeezed(self.text):
            there = total
        exact = 0.05 if name.lower() in self.text.lower() else 0.0
        return there / total + exact if total else 0.0

    def _has_word(self, word: str) -> bool:
        if word in self.words:
            return True
        if len(word) < 4 or word.isdigit():
            return False
        return any(
            other.startswith(word[:5]) or difflib.SequenceMatcher(None, word, other).ratio() >= SAME_WORD
            for other in self.words
            if len(other) >= 4 and not other.isdigit()
        )

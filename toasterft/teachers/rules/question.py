"""What a question asks for, read from its words: operations, numbers, and the names it mentions."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from toasterft.scoring.numbers import fraction

# Words that ask for an operation: those that can mean nothing else, and those that may.
OPERATIONS: dict[str, tuple[str, str]] = {
    "largest": (
        "highest|largest|biggest|greatest|maximum|max|longest|tallest",
        "(?<!at )most|top|peak(?:ed)?|hardest|high",
    ),
    "smallest": ("lowest|smallest|minimum|min|shortest", "(?<!at )least|fewest|bottom|easiest|low"),
    "sum": ("sums?|add(?:ed|ing)?|sum up", "total|together|altogether|combin\w*|plus|both|overall|net"),
    "difference": (
        "differen\w*|subtract\w*",
        r"gap|minus|more|less|fewer|higher|lower|increas\w*|decreas\w*|chang\w*|deduct\w*|exceeds?|dr[oa]p\w*|"
        r"r[io]se\w*|gr[eo]w\w*|f[ae]ll\w*|declin\w*|below|above|between|larger|greater|smaller|compared|farther",
    ),
    "mean": ("averages?|mean|avg", ""),
    "median": ("medians?", "middle"),
    "mode": ("modes?", "frequent\w*|repeat\w*"),
    "ratio": ("ratios?|divided? .*\bby|quotient", "times|proportion|over|divid\w*"),
    "product": ("product|multipl\w*", ""),
    "count": ("", "how many|number of|count|occurrences?"),
    "colour": ("", "colou?rs?|kinds?|types?"),
}
_NEVER = re.compile(r"(?!)")


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) if pattern else _NEVER


_SURE = {name: _words(sure) for name, (sure, _) in OPERATIONS.items()}
_LOOSE = {name: _words(loose) for name, (_, loose) in OPERATIONS.items()}
# "The same or better", "at least somewhat": shares that are added, where nothing else is asked for.
_ADDED = re.compile(r"\b(?:and|or|at least|at most)\b", re.IGNORECASE)
_COUNTED = re.compile(
    r"\b(?:how many|number of|count|occurrences?)\b(?! (?:more|less|fewer|times|percent\w*|points?)\b)",
    re.IGNORECASE,
)
# "Which city has more men?" asks for the largest; "more than" compares.
_MORE = re.compile(
    r"\b(?:more|higher|larger|greater|(less|fewer|lower|smaller))\b(?!\s+tha?[en])", re.IGNORECASE
)
_WHICH = re.compile(
    r"\W*(?:in |at |on )?(?:which|whose|who|what|where|when|identify|name|find)\b", re.IGNORECASE
)

ORDINALS = {"second": 2, "third": 3, "fourth": 4, "fifth": 5}
AMOUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "2": 2, "3": 3, "4": 4}
_NUMBERS = re.compile(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?![\w-]|\.\d)")
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_EMPTY = re.compile(
    "a|an|and|are|as|at|be|by|did|do|does|for|from|had|has|have|how|in|is|it|many|much|of|on|or|that|"
    "the|their|there|they|this|to|was|were|what|what's|which|who|whose|will|with"
)
_END = re.compile(r"\b(?:(rightmost|latest|last|most recent)|leftmost|earliest|first)\b", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")
SAME_WORD = 0.84  # similarity of two spellings; the names in ChartQA's tables were read off pictures


LONG_ENOUGH = 6  # letters of a name that are not found in other words by chance


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def tokens(text: str) -> list[str]:
    """Lower-case words that carry meaning; all words where none does."""
    words = _WORD.findall(text.lower())
    return [word for word in words if not _EMPTY.fullmatch(word)] or words


@dataclass(frozen=True)
class Asked:
    """One question about a table, or one side of a comparison in it."""

    text: str
    names: tuple[str, ...] = ()
    """Labels and series of the table."""
    _known: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def words(self) -> list[str]:
        return tokens(self.text)

    @cached_property
    def letters(self) -> str:
        return _squeezed(self.text)

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
    def surely(self) -> frozenset[str]:
        """Operations that an answer must contain to be one; a word that a mentioned name has may be that name."""
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
        return next((rank for word, rank in ORDINALS.items() if word in self.words), 1)

    @cached_property
    def amount(self) -> int | None:
        """2 for "two largest"."""
        return next((AMOUNTS[word] for word in self.words if word in AMOUNTS), None)

    @cached_property
    def end(self) -> int | None:
        """-1 for the rightmost or latest, 0 for the leftmost or earliest mark."""
        found = _END.search(self.text)
        return None if found is None else -1 if found[1] else 0

    @cached_property
    def says_range(self) -> bool:
        return (
            re.search(r"\b(?:from|between|to|through|until|during)\b", self.text, re.IGNORECASE) is not None
        )

    def mention(self, name: str) -> float:
        """The share of a name's letters that the question says, 0 to 1; a year counts only as a whole."""
        if name not in self._known:
            wanted = tokens(name)
            said = sum(len(word) for word in wanted if self._says(word))
            total = sum(map(len, wanted))
            # "Re publican": names that were read off in pieces.
            letters = _squeezed(name)
            if len(letters) >= LONG_ENOUGH and letters in self.letters:
                said = total
            exact = 0.05 if name.lower() in self.text.lower() else 0.0
            self._known[name] = said / total + exact if total else 0.0
        return self._known[name]

    def _says(self, word: str) -> bool:
        if word in self.words:
            return True
        if len(word) < 4 or word.isdigit():
            return False
        return any(
            other.startswith(word[:5]) or difflib.SequenceMatcher(None, word, other).ratio() >= SAME_WORD
            for other in self.words
            if len(other) >= 4 and not other.isdigit()
        )

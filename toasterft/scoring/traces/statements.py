"""What our own sentences say (`data.charts.phrases`, `teachers.rules`), and whether it is so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add, eq, gt, lt, mul, sub, truediv

from toasterft.data.charts.phrases import NONE, trend
from toasterft.scoring.lexicon import AMOUNTS, ORDINALS
from toasterft.scoring.numbers import cleaned, format_number, fraction, numbers_in
from toasterft.scoring.tables import Table

_N = r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?"
_NS = rf"{_N}(?:(?:, | and ){_N})*"
_END = re.compile(r"(?:[.,](?= |$)|$) ?")
_SIGN = re.compile(r" ([-+*/]) ")
_FACTORS = (100, 1000)  # between a share, a percentage and a unit of thousands
_RANKS = {f"{word} ": rank for word, rank in ORDINALS.items()} | {"": 1}
_TESTS = {"above": gt, "below": lt, "at": eq}
_ORDERS = {"<": lt, ">": gt, "=": eq}
_APPLY = {"+": add, "-": sub, "*": mul, "/": truediv}


class Statements:
    """Judges statement after statement against the table and the statements before it.

    Attributes:
        cells_read: positions of the cells that were read off, in order.
        given: numbers of the question.
        known: what was read or worked out: as it is written, and exactly.
        terms: how many numbers the last sum or list had.
        listed: how many names the last list had.
        ordered: the last list of values in order.
        gaps: by label (or series), the difference of its two values.
        sentence: the parts of this sentence so far: a reading as its cell's position, anything else as None.
        reached: what the trace has come to.
        leads_to: names that the last statement may lead to.
        chains: comparisons since the last statement of another kind.
    """

    def __init__(self, table: Table, question: str) -> None:
        self.table, self.cells = table, table.cells
        self.words = set(re.findall(r"\w+", question.lower()))
        self.given = {value for each in numbers_in(cleaned(question)) for value in each.readings}
        self.known: dict[Fraction, Fraction] = {}
        self.cells_read: dict[int, None] = {}
        self.gaps: dict[str, Fraction] = {}
        self.terms: int | None = None
        self.listed: int | None = None
        self.ordered: list[Fraction] = []
        self.reached: str | Fraction | None = None
        self.leads_to: set[str] = set()
        self.chains: list[tuple[list[Fraction], list[str]]] = []
        self.faults: list[str] = []
        any_name = _any({name for name in (*table.labels, *table.series) if name})
        full_name = _any(cell.name for cell in table.cells)
        # What our traces say, with one example each; the function tells whether it is so.
        sentences: tuple[tuple[str, Callable[[re.Match[str]], bool]], ...] = (
            (rf"(?P<name>{full_name}) (?:=|is) (?P<value>{_N})(?![0-9]| [-+*/<>])", self._reading),  # red = 7
            (rf"\(?(?P<left>{_N}(?: [-+*/] {_N})+)(?:\) / (?P<by>{_N}))? (?P<equals>[=≈]) (?P<right>{_N})", self._sum),
            (rf"{_N}(?: [<>=] {_N})+", self._order),  # 3 < 5 > 4
            (rf"The (?P<rank>second |third |fourth |fifth |)(?P<most>largest|smallest) is (?P<value>{_N})", self._extreme),
            (rf"The (?P<many>two|three|four|five) (?P<most>largest|smallest) are (?P<values>{_NS})", self._several),
            (rf"In (?P<reverse>reverse )?order: (?P<values>{_NS})", self._sorted),  # In order: 3, 7, 12
            (rf"The middle is (?P<values>{_N})", self._middle),
            (rf"The middle two are (?P<values>{_N} and {_N})", self._middle),
            (rf"(?P<value>{_N}) occurs (?P<times>[0-9]+) times, more often than any other", self._mode),
            (r"There are (?P<count>[0-9]{1,9}) (?P<noun>[a-z]+)(?P<names>: )?(?:, so (?P<again>[0-9]+))?", self._there_are),
            (r"Counted(?P<names>: )", self._recount),  # Counted: red, blue
            (rf"(?P<not>Not )?(?P<side>[Aa]bove|[Bb]elow|[Aa]t) (?P<bound>{_N}): ", self._beyond),  # Not above 5: red, blue
            (r"So (?P<count>[0-9]+)", self._so_many),
            (rf"The one asked for is (?P<name>{any_name})", lambda found: self._get_to(found["name"], True)),
            (rf"(?P<name>{any_name}): (?P<left>{_N} - {_N}) (?P<equals>=) (?P<right>{_N})", self._gap),  # 2017: 65 - 56 = 9
            (r"so (?P<word>(?:yes|no|rising|falling|neither)\b(?![ -]\w))", self._verdict),
            (rf"so (?P<name>{any_name})", lambda found: self._get_to(found["name"], found["name"] in self.leads_to)),
            (r"so (?P<list>\[[^]]*\])", self._list_of_answers),  # so [red, blue]
        )  # fmt: skip
        self.sentences = [(re.compile(pattern), check) for pattern, check in sentences]
        self.sentence: list[int | None] = []
        self.rest = ""

    def read(self, text: str) -> None:
        """Read statement after statement, until one is wrong."""
        self.rest = text.strip()
        while self.rest and not self.faults:
            before = self.rest
            found, check = next(
                ((found, check) for pattern, check in self.sentences if (found := pattern.match(before))),
                (None, None),
            )
            if found is None or check is None:
                self.faults.append(f"not understood: {before[:80]}")
                return
            self.rest = before[found.end() :]
            if found[0].startswith("so ") and not self.sentence:
                self.faults.append(f"follows from nothing: {before[:80]}")
            elif not check(found):
                self.faults.append(f"wrong: {before[: len(before) - len(self.rest)]}")
            if check != self._reading:
                self.sentence.append(None)
            end = _END.match(self.rest)
            if end is None:
                self.faults.append(f"not understood: {before[:80]}")
                return
            if not end[0].startswith(","):
                self.sentence.clear()
            self.rest = self.rest[end.end() :]

    def _get_to(self, result: str | Fraction, right: bool, names: Iterable[str] = ()) -> bool:
        self.reached, self.leads_to, self.chains = result, {*names}, []
        if isinstance(result, Fraction):
            self.known[result] = result
            self.known.setdefault(Fraction(format_number(result)), result)
        return right

    def _scopes(self) -> list[list[int]]:
        """The groups of cells that "the largest" or "above 5" can be about, if every cell of them was read."""
        every = range(len(self.cells))
        series = [[at for at in every if self.cells[at].series == name] for name in self.table.series]
        groups = [*series, *(part for rows in series for part in self._cuts(rows)), [*every]]
        if len(series) > 1:
            groups += [[at for at in every if self.cells[at].label == name] for name in self.table.labels]
        if self.table.zeros_are_gaps:
            groups += [[at for at in rows if self.cells[at].value] for rows in groups]
        return [rows for rows in groups if rows and all(at in self.cells_read for at in rows)]

    def _cuts(self, rows: list[int]) -> list[list[int]]:
        """What a question cuts out of a series: "from 2009 to 2014", "the first three"."""
        named = [place for place, at in enumerate(rows) if self._mentions(self.cells[at].label)]
        cuts = [rows[named[0] : named[-1] + 1]] if len(named) > 1 else []
        amounts = {AMOUNTS[word] for word in self.words & {*AMOUNTS}}
        return [*cuts, *(part for many in amounts for part in (rows[:many], rows[-many:]))]

    def _mentions(self, label: str) -> bool:
        """Whether the question has each word of a label, in whatever number or case."""
        result = (word if len(word) < 5 else word[:4] for word in re.findall(r"\w+", label.lower()))
        return all(any(word.startswith(part) for word in self.words) for part in result)

    def _groups(self) -> list[list[tuple[Fraction, set[str]]]]:
        """(value, names that it may lead to) of each scope, and of the gaps where all were worked out."""
        found = [
            [(self.cells[at].value, {self.cells[at].label, self.cells[at].series}) for at in rows]
            for rows in self._scopes()
        ]
        paired = Counter(
            name for at in self.cells_read for name in (self.cells[at].label, self.cells[at].series)
        )
        if self.gaps and any(
            all(name in self.gaps for name in names if paired[name] > 1)
            for names in (self.table.labels, self.table.series)
        ):
            found.append([(gap, {name}) for name, gap in self.gaps.items()])
        return found

    def _reading(self, found: re.Match[str]) -> bool:
        value = Fraction(found["value"])
        at = [at for at, cell in enumerate(self.cells) if (cell.name, cell.number) == (found["name"], value)]
        if not at or at[0] in self.sentence:  # the second time it stands in another's place
            return False
        self.cells_read[at[0]] = None
        alone = not self.sentence
        self.sentence.append(at[0])
        return self._get_to(value, True, (self.cells[at[0]].label, self.cells[at[0]].series) if alone else ())

    def _sum(self, found: re.Match[str]) -> bool:
        parts = _SIGN.split(found["left"])
        signs, numbers = parts[1::2], [Fraction(part) for part in parts[::2]]
        result, by, sign = Fraction(found["right"]), Fraction(found["by"] or 1), signs[0]
        if len({*signs}) > 1 or not by or (sign == "/" and 0 in numbers[1:]):
            return False
        written, exact = (
            reduce(_APPLY[sign], operands) / by
            for operands in (numbers, [self.known.get(n, n) for n in numbers])
        )
        # A mean's divisor counts what was added; shares are made percentages.
        counts = found["by"] is None or (by == len(numbers) and sign == "+")
        alone = len(numbers) == 2 and sign in "*/"
        free = alone and (numbers[1] in _FACTORS or (sign == "/" and numbers[1] == self.terms))
        right = counts and all(value in self.known for value in (numbers[:1] if free else numbers))
        if found["equals"] == "≈":
            right = right and result in (Fraction(format_number(written)), Fraction(format_number(exact)))
        else:
            right, exact = right and result in (written, exact), result
        if sign == "+":
            self.terms = len(numbers)
        self.known.setdefault(result, exact)
        return self._get_to(exact, right)

    def _order(self, found: re.Match[str]) -> bool:
        parts = found[0].split(" ")
        signs, values = parts[1::2], [Fraction(part) for part in parts[::2]]
        chains = [*self.chains, (values, signs)]
        holds = all(_ORDERS[sign](a, b) for sign, (a, b) in zip(signs, pairwise(values), strict=True))
        right = holds and all(value in self.known or value in self.given for value in values)
        names: set[str] = set()
        if all(signs == [">"] for _, signs in chains):
            # "Do more people A or B": the series that is larger at every label.
            bearers = [
                {name for at in self.cells_read for name in (self.cells[at].label, self.cells[at].series)
                 if self.cells[at].value == first}
                for (first, *_), _ in chains
            ]  # fmt: skip
            names = set.intersection(*bearers)
        self._get_to(values[0], right, names)
        self.chains = chains
        return right

    def _verdict(self, found: re.Match[str]) -> bool:
        """ "so yes" and "so rising", after comparisons, a list or a reading."""
        word, chains = found["word"].lower(), self.chains
        if word not in ("yes", "no"):
            right = len(chains) == 1 and word == trend(chains[0][0])
            right = right and any([value for value, _ in group] == chains[0][0] for group in self._groups())
        elif len(chains) > 1:
            # "Is A always above B": it is not where it is always below.
            right = word == "no" or len({sign for _, signs in chains for sign in signs}) == 1
        else:
            right = not chains or len(chains[0][0]) == 2
        return self._get_to(word, right)

    def _extreme(self, found: re.Match[str]) -> bool:
        value, rank, large = Fraction(found["value"]), _RANKS[found["rank"]], found["most"] == "largest"
        groups = [
            group
            for group in self._groups()
            if len(group) >= rank and sorted((each for each, _ in group), reverse=large)[rank - 1] == value
        ]
        names = {name for group in groups for each, own in group if each == value for name in own}
        return self._get_to(value, bool(groups), names)

    def _several(self, found: re.Match[str]) -> bool:
        values, large = _values(found["values"]), found["most"] == "largest"
        self.terms = self.listed = len(values)
        return len(values) == AMOUNTS[found["many"]] and any(
            sorted((each for each, _ in group), reverse=large)[: len(values)] == values
            for group in self._groups()
        )

    def _sorted(self, found: re.Match[str]) -> bool:
        self.ordered = values = _values(found["values"])
        return values in (sorted(values), sorted(values, reverse=True)) and any(
            sorted(each for each, _ in group) == sorted(values) for group in self._groups()
        )

    def _middle(self, found: re.Match[str]) -> bool:
        values = _values(found["values"])
        spare = len(self.ordered) - len(values)
        right = bool(self.ordered) and spare % 2 == 0 and self.ordered[spare // 2 :][: len(values)] == values
        return self._get_to(values[0], right)

    def _mode(self, found: re.Match[str]) -> bool:
        value, times = Fraction(found["value"]), int(found["times"])
        self.listed = self.terms = times
        counts = [Counter(each for each, _ in group) for group in self._groups()]
        right = any(count.pop(value, 0) == times > max(count.values(), default=0) for count in counts)
        return self._get_to(value, right)

    def _there_are(self, found: re.Match[str]) -> bool:
        count, full = int(found["count"]), self.table.without_gaps()
        groups = {"labels": (self.table.labels, full.labels), "series": (self.table.series, full.series)}
        every = groups.get(found["noun"], (self.cells,))
        names = next((names for names in every if len(names) == count), every[0])
        self.listed = len(names)
        right = len(names) == count and found["again"] in (None, found["count"])
        right = right and (not found["names"] or self._takes([str(name) for name in names]))
        return self._get_to(Fraction(count), right)

    def _recount(self, found: re.Match[str]) -> bool:
        every = ([cell.name for cell in self.cells], self.table.labels, self.table.series)
        return self._takes(max(every, key=lambda names: _takes(self.rest, names)))

    def _so_many(self, found: re.Match[str]) -> bool:
        return self._get_to(Fraction(found["count"]), self.listed == int(found["count"]))

    def _gap(self, found: re.Match[str]) -> bool:
        """The difference of the two values of a label, or of a series."""
        name, result = found["name"], Fraction(found["right"])
        first, second = map(Fraction, found["left"].split(" - "))
        cells = [self.cells[at] for at in self.cells_read]
        own = [cell.value for cell in cells if name in (cell.label, cell.series)]
        self.gaps[name] = result
        return self._get_to(result, first - second == result and first in own and second in own)

    def _beyond(self, found: re.Match[str]) -> bool:
        """Who lies above (below, at) a number, by label, by series or by both."""
        bound, test = Fraction(found["bound"]), _TESTS[found["side"].lower()]
        right = bound in self.known or bound in self.given

        def inside(value: Fraction) -> bool:
            return bool(test(value, bound)) != bool(found["not"])

        best: tuple[int, int] | None = None
        for rows in self._scopes():
            cells = [self.cells[at] for at in rows if inside(self.cells[at].value)]
            for names in (
                [cell.label for cell in cells],
                [cell.series for cell in cells],
                [cell.name for cell in cells],
            ):
                if size := _takes(self.rest, names):
                    best = max(best or (0, 0), (size, len(names)))
        if best is None and self.rest.startswith(NONE) and self.gaps:
            best = None if any(map(inside, self.gaps.values())) else (len(NONE), 0)
        if best is None:
            return False
        self.rest = self.rest[best[0] :]
        self.terms = self.listed = best[1]
        return self._get_to(Fraction(best[1]), right)

    def _takes(self, names: Sequence[str]) -> bool:
        """Whether exactly these names come next."""
        size = _takes(self.rest, names)
        self.listed, self.rest = (len(names), self.rest[size:]) if size else (self.listed, self.rest)
        return bool(size)

    def _list_of_answers(self, found: re.Match[str]) -> bool:
        parts = sorted(part.strip() for part in found["list"].strip("[]").split(","))
        numbers = [fraction(part) for part in parts]
        right = parts in (sorted(self.table.series), sorted(self.table.labels)) or all(
            value is not None and value in self.known for value in numbers
        )
        return self._get_to(found["list"], right)


def _any(names: Iterable[str]) -> str:
    """A pattern for any of these names, the longest first."""
    return "|".join(map(re.escape, sorted({*names}, key=len, reverse=True))) or r"(?!)"


def _takes(text: str, names: Sequence[str]) -> int:
    """How far a text goes that opens with these names, in any order, and none besides; 0 where it does not."""
    rest, left = text, sorted(names, key=len, reverse=True) or [NONE]
    while left:
        name = next((name for name in left if rest.startswith(name)), None)
        if name is None:
            return 0
        left.remove(name)
        rest = rest[len(name) :]
        if left and not rest.startswith(", "):
            return 0
        rest = rest[2:] if left else rest
    return len(text) - len(rest) if not rest or rest[0] in ".," else 0


def _values(text: str) -> list[Fraction]:
    return [Fraction(each) for each in re.findall(_N, text)]

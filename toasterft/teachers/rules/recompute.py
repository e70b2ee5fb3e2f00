"""Works a written trace out again, from the table's text and the trace's words alone.

Written apart from `derive` and `rules`, so that what one gets wrong the other does not repeat: it has the table
read anew (`reread`), knows only the sentences, and holds each against what was read or worked out before. A sentence
it does not understand counts as a fault: that is what `checker`, made for anybody's words, must forgive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from toasterft.data.charts.phrases import HEADINGS
from toasterft.scoring import robust
from toasterft.teachers.rules import reread
from toasterft.teachers.rules.reread import Key

_N = r"-?[0-9]+(?:\.[0-9]+)?"
_END = re.compile(r"(?:[.,](?= |$)|$) ?")
_SCALES = (Fraction(100), Fraction(1000))
_RANKS = {"": 1, "second ": 2, "third ": 3, "fourth ": 4, "fifth ": 5}


def faults(trace: str, facts: Any, answer: str) -> list[str]:
    """What is wrong with a trace, simplified or structured; nothing where all of it holds and ends in the answer."""
    sections = _sections(trace)
    reader = _Reader(facts)
    if not sections:
        reader.read(trace)
        reader.conclude(answer)
        return reader.faults
    if list(sections) != list(HEADINGS):
        return ["the headings are not the six, in order"]
    if sections["Observations"] != "none.":
        reader.read(sections["Observations"])
    reader.read(sections["Conclusion"])
    reader.conclude(answer)
    reader.read(sections["Recheck"])
    if sections["Final Answer"] != answer:
        reader.faults.append("the final answer is another")
    return reader.faults


def _sections(trace: str) -> dict[str, str]:
    found = re.findall(rf"^({'|'.join(HEADINGS)}): (.*)$", trace, re.MULTILINE)
    return dict(found)


class _Reader:
    """Goes through a trace, keeping what was read (`stated`) and worked out (`known`)."""

    def __init__(self, facts: Any) -> None:
        self.table = reread.table(facts)
        self.names: dict[str, list[Key]] = {}
        for label, series in self.table:
            self.names.setdefault(f"{series} {label}" if series else label, []).append((label, series))
        self.labels = reread.labels(facts)
        self.series = list(dict.fromkeys(series for _, series in self.table))
        self.stated: dict[Key, Fraction] = {}
        self.known: set[Fraction] = set()
        self.terms = 0  # how many numbers the last sum or list had
        self.ordered: list[Fraction] = []
        self.gaps: dict[str, Fraction] = {}
        self.said: str | Fraction | None = None  # where the trace has got to
        self.faults: list[str] = []
        self.sentences: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
            (re.compile(rf"(?P<left>{_N}(?: [-+*/] {_N})+) (?P<equals>[=≈]) (?P<right>{_N})"), self._sum),
            (re.compile(rf"{_N}(?: [<>=] {_N})+"), self._order),
            (re.compile(rf"The (second |third |fourth |fifth |)(largest|smallest) is ({_N})"), self._extreme),
            (re.compile(rf"The (largest|smallest) ([2-5]) are ((?:{_N}(?:, | and )?)+)"), self._several),
            (re.compile(rf"In (reverse )?order: ({_N}(?:, {_N})*)"), self._sorted),
            (re.compile(rf"The middle is ({_N})"), self._middle),
            (re.compile(rf"The middle two are ({_N}) and ({_N})"), self._middles),
            (re.compile(rf"({_N}) occurs ([0-9]+) times, more often than any other"), self._mode),
            (re.compile(r"So ([0-9]+)"), self._so_many),
        )

    # --- the walk ---

    def read(self, text: str) -> None:
        rest = text.strip()
        while rest and not self.faults:
            taken = self._reading(rest) or self._list(rest) or self._sentence(rest) or self._so(rest)
            if not taken:
                self.faults.append(f"not understood: {rest[:80]}")
                return
            rest = rest[taken:]
            end = _END.match(rest)
            if end is None:
                self.faults.append(f"goes on oddly: {rest[:80]}")
                return
            rest = rest[end.end() :]

    def conclude(self, answer: str) -> None:
        said = self.said
        goal = reread.number(answer)
        if isinstance(said, Fraction) and goal is not None:
            decimals = len(answer.partition(".")[2])
            short = (abs(said) - abs(goal)) * 10**decimals  # rounded, or cut off
            right = -1 <= 2 * short < 2 and said * goal >= 0 if decimals else said == goal
        elif answer.startswith("[") and not isinstance(said, str):
            numbers = [reread.number(part) for part in answer.strip("[]").split(",")]
            right = numbers == list(self.stated.values())[-len(numbers) :]
        elif " = " in answer:
            # The whole chart read out: every reading, and no other.
            pairs = [part.rpartition(" = ") for part in answer.split(", ")]
            wanted = [(name, reread.number(value)) for name, _, value in pairs]
            stated = [
                (f"{key[1]} {key[0]}" if key[1] else key[0], value) for key, value in self.stated.items()
            ]
            right = sorted(wanted, key=str) == sorted(stated, key=str) and len(self.stated) == len(self.table)
        else:
            right = said is not None and robust(str(said), answer)
        if not right and not self.faults:
            self.faults.append(f"ends in {said}, not {answer}")

    def _sentence(self, rest: str) -> int:
        for pattern, check in self.sentences:
            found = pattern.match(rest)
            if found:
                if not check(found):
                    self.faults.append(f"wrong: {found[0]}")
                return found.end()
        return self._gap(rest)

    def _reading(self, rest: str) -> int:
        for name in sorted(self.names, key=len, reverse=True):
            found = re.match(rf"{re.escape(name)} (?:=|is) ({_N})(?![0-9])", rest)
            if found:
                value = Fraction(found[1])
                ulp = Fraction(1, 10 ** len(found[1].partition(".")[2]))
                # A long decimal may be read off with two places or more, nothing else may be rounded.
                near = ulp / 2 if ulp <= Fraction(1, 10) else Fraction(0)
                keys = [
                    key
                    for key in self.names[name]
                    if any(abs(own - value) <= near for own in self.table[key])
                ]
                if not keys:
                    self.faults.append(f"misread: {found[0]}")
                else:
                    self.stated[keys[0]] = value
                    self.known.add(value)
                    self.said = value
                return found.end()
        return 0

    def _so(self, rest: str) -> int:
        """`so NAME`, `so yes`: names hold what may look like an end, so they are looked for whole."""
        if not rest.startswith("so "):
            return 0
        for word in ("yes", "no", "rising", "falling", "neither"):
            if re.match(rf"so {word}\b(?![ -]\w)", rest):
                self.said = word
                return len(word) + 3
        every = sorted({*self.labels, *self.series}, key=len, reverse=True)
        for name in filter(None, every):
            if rest.startswith(f"so {name}"):
                if not self._may_pick(name):
                    self.faults.append(f"nothing leads to {name}")
                self.said = name
                return len(name) + 3
        lists = re.match(r"so (\[[^]]*\])", rest)
        if lists:
            named = sorted(part.strip() for part in lists[1].strip("[]").split(","))
            numbers = [reread.number(part) for part in named]
            if named not in (sorted(self.series), sorted(self.labels)) and not (
                None not in numbers and set(numbers) <= self.known
            ):
                self.faults.append(f"nothing leads to {lists[1]}")
            self.said = lists[1]
            return lists.end()
        return 0

    def _may_pick(self, name: str) -> bool:
        """The name belongs to the number that was just found, or was asked for outright."""
        if name in self.gaps:
            return self.gaps[name] == self.said
        if isinstance(self.said, str):
            return self.said == name or self.said in (*self.labels, *self.series)
        if self.said is None or not self.stated:
            return True
        bearers = {key for key, value in self.stated.items() if value == self.said}
        return any(name in key for key in bearers) or len(self.stated) > 2

    # --- sentences ---

    def _sum(self, found: re.Match[str]) -> bool:
        first, *rest = found["left"].split(" ")
        total, numbers = Fraction(first), [Fraction(first)]
        for sign, text in zip(rest[::2], rest[1::2]):
            value = Fraction(text)
            numbers.append(value)
            if sign == "/" and not value:
                return False
            total = {"+": total + value, "-": total - value, "*": total * value, "/": total / (value or 1)}[
                sign
            ]
        divisor = rest[0] == "/" and len(numbers) == 2 and numbers[1] == self.terms
        scaled = len(numbers) == 2 and rest[0] in "*/" and numbers[1] in _SCALES
        sources = numbers[:1] if divisor or scaled else numbers
        said = Fraction(found["right"])
        holds = (
            total == said
            if found["equals"] == "="
            else abs(total - said) <= max(abs(total) / 100, Fraction(1, 200))
        )
        if rest[0] == "+":
            self.terms = len(numbers)
        right = holds and len({*rest[::2]}) == 1 and all(self._is_known(number) for number in sources)
        self.known |= {total, said}
        self.said = total
        return right

    def _is_known(self, number: Fraction) -> bool:
        return any(
            abs(number - other) <= Fraction(1, 20000) or _rounded(other) == number for other in self.known
        )

    def _order(self, found: re.Match[str]) -> bool:
        parts = found[0].split(" ")
        numbers = [Fraction(part) for part in parts[::2]]
        tests = {"<": lambda a, b: a < b, ">": lambda a, b: a > b, "=": lambda a, b: a == b}
        self.said = numbers[0]
        return all(tests[sign](a, b) for a, sign, b in zip(numbers, parts[1::2], numbers[1:]))

    def _groups(self) -> list[list[Fraction]]:
        """The stated values of each series (a run without holes), of each whole label, and of the whole table."""
        groups = []
        for series in self.series:
            keys = [key for key in self.table if key[1] == series]
            places = [place for place, key in enumerate(keys) if key in self.stated]
            if places:
                run = keys[places[0] : places[-1] + 1]
                if all(key in self.stated or not any(self.table[key]) for key in run):
                    groups.append([self.stated[key] for key in run if key in self.stated])
        for label in self.labels:
            keys = [key for key in self.table if key[0] == label]
            if all(key in self.stated or not any(self.table[key]) for key in keys):
                groups.append([self.stated[key] for key in keys if key in self.stated])
        if all(key in self.stated or not any(self.table[key]) for key in self.table):
            groups.append(list(self.stated.values()))
        groups.append(list(self.gaps.values()))
        return [*groups, *([value for value in group if value] for group in groups)]

    def _extreme(self, found: re.Match[str]) -> bool:
        value, rank = Fraction(found[3]), _RANKS[found[1]]
        self.known.add(value)
        self.said = value
        return any(
            len(group) >= rank and sorted(group, reverse=found[2] == "largest")[rank - 1] == value
            for group in self._groups()
        )

    def _several(self, found: re.Match[str]) -> bool:
        values = [Fraction(text) for text in re.findall(_N, found[3])]
        self.terms = len(values)
        return len(values) == int(found[2]) and any(
            sorted(group, reverse=found[1] == "largest")[: len(values)] == values for group in self._groups()
        )

    def _sorted(self, found: re.Match[str]) -> bool:
        values = [Fraction(text) for text in re.findall(_N, found[2])]
        self.ordered = values
        runs = [
            group[start : start + len(values)]
            for group in self._groups()
            for start in range(len(group) - len(values) + 1)
        ]
        return any(sorted(values) == sorted(run) for run in runs) and values in (
            sorted(values),
            sorted(values, reverse=True),
        )

    def _middle(self, found: re.Match[str]) -> bool:
        self.said = Fraction(found[1])
        half, odd = divmod(len(self.ordered), 2)
        return bool(odd) and self.ordered[half] == self.said

    def _middles(self, found: re.Match[str]) -> bool:
        half = len(self.ordered) // 2
        return len(self.ordered) % 2 == 0 and self.ordered[half - 1 : half + 1] == [
            Fraction(found[1]),
            Fraction(found[2]),
        ]

    def _mode(self, found: re.Match[str]) -> bool:
        value, times = Fraction(found[1]), int(found[2])
        self.said, self.terms = value, times
        for group in self._groups():
            counts = Counter(group)
            if counts[value] == times and all(n < times for other, n in counts.items() if other != value):
                return True
        return False

    def _so_many(self, found: re.Match[str]) -> bool:
        self.said = Fraction(found[1])
        return self.terms == int(found[1])

    def _gap(self, rest: str) -> int:
        """`2017: 65 - 56 = 9`: the difference at one label."""
        for name in sorted({*self.labels, *self.series}, key=len, reverse=True):
            found = re.match(rf"{re.escape(name)}: (?={_N} - )", rest)
            if name and found:
                step = self.sentences[0][0].match(rest, found.end())
                if step is None or not self._sum(step):
                    self.faults.append(f"wrong: {rest[:60]}")
                    return len(rest)
                here = {value for key, value in self.stated.items() if name in key}
                if not {Fraction(text) for text in step["left"].split(" - ")} <= here:
                    self.faults.append(f"not the values of {name}")
                self.gaps[name] = Fraction(step["right"])
                return step.end()
        return 0

    def _list(self, rest: str) -> int:
        """`There are 2 series: A, B`, `Above 40: A, B`, `The one asked for is A`."""
        found = re.match(r"There are ([0-9]+) (labels|series): |Counted: ", rest)
        if found:
            for noun, names in (("labels", self.labels), ("series", self.series)):
                listed = ", ".join(names)
                if found[2] in (None, noun) and rest[found.end() :].startswith(listed):
                    if found[1] is not None:
                        self.said = Fraction(found[1])
                        if len(names) != int(found[1]):
                            self.faults.append("miscounted")
                    return found.end() + len(listed)
            return 0
        found = re.match(r"The one asked for is ", rest)
        if found:
            for name in sorted({*self.labels, *self.series}, key=len, reverse=True):
                if name and rest[found.end() :].startswith(name):
                    self.said = name
                    return found.end() + len(name)
        found = re.match(rf"(Not )?([Aa]bove|[Bb]elow|[Aa]t) ({_N}): ", rest)
        return self._beyond(rest, found) if found else 0

    def _beyond(self, rest: str, found: re.Match[str]) -> int:
        """Who lies above (below, at) a number, told by label, by series or by both."""
        limit, side = Fraction(found[3]), found[2].lower()
        tests = {"above": lambda v: v > limit, "below": lambda v: v < limit, "at": lambda v: v == limit}
        inside = [key for key, value in self.stated.items() if tests[side](value) != bool(found[1])]
        after = rest[found.end() :]
        order = {key: place for place, key in enumerate(self.table)}
        if self.gaps and after.startswith("none"):
            return found.end() + 4
        scopes: list[list[Key]] = [[key for key in inside if key[1] == series] for series in self.series]
        scopes += [[key for key in inside if key[0] == label] for label in self.labels] + [inside]
        told: list[Callable[[Key], str]] = [
            lambda key: key[0],
            lambda key: key[1],
            lambda key: f"{key[1]} {key[0]}" if key[1] else key[0],
        ]
        best = 0
        for scope in scopes:
            for name in told:
                for keys in (scope, sorted(scope, key=lambda key: order[key])):
                    listed = ", ".join(map(name, keys)) or "none"
                    if _listed_anyhow(after, [name(key) for key in keys]) and len(listed) >= best:
                        best, self.terms = len(listed), len(keys)
                        self.said = Fraction(len(keys))
        if not best:
            self.faults.append(f"wrong list: {rest[:80]}")
            return len(rest)
        return found.end() + best


def _listed_anyhow(text: str, names: Sequence[str]) -> bool:
    """Whether a text opens with these names, in any order."""
    rest, left = text, list(names)
    if not left:
        return text.startswith("none")
    while left:
        fitting = [name for name in left if rest.startswith(name)]
        if not fitting:
            return False
        name = max(fitting, key=len)
        left.remove(name)
        rest = rest[len(name) :]
        if left:
            if not rest.startswith(", "):
                return False
            rest = rest[2:]
    return not rest or rest[0] in ".,"


def _rounded(value: Fraction) -> Fraction:
    return Fraction(f"{float(value):.2f}")

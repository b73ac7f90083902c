"""A peer's command line and environment -> what was given for each of its flags, as its own parser would read it.

The peers' parser is github.com/spf13/pflag: `--flag value`, `--flag=value`, a switch is `--flag` or `--flag=false`,
`-f value`, `-fvalue`, `-f=value`, switches in a row `-nw`; flags and arguments in any order, `--` ends the flags.
Every flag stands in a table with what is done about it: none is ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Final

from agent.init.request import Refused
from agent.plan.words import parse_flag

_MAX_WORDS: Final = 4096
"""Words of a command line: above what any template writes, and a bound on what is parsed."""


class Takes(Enum):
    VALUE = "value"
    SWITCH = "switch"


class Fate(Enum):
    HONOURED = "honoured"
    NOTED = "accepted"  # changes nothing here; told on stderr when it was given
    REFUSED = "refused"  # when given, unless with the value that asks for nothing


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a peer; what has none is named by its variable or its key in the peer's file. `how`: what becomes of
    it here, or why nothing does; docs/migrate-*.md say the same words.

    `variables`: environment that sets it, the last one that is set wins over those before, a flag over all.
    `config`: its key in the peer's file. `harmless`: values that ask for nothing, and are let pass though refused.
    """

    name: str
    how: str
    fate: Fate = Fate.HONOURED
    short: str = ""
    takes: Takes = Takes.VALUE
    default: str = ""
    variables: tuple[str, ...] = ()
    config: str = ""
    harmless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """One value: of which flag, and where it was read (`--flag`, the variable, the file's key)."""

    flag: Flag
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class Given:
    """`levels` from the weakest source to the strongest; what a stronger one says of a flag replaces the weaker's."""

    levels: tuple[tuple[Word, ...], ...]

    def words(self, name: str) -> tuple[Word, ...]:
        for level in reversed(self.levels):
            found = tuple(word for word in level if word.flag.name == name)
            if found:
                return found
        return ()

    def word(self, flag: Flag) -> Word:
        """The last one said, or the default."""
        words = self.words(flag.name)
        if words:
            return words[-1]
        return Word(flag, flag.default or ("false" if flag.takes is Takes.SWITCH else ""), flag.name)

    def all(self) -> Iterable[Word]:
        return (word for level in self.levels for word in level)


def parse(argv: Sequence[str], flags: Sequence[Flag], program: str, said: Sequence[str] = ()) -> tuple[Word, ...]:
    """The words of a command line without the program's name. `said`: what may stand before the flags, as the word
    `istio-iptables` does in Istio's template. Raises Refused for what the program's own parser refuses."""
    if len(argv) > _MAX_WORDS:
        raise Refused(program, f"{len(argv)} words", f"more than {_MAX_WORDS} words are no command line")
    reader = _Reader(list(argv), flags, program)
    words: list[Word] = []
    while (item := reader.next()) is not None:
        if item.startswith("--") and len(item) > len("--"):
            words.append(reader.long(item))
        elif item.startswith("-") and len(item) > 1 and item != "--":
            words.extend(reader.shorts(item))
        elif item != "--" and item not in said:
            raise Refused(program, item, "stands for itself, and nothing of the kind is known: flags begin with -")
    return tuple(words)


def of_environment(environ: Mapping[str, str], flags: Sequence[Flag]) -> tuple[Word, ...]:
    """A switch's variable that is empty says nothing: templates set it so when there is nothing to say."""
    set_here = ((flag, name) for flag in flags for name in flag.variables if name in environ)
    words = (Word(flag, environ[name], name) for flag, name in set_here)
    return tuple(word for word in words if word.value or word.flag.takes is Takes.VALUE)


def verdicts(given: Given) -> tuple[str, ...]:
    """Notes on what is accepted and changes nothing. Raises Refused for what is refused."""
    notes: dict[str, None] = {}
    for word in given.all():
        if word.flag.fate is Fate.HONOURED or _asks_for_nothing(word):
            continue
        if word.flag.fate is Fate.REFUSED:
            raise Refused(word.where, word.value, word.flag.how)
        notes[f"{word.where}: nothing to do: {word.flag.how}"] = None
    return tuple(notes)


def _asks_for_nothing(word: Word) -> bool:
    if word.flag.takes is Takes.SWITCH:
        return not switch(word)
    return word.value in word.flag.harmless


def switch(word: Word) -> bool:
    """Raises Refused for what is neither true nor false."""
    try:
        return parse_flag(word.value)
    except ValueError as error:
        raise Refused(word.where, word.value, str(error)) from None


class _Reader:
    def __init__(self, left: list[str], flags: Sequence[Flag], program: str) -> None:
        self._left = left[::-1]
        self._long = {flag.name: flag for flag in flags if flag.name.startswith("--")}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._program = program

    def next(self) -> str | None:
        return self._left.pop() if self._left else None

    def long(self, item: str) -> Word:
        name, equals, value = item.partition("=")
        flag = self._long.get(name)
        if flag is None:
            raise self._unknown(name, value, self._long)
        if equals:
            return Word(flag, value, name)
        return Word(flag, "true" if flag.takes is Takes.SWITCH else self._value(name), name)

    def shorts(self, item: str) -> list[Word]:
        words: list[Word] = []
        letters = item[1:]
        while letters:
            where, rest = f"-{letters[0]}", letters[1:]
            flag = self._short.get(where)
            if flag is None:
                raise self._unknown(where, rest, self._short)
            if rest.startswith("="):
                return [*words, Word(flag, rest[1:], where)]
            if flag.takes is Takes.VALUE:
                return [*words, Word(flag, rest or self._value(where), where)]
            words.append(Word(flag, "true", where))
            letters = rest
        return words

    def _value(self, name: str) -> str:
        value = self.next()
        if value is None:
            raise Refused(name, "", "needs a value")
        return value

    def _unknown(self, name: str, value: str, known: Mapping[str, Flag]) -> Refused:
        near = get_close_matches(name[:80], known, n=1)
        meant = f"; is {near[0]} meant?" if near else ""
        return Refused(name, value, f"is no flag of {self._program}{meant}")

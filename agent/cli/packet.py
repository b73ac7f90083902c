"""The options that describe a packet, of every verb that takes one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from agent.explain.packet import ConntrackState, Way
from agent.printable import printable
from agent.ruleset.packet_options import (
    FLAGS,
    LARGEST_ID,
    PROTOCOLS,
    BadPacket,
    End,
    Options,
    end,
)

Command = TypeVar("Command", bound=Callable[..., Any])
_LARGEST_MARK: Final = 2**32 - 1


class _Number(click.ParamType[int]):
    """Decimal or 0x…, up to `largest`; words where there are some."""

    def __init__(self, name: str, largest: int, words: Mapping[str, int]) -> None:
        self.name = name
        self._largest = largest
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).lower()
        if text in self._words:
            return self._words[text]
        try:
            number = int(text, 16 if text.startswith("0x") else 10)
        except ValueError:
            number = -1
        if not text.isascii() or not 0 <= number <= self._largest:
            words = f"{', '.join(self._words)} or " if self._words else ""
            self.fail(f"'{printable(str(value))}': {words}a number from 0 to {self._largest}, or 0x…", param, ctx)
        return number


class _End(click.ParamType[End]):
    name = "ADDR[:PORT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> End:
        if isinstance(value, End):
            return value
        try:
            return end(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Flags(click.ParamType[int]):
    name = "FLAGS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        bits = 0
        for word in str(value).lower().split(","):
            if word not in FLAGS and word != "none":
                self.fail(f"'{printable(word)}': some of {', '.join(FLAGS)}, with commas between, or none", param, ctx)
            bits |= FLAGS.get(word, 0)
        return bits


_OPTIONS: Final = (
    click.option("--to", type=_End(), required=True, help="Where it goes; [ADDR]:PORT of IPv6."),
    click.option("--from", "source", type=_End(), help="Where it comes from; else as routing chooses."),
    click.option("--proto", type=_Number("PROTOCOL", 255, PROTOCOLS), help="tcp (the default), udp, icmp, sctp, N."),
    click.option("--uid", type=click.IntRange(0, LARGEST_ID), help="User whose socket sends it; 0 if not said."),
    click.option("--gid", type=click.IntRange(0, LARGEST_ID), help="Group whose socket sends it; 0 if not said."),
    click.option("--mark", type=_Number("MARK", _LARGEST_MARK, {}), help="Mark of the socket that sends it (SO_MARK)."),
    click.option("--iface", "interface", metavar="NAME", help="Interface where it arrives; makes it inbound."),
    click.option("--flags", type=_Flags(), help="TCP's: syn, ack, fin, rst, psh, urg; syn if it is new."),
    click.option(
        "--state",
        type=click.Choice([state.value for state in ConntrackState]),
        default=ConntrackState.NEW.value,
        show_default=True,
        help="What conntrack takes it for.",
    ),
    click.option(
        "--direction",
        type=click.Choice([way.value for way in Way]),
        help="Sent from here, or arriving; else as --from, --to and --iface tell.",
    ),
)


def packet_options(command: Command) -> Command:
    """The command gets them as keywords, for `options_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_of(words: dict[str, Any]) -> Options:
    """Of the keywords that `packet_options` gives a command; they are taken out of `words`."""
    way, state, protocol = words.pop("direction"), words.pop("state"), words.pop("proto")
    return Options(
        **{name: words.pop(name) for name in ("to", "source", "uid", "gid", "mark", "interface", "flags")},
        protocol=protocol,
        state=ConntrackState(state),
        way=None if way is None else Way(way),
    )


@contextmanager
def usage() -> Iterator[None]:
    """What contradicts itself in a packet is wrong usage of the option that says it."""
    try:
        yield
    except BadPacket as error:
        raise click.BadParameter(error.reason, param_hint=f"'{error.option}'") from None

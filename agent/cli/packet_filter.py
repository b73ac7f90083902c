"""The options that say which packets are meant, of `rules trace` and `capture`; and how long for."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from agent.explain.packet import Way
from agent.printable import printable
from agent.tracing import filter as meant
from agent.tracing.filter import Chosen, Ends, Filter, InvalidFilter

Command = TypeVar("Command", bound=Callable[..., Any])
Parser = Callable[[str, str], Any]
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
LONGEST_S: Final = 24 * 3600.0


class _Parsed(click.ParamType[Any]):
    """A value that agent.tracing.filter reads, with its own complaint."""

    def __init__(self, name: str, parse: Parser) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(param.opts[0] if param is not None else "", value)
        except InvalidFilter as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType[float]):
    """`10s`, `500ms`, `2m`, `1h`; a bare number is seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{printable(str(value), 50)!r}: give a time up to 24h, as 10s, 500ms or 2m", param, ctx)
        return seconds


_OPTIONS: Final = (
    click.option("--to", "destination", type=_Parsed("ADDR[:PORT]", meant.parse_ends), help="Where it goes."),
    click.option("--from", "source", type=_Parsed("ADDR[:PORT]", meant.parse_ends), help="Where it comes from."),
    click.option(
        "--proto", "protocol", type=_Parsed("PROTOCOL", meant.parse_protocol), help="tcp, udp, icmp, icmpv6, sctp, N."
    ),
    click.option(
        "--iface", "interface", type=_Parsed("NAME", meant.parse_interface), help="Where it arrives or leaves."
    ),
)
_OF_TRACE: Final = (
    click.option("--uid", type=click.IntRange(0, 2**32 - 2), help="User whose socket sends it."),
    click.option(
        "--mark", type=_Parsed("MARK[/MASK]", meant.parse_mark), help="Its mark as it is sent, as 0x539/0xfff."
    ),
    click.option(
        "--direction", type=click.Choice([way.value for way in Way]), help="Sent from here, or arriving; else both."
    ),
    click.option("--every", is_flag=True, help="Every packet, not only those that open a TCP connection."),
)
for_option = click.option(
    "--for", "for_s", type=Duration(), default="10s", show_default=True, help="How long, as 10s or 2m."
)


def filter_options(command: Command) -> Command:
    """Ends, protocol, interface; `filter_of` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def trace_options(command: Command) -> Command:
    """What only nftables can tell of a packet, besides `filter_options`."""
    for option in reversed(_OF_TRACE):
        command = option(command)
    return filter_options(command)


def filter_of(
    destination: Ends | None,
    source: Ends | None,
    protocol: int | None,
    interface: str | None,
    *,
    uid: int | None = None,
    mark: tuple[int, int] | None = None,
    direction: str | None = None,
    every: bool = True,
) -> Filter:
    """Raises BadParameter for what contradicts itself."""
    way = None if direction is None else Way(direction)
    chosen = Chosen.EVERY if every else Chosen.OPENING
    try:
        return Filter(destination or Ends(), source or Ends(), protocol, uid, mark, interface, way, chosen)
    except InvalidFilter as error:
        raise click.BadParameter(str(error), param_hint=f"'{error.option}'") from None

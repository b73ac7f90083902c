"""Where captured packets go: a pcapng file, or lines for people."""

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from agent.capture import pcapng
from agent.kernel.packets import BROADCAST, MULTICAST, OTHERHOST, OUTGOING, Frame
from agent.printable import printable
from agent.tracing.headers import Headers, end

_ADDRESSED: Final = {BROADCAST: pcapng.BROADCAST, MULTICAST: pcapng.MULTICAST, OTHERHOST: pcapng.OTHERS}


@dataclass(frozen=True, slots=True)
class Captured:
    """`comment`: what translation hides; empty where it hides nothing. `lost`: packets before it that were not read."""

    frame: Frame
    link_type: int
    headers: Headers | None
    comment: str
    lost: int = 0


class Output(Protocol):
    def take(self, packet: Captured, /) -> None:
        """May be kept until `flush`."""

    def flush(self) -> None:
        """Raises OSError when it cannot be written."""

    def close(self, lost: int, /) -> None:
        """`lost`: packets in all that were not read."""


class PcapngFile:
    """Each block is written as a whole, so a file whose writer was killed is good so far. `path` `-`: standard output.

    What is there is overwritten, as tcpdump does. Nobody but the owner may read it: packets have secrets. Raises
    OSError when it cannot be made.
    """

    def __init__(self, path: str, snaplen: int, application: str, about: str) -> None:
        self._path = path
        self._snaplen = snaplen
        self._fd = sys.stdout.fileno() if path == "-" else _made(Path(path))
        self._owns = path != "-"
        self._interfaces: dict[tuple[str, int], int] = {}
        self._received: dict[int, int] = {}
        self._last_ns = 0
        self._blocks = [pcapng.section(application, about)]
        try:
            self.flush()
        except OSError:
            self._close()
            raise

    def take(self, packet: Captured) -> None:
        frame = packet.frame
        number = self._number(frame.interface, packet.link_type)
        self._received[number] += 1
        self._last_ns = frame.time_ns
        way = 0 if frame.hardware == _LOOPBACK else pcapng.OUTBOUND if frame.kind == OUTGOING else pcapng.INBOUND
        self._blocks.append(
            pcapng.packet(
                number,
                frame.time_ns,
                frame.data[: self._snaplen],
                frame.length,
                direction=way,
                addressed=_ADDRESSED.get(frame.kind, pcapng.UNICAST),
                comment=packet.comment,
                dropped=packet.lost,
            )
        )

    def _number(self, name: str, link_type: int) -> int:
        number = self._interfaces.get((name, link_type))
        if number is None:
            number = self._interfaces[name, link_type] = len(self._interfaces)
            self._received[number] = 0
            self._blocks.append(pcapng.interface(printable(name), link_type, self._snaplen))
        return number

    def flush(self) -> None:
        data = memoryview(b"".join(self._blocks))
        self._blocks.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None

    def close(self, lost: int) -> None:
        """`lost` is of one socket for all interfaces; it stands with the first."""
        try:
            for number, received in self._received.items():
                self._blocks.append(pcapng.statistics(number, self._last_ns, received, 0 if number else lost))
            self.flush()
        finally:
            self._close()

    def _close(self) -> None:
        if self._owns:
            os.close(self._fd)


_LOOPBACK: Final = 772  # linux/if_arp.h: ARPHRD_LOOPBACK


def _made(path: Path) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Lines:
    """One line a packet, by `write`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def take(self, packet: Captured) -> None:
        frame = packet.frame
        clock = datetime.fromtimestamp(frame.time_ns // 1_000_000_000, UTC).strftime("%H:%M:%S")
        moment = f"{clock}.{frame.time_ns % 1_000_000_000:09d}Z"
        way = "lo" if frame.hardware == _LOOPBACK else "out" if frame.kind == OUTGOING else "in"
        what = "no IP" if packet.headers is None else _ends(packet.headers)
        comment = f"  ({packet.comment})" if packet.comment else ""
        where = printable(frame.interface) if way == "lo" else f"{way} {printable(frame.interface)}"
        self._write(f"{moment}  {where}  {what}  length {frame.length}{comment}")

    def flush(self) -> None:
        pass

    def close(self, lost: int) -> None:
        pass


def _ends(found: Headers) -> str:
    source, destination = end(found.source, found.source_port), end(found.destination, found.destination_port)
    return f"{found.kind}  {source} -> {destination}"

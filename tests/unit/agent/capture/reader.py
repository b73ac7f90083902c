"""pcapng read back, apart from who writes it: blocks, options, packets (draft-ietf-opsawg-pcapng)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
COMMENT, IF_NAME, TSRESOL, FLAGS, DROPPED = 1, 2, 9, 2, 4


@dataclass(frozen=True, slots=True)
class Packet:
    interface: str
    time_ns: int
    data: bytes
    length: int
    comment: str
    direction: int
    dropped: int


@dataclass(slots=True)
class File:
    comment: str = ""
    interfaces: list[tuple[str, int]] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    statistics: dict[int, tuple[int, int]] = field(default_factory=dict)


def read(data: bytes) -> File:
    """A last block that is cut short is left out, as readers do."""
    file = File()
    for kind, body in _blocks(data):
        if kind == SECTION:
            assert struct.unpack_from("<IHH", body) == (0x1A2B3C4D, 1, 0)
            file.comment = _options(body[16:]).get(COMMENT, b"").decode()
        elif kind == INTERFACE:
            options = _options(body[8:])
            assert options[TSRESOL] == b"\x09"
            file.interfaces.append((options[IF_NAME].decode(), struct.unpack_from("<H", body)[0]))
        elif kind == PACKET:
            file.packets.append(_packet(file, body))
        elif kind == STATISTICS:
            options = _options(body[12:])
            file.statistics[struct.unpack_from("<I", body)[0]] = (
                struct.unpack("<Q", options[4])[0],
                struct.unpack("<Q", options[5])[0],
            )
    return file


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        assert length % 4 == 0 and length >= 12
        if offset + length > len(data):
            return
        assert struct.unpack_from("<I", data, offset + length - 4) == (length,)
        yield kind, data[offset + 8 : offset + length - 4]
        offset += length


def _packet(file: File, body: bytes) -> Packet:
    number, high, low, captured, length = struct.unpack_from("<IIIII", body)
    options = _options(body[20 + (captured + 3 & ~3) :])
    return Packet(
        file.interfaces[number][0],
        high << 32 | low,
        body[20 : 20 + captured],
        length,
        options.get(COMMENT, b"").decode(),
        int.from_bytes(options.get(FLAGS, b""), "little") & 3,
        int.from_bytes(options.get(DROPPED, b""), "little"),
    )


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        kind, length = struct.unpack_from("<HH", data)
        if kind == 0:
            assert length == 0 and len(data) == 4
            break
        found[kind] = data[4 : 4 + length]
        data = data[4 + (length + 3 & ~3) :]
    return found

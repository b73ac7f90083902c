"""pcapng files: sections, interfaces, packets with their comments. Pure; each function gives one whole block.

draft-ietf-opsawg-pcapng; block numbers and options as there. Little endian, whatever the machine.
"""

import struct
from collections.abc import Iterable
from typing import Final

_SECTION, _INTERFACE, _PACKET, _STATISTICS = 0x0A0D0D0A, 1, 6, 5
_MAGIC: Final = 0x1A2B3C4D
_UNKNOWN_LENGTH: Final = 0xFFFFFFFFFFFFFFFF

_COMMENT, _IF_NAME, _IF_TSRESOL, _USER_APPLICATION = 1, 2, 9, 4
_FLAGS, _DROP_COUNT = 2, 4
_RECEIVED, _DROPPED = 4, 5
_NANOSECONDS: Final = b"\x09"  # 10^-9
_LONGEST: Final = 0xFFFF  # of an option

ETHERNET, RAW = 1, 101
"""LINKTYPE_*: with Ethernet's header; with IP's first."""

INBOUND, OUTBOUND = 1, 2
UNICAST, MULTICAST, BROADCAST, OTHERS = 1, 2, 3, 4
"""Of the flags word: direction, and how it was addressed."""

Option = tuple[int, bytes]


def section(application: str, comment: str = "") -> bytes:
    """Begins a file. `application`: what wrote it."""
    options = [*_text(_COMMENT, comment), *_text(_USER_APPLICATION, application)]
    return _block(_SECTION, struct.pack("<IHHQ", _MAGIC, 1, 0, _UNKNOWN_LENGTH), options)


def interface(name: str, link_type: int, snaplen: int) -> bytes:
    """The next one; it gets the next number, from 0. Times of its packets are nanoseconds."""
    options = [*_text(_IF_NAME, name), (_IF_TSRESOL, _NANOSECONDS)]
    return _block(_INTERFACE, struct.pack("<HHI", link_type, 0, snaplen), options)


def packet(
    number: int,
    time_ns: int,
    data: bytes,
    length: int,
    *,
    direction: int = 0,
    addressed: int = 0,
    comment: str = "",
    dropped: int = 0,
) -> bytes:
    """Of interface `number`. `data`: the beginning of `length` bytes. `dropped`: lost between the one before and
    this."""
    head = struct.pack("<IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    options = list(_text(_COMMENT, comment))
    if direction or addressed:
        options.append((_FLAGS, struct.pack("<I", direction | addressed << 2)))
    if dropped:
        options.append((_DROP_COUNT, struct.pack("<Q", dropped)))
    return _block(_PACKET, head + data + bytes(-len(data) % 4), options)


def statistics(number: int, time_ns: int, received: int, dropped: int) -> bytes:
    """What interface `number` saw in all, as a file ends."""
    head = struct.pack("<III", number, time_ns >> 32, time_ns & 0xFFFFFFFF)
    return _block(_STATISTICS, head, [(_RECEIVED, struct.pack("<Q", received)), (_DROPPED, struct.pack("<Q", dropped))])


def _text(kind: int, text: str) -> Iterable[Option]:
    """Nothing for an empty one; what is too long is cut between characters."""
    if text:
        yield kind, text.encode()[:_LONGEST].decode(errors="ignore").encode()


def _block(kind: int, body: bytes, options: Iterable[Option]) -> bytes:
    parts = [body]
    for number, value in options:
        parts += [struct.pack("<HH", number, len(value)), value, bytes(-len(value) % 4)]
    if len(parts) > 1:
        parts.append(bytes(4))  # opt_endofopt
    content = b"".join(parts)
    length = struct.pack("<I", len(content) + 12)
    return b"".join((struct.pack("<I", kind), length, content, length))

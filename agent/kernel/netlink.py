"""netlink(7) messages: written, sent in one batch, answers read. What the messages mean is their senders' business.

Raw, because these few messages run for each pod and must be quick: one socket and one system call carry all changes
of a pod; pyroute2's IPRoute alone takes longer to construct than all of them to apply.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

NLM_F_REQUEST: Final = 0x1  # linux/netlink.h, as all below
NLM_F_ACK: Final = 0x4
NLM_F_ROOT: Final = 0x100
NLM_F_MATCH: Final = 0x200
NLM_F_DUMP: Final = NLM_F_ROOT | NLM_F_MATCH
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLM_F_DUMP_INTR: Final = 0x10

_SOL_NETLINK: Final = 270
_GET_STRICT_CHK: Final = 12

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR: Final = struct.Struct("=i")  # struct nlmsgerr begins with the negative errno

_ANSWER_TIMEOUT: Final = struct.pack("@ll", 5, 0)
"""struct timeval. The kernel answers within the send; the bound only keeps a thread from waiting for ever for a lost
answer. The kernel's own time-out (SO_RCVTIMEO), because Python's costs one more system call a message."""
_BUFFER_BYTES: Final = 1 << 16
"""Dumps come in pieces of at most 32 KiB (net/netlink/af_netlink.c: netlink_dump)."""
_DUMP_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Message:
    """One request: type, flags beyond NLM_F_REQUEST, payload (family header and attributes)."""

    kind: int
    flags: int
    payload: bytes


class Netlink:
    """One socket of one netlink protocol in the calling thread's namespace. It pins that namespace: close promptly."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_TIMEOUT)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def transact(self, batch: bytes) -> dict[int, int]:
        """Sends messages that `encode` made, and returns what was answered: sequence -> errno, 0 for done.

        The kernel answers before the send returns (net/netlink/af_netlink.c: netlink_unicast_kernel runs the receiver),
        so what is not there then never comes. Raises OSError when the batch does not fit the socket.
        """
        self._socket.send(batch)
        results: dict[int, int] = {}
        try:
            while True:
                for kind, _, sequence, payload in self._receive(socket.MSG_DONTWAIT):
                    if kind == _NLMSG_ERROR:
                        results[sequence] = results.get(sequence, 0) or -_ERROR.unpack_from(payload)[0]
        except BlockingIOError:
            return results

    def commit(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Sends all in one call; the errno of each in order, 0 for done. One that fails does not stop the next."""
        if not messages:
            return ()
        first = self._sequence + 1
        batch = b"".join(self._encode(m.kind, m.flags | NLM_F_ACK, m.payload) for m in messages)
        self._socket.send(batch)
        results: dict[int, int] = {}
        while len(results) < len(messages):
            for kind, _, sequence, payload in self._receive():
                if kind == _NLMSG_ERROR and sequence >= first:
                    results[sequence] = -_ERROR.unpack_from(payload)[0]
        return tuple(results[first + i] for i in range(len(messages)))

    def ask(self, message: Message) -> bytes:
        """The payload of the one answer. Raises OSError with the kernel's errno."""
        self._socket.send(self._encode(message.kind, message.flags, message.payload))
        while True:
            for kind, _, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    _raise_errno(payload)
                return bytes(payload)

    def dump(self, message: Message) -> list[bytes]:
        """The payloads of all objects that match. A table that changed under the dump is read again, and after three
        attempts taken as it came: it is a live table, the next reading is soon."""
        for _ in range(_DUMP_ATTEMPTS):
            objects, interrupted = self._dump(message)
            if not interrupted:
                break
        return objects

    def _dump(self, message: Message) -> tuple[list[bytes], bool]:
        self._socket.send(self._encode(message.kind, message.flags | NLM_F_DUMP, message.payload))
        objects: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    # NLMSG_DONE carries an errno too: a dump may fail after its first piece.
                    if len(payload) >= _ERROR.size:
                        _raise_errno(payload)
                    return objects, interrupted
                objects.append(bytes(payload))

    def dump_whole(self, message: Message) -> bytes:
        """As `dump`, but the messages as they came, headers and all, the closing one left out: for who compares them
        and does not look inside."""
        for _ in range(_DUMP_ATTEMPTS):
            self._socket.send(self._encode(message.kind, message.flags | NLM_F_DUMP, message.payload))
            pieces: list[bytes] = []
            interrupted = done = False
            while not done:
                data = self._socket.recv(_BUFFER_BYTES)
                offset = 0
                while offset + _HEADER.size <= len(data):
                    length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
                    interrupted |= bool(flags & NLM_F_DUMP_INTR)
                    if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                        _raise_errno(memoryview(data)[offset + _HEADER.size :])
                        done = True
                        break
                    if length < _HEADER.size:
                        raise OSError(errno.EBADMSG, "netlink: a message shorter than its header")
                    offset += (length + 3) & ~3
                pieces.append(data[:offset])
            if not interrupted:
                break
        return b"".join(pieces)

    def strict(self) -> None:
        """Dumps of routes are of the table that is asked for, not of all (NETLINK_GET_STRICT_CHK, Linux 4.20)."""
        self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)

    def _encode(self, kind: int, flags: int, payload: bytes) -> bytes:
        self._sequence += 1
        return encode(Message(kind, flags, payload), self._sequence)

    def _receive(self, flags: int = 0) -> Iterator[tuple[int, int, int, memoryview]]:
        """Raises BlockingIOError when there is nothing: at once with MSG_DONTWAIT, else after the time-out."""
        data = memoryview(self._socket.recv(_BUFFER_BYTES, flags))
        while len(data) >= _HEADER.size:
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
            if length < _HEADER.size:
                raise OSError(errno.EBADMSG, "netlink: a message shorter than its header")
            yield kind, flags, sequence, data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _raise_errno(payload: memoryview) -> None:
    number = -_ERROR.unpack_from(payload)[0]
    if number:
        raise OSError(number, os.strerror(number))


def encode(message: Message, sequence: int) -> bytes:
    """struct nlmsghdr and payload, with the padding."""
    length = _HEADER.size + len(message.payload)
    header = _HEADER.pack(length, message.kind, message.flags | NLM_F_REQUEST, sequence, 0)
    return header + message.payload + bytes(-length % 4)


def payloads(messages: bytes) -> Iterator[bytes]:
    """Of messages that `dump_whole` read."""
    offset = 0
    while offset + _HEADER.size <= len(messages):
        length = _HEADER.unpack_from(messages, offset)[0]
        yield messages[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, data: bytes) -> bytes:
    """struct nlattr with its padding."""
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """Attribute type -> data; of one type given twice, the last. What is cut short ends the reading."""
    return dict(attribute_list(data))


def attribute_list(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and data of each attribute, in order. What is cut short ends the reading."""
    offset, end = 0, len(data)
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            break
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3

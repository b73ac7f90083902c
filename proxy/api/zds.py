"""ZDS messages between agent and proxy, checked on both sides: wire-compatible with istio-cni and ztunnel.

One message a SOCK_SEQPACKET packet. The agent listens; the proxy speaks first (hello), then answers each request with
one acknowledgement, in order. Sources: zds.proto beside this file; istio cni/pkg/nodeagent/ztunnelserver.go; ztunnel
src/inpod/protocol.rs.
"""

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from proxy.api import zds_pb2

MAX_MESSAGE_BYTES: Final = 1024
"""ztunnel's receive buffer (src/inpod/protocol.rs); a longer message would be cut there and the connection closed."""
VERSION: Final = int(zds_pb2.V1)
AT_ONCE: Final = 16
"""What a proxy of ours says: a Unix socket takes in some 270 of the largest requests unread (net.core.wmem_default)."""
REQUEST_TIMEOUT_S: Final = 5.0
"""istio-cni's read and write deadline (cni/pkg/nodeagent/ztunnelserver.go)."""

_MAX_DESCRIPTORS: Final = 16
"""More than the protocol ever sends, so that too many are seen, received and closed rather than cut off unseen."""
_DESCRIPTOR: Final = struct.Struct("i")


class ProtocolError(Exception):
    """The peer broke the protocol. Nothing it sends afterwards can be trusted to line up: close the connection."""


@dataclass(frozen=True, slots=True)
class WorkloadInfo:
    """Who a workload is; each may be empty when the agent does not know it."""

    name: str
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class AddWorkload:
    """Serve this workload; its network namespace's descriptor travels beside the message."""

    uid: str
    info: WorkloadInfo


@dataclass(frozen=True, slots=True)
class KeepWorkload:
    """Part of a snapshot: the workload exists, its namespace was not found yet."""

    uid: str


@dataclass(frozen=True, slots=True)
class DeleteWorkload:
    """`drain_s`: what its connections have to end, in steps of 1 ms; 0: none, and the acknowledgement says that the
    namespace is let go."""

    uid: str
    drain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """The snapshot is complete: what it did not name is to be drained."""


Request = AddWorkload | KeepWorkload | DeleteWorkload | SnapshotSent


@dataclass(frozen=True, slots=True)
class Packet:
    """What arrived: the bytes, and descriptors that the receiver must close. No bytes: the peer closed."""

    data: bytes
    descriptors: tuple[int, ...]

    def close(self) -> None:
        close_all(self.descriptors)


@dataclass(frozen=True, slots=True)
class Hello:
    """`at_once`: so many requests may be under way to this proxy, 1 or more. `began_ns`: when it began, CLOCK_BOOTTIME,
    one clock for all containers of a node; 0 for a proxy that does not say it."""

    at_once: int = 1
    began_ns: int = 0


def encode_hello(hello: Hello = Hello()) -> bytes:
    """What is the default is not said: then it is ztunnel's to the byte."""
    at_once = hello.at_once if hello.at_once > 1 else 0
    return zds_pb2.ZdsHello(version=zds_pb2.V1, at_once=at_once, began_ns=hello.began_ns).SerializeToString()


def decode_hello(data: bytes) -> Hello:
    """Raises ProtocolError unless `data` is a hello of the one version there is."""
    hello = zds_pb2.ZdsHello()
    _parse(hello, data, "hello")
    if hello.version != zds_pb2.V1:
        raise ProtocolError(f"hello of version {int(hello.version)}; only version {VERSION} is spoken here")
    return Hello(max(1, int(hello.at_once)), int(hello.began_ns))


def encode_request(request: Request) -> bytes:
    """Raises ValueError for a message that a ztunnel could not receive whole."""
    message = zds_pb2.WorkloadRequest()
    match request:
        case AddWorkload(uid, info):
            message.add.uid = uid
            message.add.workload_info.name = info.name
            message.add.workload_info.namespace = info.namespace
            message.add.workload_info.service_account = info.service_account
            # Present even when every field is empty: assigning empty strings alone would leave it out.
            message.add.workload_info.SetInParent()
        case KeepWorkload(uid):
            message.keep.uid = uid
        case DeleteWorkload(uid, drain_s):
            deleted = getattr(message, "del")  # `del` is a keyword
            deleted.uid = uid
            deleted.drain_ms = round(drain_s * 1000)
        case SnapshotSent():
            message.snapshot_sent.SetInParent()
    data = message.SerializeToString()
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"ZDS message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} arrive whole: shorten the names"
        )
    return data


def decode_request(data: bytes) -> Request:
    """Unknown fields are ignored; a message without a payload known here raises ProtocolError."""
    message = zds_pb2.WorkloadRequest()
    _parse(message, data, "request")
    match message.WhichOneof("payload"):
        case "add":
            info = message.add.workload_info
            return AddWorkload(
                _uid(message.add.uid, "add"), WorkloadInfo(info.name, info.namespace, info.service_account)
            )
        case "keep":
            return KeepWorkload(_uid(message.keep.uid, "keep"))
        case "del":
            deleted = getattr(message, "del")
            return DeleteWorkload(_uid(deleted.uid, "del"), deleted.drain_ms / 1000)
        case "snapshot_sent":
            return SnapshotSent()
    raise ProtocolError("request without a payload known here")


def encode_ack(error: str = "") -> bytes:
    """An acknowledgement; with `error` a refusal, cut so that the message arrives whole."""
    message = zds_pb2.WorkloadResponse()
    message.ack.SetInParent()
    overhead = 16  # tags and lengths of two nested fields below 16 KiB take less
    message.ack.error = error.encode("utf-8", "replace")[: MAX_MESSAGE_BYTES - overhead].decode("utf-8", "ignore")
    return message.SerializeToString()


def decode_ack(data: bytes) -> str:
    """The peer's error, empty for done. Raises ProtocolError."""
    message = zds_pb2.WorkloadResponse()
    _parse(message, data, "response")
    if message.WhichOneof("payload") != "ack":
        raise ProtocolError("response without an acknowledgement")
    return message.ack.error


def take_descriptor(request: Request, descriptors: Sequence[int]) -> int | None:
    """The namespace that came with an add; None with any other request. The caller owns what is returned.

    A wrong number closes all of them and raises ProtocolError: the sender and we no longer mean the same pod.
    """
    wanted = 1 if isinstance(request, AddWorkload) else 0
    if len(descriptors) != wanted:
        close_all(descriptors)
        raise ProtocolError(f"{type(request).__name__} with {len(descriptors)} descriptors, {wanted} belong to it")
    return descriptors[0] if wanted else None


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Sends one packet; a closed peer raises BrokenPipeError, not SIGPIPE. BlockingIOError on a full queue."""
    ancillary = []
    if descriptors:
        packed = b"".join(_DESCRIPTOR.pack(fd) for fd in descriptors)
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, packed))
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(
    sock: socket.socket,
    max_bytes: int = MAX_MESSAGE_BYTES,
    max_descriptors: int = _MAX_DESCRIPTORS,
    flags: int = 0,
) -> Packet:
    """Receives one packet. BlockingIOError when there is none (non-blocking socket). `flags` as for recvmsg(2).

    A packet cut short, of bytes or of descriptors, raises ProtocolError; what descriptors came are closed.
    """
    # CMSG_LEN, not CMSG_SPACE: with its padding the kernel would put one more descriptor in than is asked for.
    room = socket.CMSG_LEN(max_descriptors * _DESCRIPTOR.size)
    data, ancillary, cut, _ = sock.recvmsg(max_bytes, room, socket.MSG_CMSG_CLOEXEC | flags)
    descriptors = tuple(_descriptors(ancillary))
    if cut & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        what = "message" if cut & socket.MSG_TRUNC else "ancillary data"
        raise ProtocolError(f"{what} cut short: more than {max_bytes} bytes or {max_descriptors} descriptors")
    return Packet(data, descriptors)


def close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            usable = len(data) - len(data) % _DESCRIPTOR.size
            found.extend(fd for (fd,) in _DESCRIPTOR.iter_unpack(data[:usable]))
    return found


def _parse(
    message: zds_pb2.ZdsHello | zds_pb2.WorkloadRequest | zds_pb2.WorkloadResponse, data: bytes, what: str
) -> None:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ProtocolError(f"{what} that is no ZDS message: {len(data)} bytes") from error


def _uid(uid: str, what: str) -> str:
    if not uid:
        raise ProtocolError(f"{what} without a uid")
    return uid

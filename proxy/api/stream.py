"""What agent and proxy say on objects.sock besides ZDS: one JSON object a line, both ways.

The agent greets with Hello, then tells of Kubernetes objects as they are: every one, Synced, and from then on what
changes. The proxy reports each proof connection that reached it, what it has decided on objects whose kind has a
status for that, and, where it has no policy in force yet, that it answers nobody, and when it does. Types and fields
unknown here are ignored, so that either side may be newer than the other. Nothing rests on who the peer is: a relay may
stand between.
"""

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, Literal, NamedTuple

MAX_LINE_BYTES: Final = 1 << 16
"""asyncio.streams' own default; what is said here today is below 1 KiB."""

MAX_OBJECT_LINE_BYTES: Final = 4 << 20
"""etcd takes no request above 1.5 MiB (--max-request-bytes), the API server none above 3 MiB
(apiserver/pkg/server/config.go, MaxRequestBodyBytes); the rest is for what JSON escapes."""

PROOF_PREFIX: Final = b"HEADGATE-PROOF "
PROOF_ANSWER: Final = b"HEADGATE-PROVED\n"
NONCE_DIGITS: Final = 32
PROOF_BYTES: Final = len(PROOF_PREFIX) + NONCE_DIGITS + 1
"""A proof connection's whole request: prefix, nonce in hexadecimal, newline (48 bytes)."""

JUDGED_GROUP: Final = "gateway.networking.k8s.io"
"""Of its objects the agent is told whether they are in force: they have a place for it, `status.parents`."""
MAX_VERDICT_CHARACTERS: Final = 1000
"""Of a field and of a reason each: a verdict stays far below MAX_LINE_BYTES, whatever an object says."""
_MAX_GENERATION: Final = (1 << 63) - 1

_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_COOKIE_MAX: Final = (1 << 64) - 1

Direction = Literal["outbound", "inbound"]


class InvalidMessage(ValueError):
    """A line that cannot be understood: which field, and why. The same line fails again."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first message. `objects`: "stream" when it tells of objects here; "none": the proxy reads its own
    files, or has no policy."""

    objects: str


class ObjectName(NamedTuple):
    """What makes a Kubernetes object unique; `group` is "" for core, `namespace` "" where it has none."""

    group: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ObjectSeen:
    """An object as the API server has it, or its newer version. Only its kind and name were looked at."""

    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class ObjectGone:
    name: ObjectName


@dataclass(frozen=True, slots=True)
class Synced:
    """Every object has been told since Hello: what was not named is gone."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The proxy's word that a proof connection reached it.

    `netns_cookie` is SO_NETNS_COOKIE of the accepted socket, `direction` the listener it came in by, and the original
    destination what was dialled before the redirection.
    """

    nonce: str
    netns_cookie: int
    direction: Direction
    original_destination: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proxy has decided on an object at its metadata.generation (0: it has none): accepted, or not, for the
    `reason` that its `field` gives; both are empty for what is accepted."""

    name: ObjectName
    generation: int
    accepted: bool
    field: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """The proxy's word whether its workers have a policy in force: before, connections wait in its listeners' queues,
    proofs too. Said on each connection that begins without one, and again when there is one; who says nothing serves.
    """

    serves: bool


Message = Hello | Proof | ObjectSeen | ObjectGone | Synced | Verdict | Serving


def encode_proof_request(nonce: str) -> bytes:
    """What the agent's probe sends. `nonce`: 32 hexadecimal digits."""
    if not _NONCE.fullmatch(nonce):
        raise ValueError("a nonce is 32 lower-case hexadecimal digits")
    return PROOF_PREFIX + nonce.encode() + b"\n"


def match_proof_request(data: bytes) -> str | None:
    """The nonce, when `data` is exactly a proof's request; None for everything else."""
    if len(data) != PROOF_BYTES or not data.startswith(PROOF_PREFIX) or not data.endswith(b"\n"):
        return None
    nonce = data[len(PROOF_PREFIX) : -1].decode("ascii", "replace")
    return nonce if _NONCE.fullmatch(nonce) else None


def encode(message: Message) -> bytes:
    """One line, its newline included."""
    match message:
        case Hello(objects):
            fields: dict[str, object] = {"type": "hello", "objects": objects}
        case ObjectSeen(body):
            fields = {"type": "object", "object": body}
        case ObjectGone(name):
            fields = {"type": "gone", **name._asdict()}
        case Synced():
            fields = {"type": "synced"}
        case Proof(nonce, cookie, direction, destination, port):
            fields = {
                "type": "proof",
                "nonce": nonce,
                "netns_cookie": cookie,
                "direction": direction,
                "original_destination": str(destination),
                "port": port,
            }
        case Verdict(name, generation, accepted, field, reason):
            told = {"field": field[:MAX_VERDICT_CHARACTERS], "reason": reason[:MAX_VERDICT_CHARACTERS]}
            fields = {"type": "verdict", **name._asdict(), "generation": generation, "accepted": accepted, **told}
        case Serving(serves):
            fields = {"type": "serving", "serves": serves}
    return _compact(fields) + b"\n"


def decode(line: bytes) -> Message | None:
    """The message of one line; None for a type that is unknown here. Raises InvalidMessage."""
    fields = _object(line)
    match fields.get("type"):
        case "hello":
            return Hello(_text(fields, "objects"))
        case "object":
            if not isinstance(fields.get("object"), dict):
                raise InvalidMessage("object: missing, or no JSON object")
            return ObjectSeen(fields["object"])
        case "gone":
            return ObjectGone(ObjectName(*(_text(fields, field) for field in ObjectName._fields)))
        case "synced":
            return Synced()
        case "proof":
            return _proof(fields)
        case "verdict":
            return Verdict(
                ObjectName(*(_text(fields, field) for field in ObjectName._fields)),
                _number(fields, "generation", _MAX_GENERATION),
                fields.get("accepted") is True,
                _text(fields, "field"),
                _text(fields, "reason"),
            )
        case "serving":
            return Serving(fields.get("serves") is not False)
        case str():
            return None
    raise InvalidMessage("type: missing, or no text")


def _proof(fields: dict[str, Any]) -> Proof:
    nonce = _text(fields, "nonce")
    if not _NONCE.fullmatch(nonce):
        raise InvalidMessage("nonce: not 32 lower-case hexadecimal digits")
    direction = _text(fields, "direction")
    if direction not in ("outbound", "inbound"):
        raise InvalidMessage("direction: neither outbound nor inbound")
    try:
        destination = ip_address(_text(fields, "original_destination"))
    except ValueError as error:
        raise InvalidMessage("original_destination: no IP address") from error
    return Proof(
        nonce,
        _number(fields, "netns_cookie", _COOKIE_MAX),
        "outbound" if direction == "outbound" else "inbound",
        destination,
        _number(fields, "port", 65535),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidMessage(f"{name}: missing, or no text")
    return value


def _number(fields: dict[str, Any], name: str, largest: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise InvalidMessage(f"{name}: missing, or no whole number from 0 to {largest}")
    return value


# ── fd store (fds.sock): a pod's listeners outlive the proxy ─────────────────────────────────────────────────────────
#
# A *box* is one end of a private SEQPACKET pair with one message in it: a frame, and the pod's listening sockets beside
# it (SCM_RIGHTS). Its other end is closed, so nothing can be added. Agent and proxy hold the same end: either can look
# (MSG_PEEK), and either can empty it, even while the other one is stopped: what pins a pod's namespace is the message,
# not a descriptor of one of the two processes.
#
# On fds.sock the proxy asks, the agent answers each packet with one, in order; a packet is one JSON object.

MAX_STORE_PACKET_BYTES: Final = 8192
"""A uid of the ZDS limit (1,024 bytes, each escaped to six at worst) and some words."""
MAX_BOX_LISTENERS: Final = 253
"""SCM_MAX_FD, include/net/scm.h: what one message carries."""
MAX_UID_BYTES: Final = 1024
"""A ZDS message has no more, its uid included."""


@dataclass(frozen=True, slots=True)
class StoreHello:
    """The proxy's first message, and the agent's answer. `serves`: it accepts connections, and is not ending."""

    serves: bool = True


@dataclass(frozen=True, slots=True)
class Deposit:
    """Keep this pod's box; the box travels beside the message. Replaces an earlier one of the same uid."""

    uid: str
    netns_cookie: int


@dataclass(frozen=True, slots=True)
class Take:
    """Lend me this pod's box; it stays in the store too."""

    uid: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The deposit is kept."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The deposit is not kept; nothing of it is left at the agent. A later one may be."""

    reason: str


@dataclass(frozen=True, slots=True)
class BoxFound:
    """The box travels beside the message."""

    uid: str
    netns_cookie: int


@dataclass(frozen=True, slots=True)
class NoBox:
    """Nothing is stored for that uid."""


StoreMessage = StoreHello | Deposit | Take | Stored | Refused | BoxFound | NoBox


@dataclass(frozen=True, slots=True)
class BoxedListener:
    """What one descriptor in a box is said to be; `family` is 4 or 6."""

    port: int
    family: int


@dataclass(frozen=True, slots=True)
class BoxFrame:
    """What a box says of itself, `listeners` in the descriptors' order; the kernel is asked whether it is true."""

    uid: str
    netns_cookie: int
    listeners: tuple[BoxedListener, ...]


def encode_store(message: StoreMessage) -> bytes:
    """One packet of fds.sock."""
    match message:
        case StoreHello(serves):
            fields: dict[str, object] = {"type": "hello", "serves": serves}
        case Deposit(uid, cookie):
            fields = {"type": "deposit", "uid": uid, "netns_cookie": cookie}
        case Take(uid):
            fields = {"type": "take", "uid": uid}
        case Stored():
            fields = {"type": "stored"}
        case Refused(reason):
            fields = {"type": "refused", "reason": reason}
        case BoxFound(uid, cookie):
            fields = {"type": "box", "uid": uid, "netns_cookie": cookie}
        case NoBox():
            fields = {"type": "none"}
    return _compact(fields)


def decode_store(packet: bytes) -> StoreMessage:
    """Raises InvalidMessage, for an unknown type too: each message has its answer, none can be passed over."""
    fields = _object(packet)
    match fields.get("type"):
        case "hello":
            return StoreHello(fields.get("serves") is not False)
        case "deposit":
            return Deposit(_uid(fields), _number(fields, "netns_cookie", _COOKIE_MAX))
        case "take":
            return Take(_uid(fields))
        case "stored":
            return Stored()
        case "refused":
            return Refused(_text(fields, "reason"))
        case "box":
            return BoxFound(_uid(fields), _number(fields, "netns_cookie", _COOKIE_MAX))
        case "none":
            return NoBox()
    raise InvalidMessage("type: none that the fd store knows")


def encode_box(frame: BoxFrame) -> bytes:
    """The bytes of a box's one message."""
    listeners = [{"port": listener.port, "family": listener.family} for listener in frame.listeners]
    return _compact({"uid": frame.uid, "netns_cookie": frame.netns_cookie, "listeners": listeners})


def decode_box(data: bytes) -> BoxFrame:
    """Raises InvalidMessage."""
    fields = _object(data)
    listeners = fields.get("listeners")
    if not isinstance(listeners, list) or not 0 < len(listeners) <= MAX_BOX_LISTENERS:
        raise InvalidMessage(f"listeners: missing, or no list of 1 to {MAX_BOX_LISTENERS}")
    boxed = []
    for listener in listeners:
        if not isinstance(listener, dict):
            raise InvalidMessage("listeners: one is no JSON object")
        family = _number(listener, "family", 6)
        if family not in (4, 6):
            raise InvalidMessage("listeners: a family that is neither 4 nor 6")
        boxed.append(BoxedListener(_number(listener, "port", 65535), family))
    return BoxFrame(_uid(fields), _number(fields, "netns_cookie", _COOKIE_MAX), tuple(boxed))


def _compact(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidMessage("no JSON object")
    return fields


def _uid(fields: dict[str, Any]) -> str:
    uid = _text(fields, "uid")
    if not 0 < len(uid.encode("utf-8", "surrogatepass")) <= MAX_UID_BYTES:
        raise InvalidMessage(f"uid: empty, or longer than {MAX_UID_BYTES} bytes")
    return uid

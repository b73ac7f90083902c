"""What agent and proxy say on objects.sock besides ZDS: one JSON object a line, both ways.

The agent greets with Hello; the proxy reports each proof connection that reached it. Types and fields unknown here are
ignored, so that either side may be newer than the other.
"""

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, Literal

MAX_LINE_BYTES: Final = 1 << 16
"""asyncio.streams' own default; what is said here today is below 1 KiB."""

PROOF_PREFIX: Final = b"HEADGATE-PROOF "
PROOF_ANSWER: Final = b"HEADGATE-PROVED\n"
NONCE_DIGITS: Final = 32
PROOF_BYTES: Final = len(PROOF_PREFIX) + NONCE_DIGITS + 1
"""A proof connection's whole request: prefix, nonce in hexadecimal, newline (48 bytes)."""

_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_COOKIE_MAX: Final = (1 << 64) - 1

Direction = Literal["outbound", "inbound"]


class InvalidMessage(ValueError):
    """A line that cannot be understood: which field, and why. The same line fails again."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first message. `objects`: where policy objects come from; "none": the proxy reads its own files."""

    objects: str


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


Message = Hello | Proof


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
        case Proof(nonce, cookie, direction, destination, port):
            fields = {
                "type": "proof",
                "nonce": nonce,
                "netns_cookie": cookie,
                "direction": direction,
                "original_destination": str(destination),
                "port": port,
            }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message | None:
    """The message of one line; None for a type that is unknown here. Raises InvalidMessage."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidMessage("no JSON object")
    match fields.get("type"):
        case "hello":
            return Hello(_text(fields, "objects"))
        case "proof":
            return _proof(fields)
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

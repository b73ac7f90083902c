"""The answers that the proxy gives itself: Envoy's statuses and flags, with cause and next step in words."""

from http import HTTPStatus
from typing import Final, NamedTuple

SERVER_LINE: Final = b"headgate-error: "


class LocalReply(NamedTuple):
    """`flag` is Envoy's response flag; `explanation` says what failed, where, and what to check."""

    status: int
    flag: str
    explanation: str


def render_reply(reply: LocalReply, keep_alive: bool, to_head_request: bool, explain: bool) -> bytes:
    """Head and body. `explain` off (towards a peer outside the mesh) keeps names of pods and objects inside."""
    text = reply.explanation if explain else HTTPStatus(reply.status).phrase
    body = (text + "\n").encode("utf-8", "replace")
    lines = [
        b"HTTP/1.1 %d %s" % (reply.status, HTTPStatus(reply.status).phrase.encode()),
        b"content-type: text/plain; charset=utf-8",
        b"content-length: %d" % len(body),
    ]
    if explain:
        lines.append(SERVER_LINE + reply.flag.encode() + b" " + _header_safe(text))
    if not keep_alive:
        lines.append(b"connection: close")
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return head if to_head_request else head + body


def _header_safe(text: str) -> bytes:
    """Printable ASCII only: names in it come from requests and objects."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode("ascii")

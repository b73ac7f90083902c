"""What a client reads when the proxy answers itself."""

from proxy.http1.reply import LocalReply, render_reply
from proxy.http1.response import parse_response

UNREADY = LocalReply(503, "UH", "no ready endpoint for web.default.svc.cluster.local:80")

EXPLAINED = b"""\
HTTP/1.1 503 Service Unavailable\r
content-type: text/plain; charset=utf-8\r
content-length: 55\r
headgate-error: UH no ready endpoint for web.default.svc.cluster.local:80\r
\r
no ready endpoint for web.default.svc.cluster.local:80
"""

TERSE = b"""\
HTTP/1.1 503 Service Unavailable\r
content-type: text/plain; charset=utf-8\r
content-length: 20\r
connection: close\r
\r
Service Unavailable
"""


def test_inside_the_mesh_body_and_header_say_what_to_check() -> None:
    assert render_reply(UNREADY, keep_alive=True, to_head_request=False, explain=True) == EXPLAINED


def test_outside_the_mesh_no_name_of_an_object_is_told() -> None:
    assert render_reply(UNREADY, keep_alive=False, to_head_request=False, explain=False) == TERSE


def test_an_answer_to_head_has_the_same_head_and_no_body() -> None:
    head = render_reply(UNREADY, keep_alive=True, to_head_request=True, explain=True)
    assert head == EXPLAINED[: EXPLAINED.index(b"\r\n\r\n") + 4]


def test_names_from_outside_cannot_break_out_of_the_header() -> None:
    hostile = LocalReply(503, "NC", "subset 'a\r\nSet-Cookie: x\x00' \u202eof web\u00e9")
    reply = render_reply(hostile, keep_alive=True, to_head_request=False, explain=True)
    head, _, body = reply.partition(b"\r\n\r\n")
    made = parse_response(head + b"\r\n\r\n", False)
    assert b"\r\nheadgate-error: NC subset 'a??Set-Cookie: x?' ?of web?\r\n" in head + b"\r\n"
    assert made.body_length == len(body)

"""What is kept of a request's head to spare parsing the next: shared where it is alike, and never long."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxy.datapath.forward_http import HttpConnection
from proxy.datapath.pod import Pod
from proxy.http1.grammar import MAX_REMEMBERED_BYTES
from proxy.http1.request import NO_REQUEST
from proxy.model.address import SocketAddress
from tests.unit.proxy_datapath.doubles import client_of, served_pod

ORIGINAL = SocketAddress("10.96.0.1", 80)


@pytest.fixture
def pod() -> Iterator[Pod]:
    with served_pod() as made:
        yield made


def request(cookie: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie.encode()


def understood(stack: ExitStack, pod: Pod, head: bytes) -> HttpConnection:
    """A new connection that has understood this head."""
    client, _ = stack.enter_context(client_of(pod, ORIGINAL))
    connection = HttpConnection(client, client.destination())
    assert connection._understand(head).forward == head
    return connection


def test_connections_whose_requests_are_alike_share_one_head(pod: Pod) -> None:
    with ExitStack() as stack:
        one = understood(stack, pod, request("a"))
        other = understood(stack, pod, request("a"))
        assert one._last_head is other._last_head
        assert one._last_request is other._last_request


def test_another_head_is_parsed_for_itself(pod: Pod) -> None:
    with ExitStack() as stack:
        understood(stack, pod, request("a"))
        other = understood(stack, pod, request("b"))
        assert other._last_head == request("b") == other._last_request.forward


def test_a_long_head_is_not_kept(pod: Pod) -> None:
    with ExitStack() as stack:
        connection = understood(stack, pod, request("a"))
        connection._understand(request("x" * MAX_REMEMBERED_BYTES))
        assert (connection._last_head, connection._last_request) == (b"", NO_REQUEST)


def test_while_the_pod_drains_each_answer_is_the_last_and_others_are_not_told_so(pod: Pod) -> None:
    with ExitStack() as stack:
        understood(stack, pod, request("a"))
        pod.draining = True
        client, _ = stack.enter_context(client_of(pod, ORIGINAL))
        connection = HttpConnection(client, client.destination())
        assert not connection._understand(request("a")).keep_alive
        pod.draining = False
        client, _ = stack.enter_context(client_of(pod, ORIGINAL))
        assert HttpConnection(client, client.destination())._understand(request("a")).keep_alive

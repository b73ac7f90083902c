"""netlink(7) sockets that keep the interpreter's lock, and those that give it up: the same answers (issue 5: start)."""

import errno
import fcntl
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from agent.kernel.netlink import NLM_F_DUMP, Message, Netlink, encode
from agent.kernel.netlink_socket import NetlinkSocket

_RTM_GETLINK = 18
_LINKS = Message(_RTM_GETLINK, NLM_F_DUMP, bytes(16))  # struct ifinfomsg

both = pytest.mark.parametrize("brief", [True, False], ids=["keeps the lock", "gives it up"])


@both
def test_a_dump_is_answered_before_the_send_returns_so_nothing_is_waited_for(brief: bool) -> None:
    with Netlink(socket.NETLINK_ROUTE, brief=brief) as netlink:
        assert any(b"lo\0" in link for link in netlink.dump(_LINKS))


@both
def test_where_nothing_was_asked_nothing_is_waited_for(brief: bool) -> None:
    sock = NetlinkSocket(socket.NETLINK_ROUTE, brief=brief)
    try:
        with pytest.raises(BlockingIOError):
            sock.receive()
    finally:
        sock.close()


@both
def test_the_kernels_refusal_has_its_number(brief: bool) -> None:
    sock = NetlinkSocket(socket.NETLINK_ROUTE, brief=brief)
    sock.close()
    with pytest.raises(OSError) as refused:
        sock.send(encode(_LINKS, 1))
    assert refused.value.errno == errno.EBADF
    sock.close()  # twice is harmless


def test_a_protocol_that_the_kernel_does_not_have_is_refused_at_once() -> None:
    with pytest.raises(OSError) as refused:
        NetlinkSocket(31)  # netlink(7): MAX_LINKS is 32; nobody registers the last
    assert refused.value.errno == errno.EPROTONOSUPPORT


def test_no_child_inherits_it() -> None:
    before = _sockets()
    sock = NetlinkSocket(socket.NETLINK_ROUTE)
    try:
        (number,) = _sockets() - before
        assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        sock.close()


def _sockets() -> set[int]:
    found: set[int] = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory's own, listed and closed
            found |= {int(path.name)} if str(path.readlink()).startswith("socket:") else set()
    return found

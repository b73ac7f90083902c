"""TCP conversations between pods of a lab: an echo server, single connections, and many that never fall silent."""

from __future__ import annotations

import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Final, Self

from agent.kernel import conntrack
from agent.lab.node import LabPod
from agent.lab.spec import PodSpec

PORT: Final = 9000
MARKER: Final = b"<<headgate-life>>"
"""In every line that is said here: so that a capture knows its bytes wherever they appear."""
WAIT_S: Final = 5.0
PACE_S: Final = 0.005
"""Between two lines of one connection: enough to be always in flight, little enough for a capture in Python."""
MESH_OFF: Final = (("headgate.io/mesh", "disabled"),)

_lines = itertools.count()
Endpoint = tuple[IPv4Address | IPv6Address, int]


def outside(name: str) -> PodSpec:
    """A pod that begins its life unsteered."""
    return PodSpec(name, labels=(("app", name), *MESH_OFF))


def address(pod: LabPod, family: int) -> IPv4Address | IPv6Address:
    found = pod.address4 if family == 4 else pod.address6
    assert found is not None
    return found


def until(what: str, condition: Callable[[], bool], *, timeout_s: float = WAIT_S) -> None:
    """Waits for a condition within a bound. AssertionError when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.01)


def endpoint(name: tuple[object, ...]) -> Endpoint:
    """Of what getsockname(2) says."""
    return ip_address(str(name[0])), int(str(name[1]))


class Talk:
    """One connection to an `Echo`, opened when made."""

    def __init__(self, pod: LabPod, to: IPv4Address | IPv6Address, port: int = PORT) -> None:
        self._pod = pod
        self.socket = pod.netns.connect(to, port, timeout_s=WAIT_S)
        self.socket.settimeout(WAIT_S)
        self.local = endpoint(self.socket.getsockname())
        self.remote: Endpoint = (to, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def says(self, times: int = 3) -> None:
        """Lines go over and come back, byte for byte. AssertionError when one does not."""
        for _ in range(times):
            line = b"%s %d\n" % (MARKER, next(_lines))
            self.socket.sendall(line)
            heard = b""
            while len(heard) < len(line):
                try:
                    more = self.socket.recv(65536)
                except OSError as error:
                    raise AssertionError(f"{self.local} -> {self.remote}: {error!r} after {heard!r}") from error
                assert more, f"{self.local} -> {self.remote}: closed after {heard!r}"
                heard += more
            assert heard == line

    def steered_to(self) -> int | None:
        """Where the caller's kernel redirected this connection to; None when it goes straight to its destination."""
        original = conntrack.Tuple(*self.local, *self.remote)
        entry = self._pod.call(conntrack.find, original)
        return None if entry is None else entry.steered_to


class Echo:
    """Gives back what it gets, and with `speaks` set says lines of its own all the time, to everybody."""

    def __init__(self, pod: LabPod, *, speaks: bool = False, port: int = PORT) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners = [pod.netns.listen(own, port) for own in (pod.address4, pod.address6) if own is not None]
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._calls: dict[socket.socket, Endpoint] = {}
        self.callers: list[Endpoint] = []
        """Everybody that has connected, as the application sees them."""
        self._speaks = speaks
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="echo")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        for opened in (*self._calls, *self._listeners):
            opened.close()
        self._selector.close()

    def calling(self) -> bool:
        """Somebody is connected."""
        return bool(self._calls)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(PACE_S):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj in self._listeners:
                    self._accept(key.fileobj)
                else:
                    self._answer(key.fileobj)
            if self._speaks:
                for call in self._calls:
                    with suppress(OSError):  # a full buffer loses a line, a broken call is noticed when it is read
                        call.send(b"%s said\n" % MARKER)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            call, caller = listener.accept()
            call.setblocking(False)
            call.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._calls[call] = endpoint(caller)
            self.callers.append(endpoint(caller))
            self._selector.register(call, selectors.EVENT_READ)

    def _answer(self, call: socket.socket) -> None:
        try:
            data = call.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(call)
            del self._calls[call]
            call.close()
            return
        with suppress(OSError):
            call.send(data)  # a line at a time is in flight: the buffer takes it


class Chatter:
    """Connections that each say a line every few milliseconds and hear what comes, until the end."""

    def __init__(self, pod: LabPod, to: IPv4Address | IPv6Address, connections: int, port: int = PORT) -> None:
        self.talks = [Talk(pod, to, port) for _ in range(connections)]
        self.heard = [0] * connections
        """Bytes that came back so far, by connection."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chatter")

    def __enter__(self) -> Self:
        for talk in self.talks:
            talk.socket.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        for talk in self.talks:
            talk.close()

    def all_hear_more(self) -> bool:
        """Whether every connection hears something new soon."""
        before = list(self.heard)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if all(now > then for now, then in zip(self.heard, before, strict=True)):
                return True
            time.sleep(PACE_S)
        return False

    def _run(self) -> None:
        while not self._stopping.wait(PACE_S):
            for index, talk in enumerate(self.talks):
                with suppress(OSError):
                    talk.socket.send(b"%s %d\n" % (MARKER, next(_lines)))
                with suppress(OSError):
                    self.heard[index] += len(talk.socket.recv(65536))

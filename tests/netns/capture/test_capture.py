"""`headgate capture` on a real kernel, read back by python and by tshark."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.capture.output import PcapngFile
from agent.capture.run import Capture
from agent.tracing.filter import Filter, parse_ends
from tests.netns.kernel.scratch import NODE4, NODE6, POD4, Scratch, pod_and_node
from tests.netns.rules.here import NFT, Here
from tests.unit.agent.capture.reader import File, read

HEADGATE = [sys.executable, "-m", "agent", "capture"]
TRANSLATED = f"to {NODE4}:80 before translation (steered to 15001)"
ANSWER = "from 127.0.0.1:15001 before translation (steered to 15001)"


@pytest.fixture
def node() -> Iterator[tuple[Here, Scratch]]:
    """A pod with our rules in it, and its node."""
    with pod_and_node() as (made, node):
        for family, address in (("-4", NODE4), ("-6", NODE6)):
            made.shell("ip", family, "route", "add", "default", "via", address)
        here = Here(made)
        here.install(NFT)
        yield here, node


@pytest.fixture
def here(node: tuple[Here, Scratch]) -> Here:
    return node[0]


def _steered(address: str = NODE4, port: int = 80) -> None:
    """A connection that our rules lead to the outbound listener, one byte each way, to its end."""
    six = ":" in address
    with (
        socket.create_server(("::1" if six else "127.0.0.1", 15001), family=_family(address)) as listener,
        socket.create_connection((address, port), timeout=5) as client,
        listener.accept()[0] as proxy,
    ):
        client.sendall(b"?")
        proxy.recv(1)
        proxy.sendall(b"!")
        client.recv(1)


def _arriving(node: Scratch) -> None:
    """From outside, led to the inbound listener."""
    with (
        socket.create_server((POD4, 15006)) as listener,
        node.run(socket.create_connection, (POD4, 8080), 5),
        listener.accept()[0],
    ):
        pass


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _captured(here: Here, tmp_path: Path, act: Any = _steered, wanted: Filter | None = None, **options: Any) -> File:
    """What a capture around `act`, which runs in the pod, has in its file."""
    path = tmp_path / "pod.pcapng"
    snaplen = options.get("snaplen", 262_144)
    with here.pod.run(Capture, wanted or Filter(), snaplen) as running:
        output = PcapngFile(str(path), snaplen, "headgate", "a pod")
        here.pod.run(act)
        running.run(output, time.monotonic() + 0.05, options.get("count", 0), lambda: False)
        output.close(running.lost)
    return read(path.read_bytes())


def _tshark(path: Path, *fields: str) -> list[list[str]]:
    words = ["tshark", "-n", "-r", str(path), "-T", "fields", *(word for name in fields for word in ("-e", name))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


# ── Comments ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("address", [NODE4, NODE6])
def test_each_packet_of_a_steered_connection_says_what_translation_hides_the_first_too(
    here: Here, tmp_path: Path, address: str
) -> None:
    file = _captured(here, tmp_path, lambda: _steered(address), Filter(protocol=6))
    to, by = (address, "127.0.0.1") if "." in address else (f"[{address}]", "[::1]")
    comments = [packet.comment for packet in file.packets]
    assert comments[0] == f"to {to}:80 before translation (steered to 15001)"
    assert comments[1] == f"from {by}:15001 before translation (steered to 15001)"
    assert set(comments) == set(comments[:2]) and len(comments) >= 9
    assert {packet.interface for packet in file.packets} == {"lo"}


def test_what_arrives_says_where_it_is_led_and_the_answer_where_it_is_from(
    node: tuple[Here, Scratch], tmp_path: Path
) -> None:
    here, outside = node

    file = _captured(here, tmp_path, lambda: _arriving(outside), Filter(protocol=6))
    assert {(packet.interface, packet.direction, packet.comment) for packet in file.packets} == {
        ("eth0", 1, f"to {POD4}:15006 after translation (steered to 15006)"),
        ("eth0", 2, f"from {POD4}:15006 before translation (steered to 15006)"),
    }


def test_a_connection_that_was_there_before_the_capture_is_known(here: Here, tmp_path: Path) -> None:
    listener = here.pod.run(socket.create_server, ("127.0.0.1", 15001))
    with (
        closing(listener),
        closing(here.pod.run(socket.create_connection, (NODE4, 80), 5)) as client,
        closing(listener.accept()[0]),
    ):
        file = _captured(here, tmp_path, lambda: client.sendall(b"?"), Filter(protocol=6))
    assert file.packets[0].comment == TRANSLATED


def test_what_is_not_translated_has_no_comment(here: Here, tmp_path: Path) -> None:
    def act() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (NODE4, 9))

    packets = _captured(here, tmp_path, act, Filter(protocol=17)).packets
    assert packets and {packet.comment for packet in packets} == {""}


# ── Which packets ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_filter_by_the_original_destination_finds_the_translated_packets(here: Here, tmp_path: Path) -> None:
    def act() -> None:
        _steered(port=81)
        _steered(port=80)

    file = _captured(here, tmp_path, act, Filter(parse_ends("--to", f"{NODE4}:80")))
    assert file.packets and {packet.comment for packet in file.packets} == {TRANSLATED, ANSWER}


def test_a_filter_by_interface_leaves_the_others_out(here: Here, tmp_path: Path) -> None:
    assert _captured(here, tmp_path, wanted=Filter(interface="eth0", protocol=6)).packets == []


def test_so_many_packets_and_so_much_of_each(here: Here, tmp_path: Path) -> None:
    file = _captured(here, tmp_path, wanted=Filter(protocol=6), count=3, snaplen=60)
    assert [(len(packet.data), packet.length) for packet in file.packets] == [(60, 74), (60, 74), (60, 66)]


def test_times_are_the_kernels_in_nanoseconds(here: Here, tmp_path: Path) -> None:
    before = time.time_ns()
    times = [packet.time_ns for packet in _captured(here, tmp_path, wanted=Filter(protocol=6)).packets]
    assert before <= times[0] and times[-1] <= time.time_ns()
    assert times == sorted(times) and any(moment % 1000 for moment in times)


def test_what_a_full_buffer_dropped_is_counted(here: Here, tmp_path: Path) -> None:
    def act() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            for _ in range(3000):
                sock.sendto(bytes(1000), (NODE4, 9))

    path = tmp_path / "pod.pcapng"
    with here.pod.run(Capture, Filter(protocol=17), 262_144, 1 << 16) as running:
        output = PcapngFile(str(path), 262_144, "headgate", "a pod")
        here.pod.run(act)
        running.run(output, time.monotonic(), 0, lambda: False)
        here.pod.run(act)
        running.run(output, time.monotonic(), 0, lambda: False)
        output.close(running.lost)
    file = read(path.read_bytes())
    (received, dropped) = file.statistics[0]
    assert received == len(file.packets)
    # The node answers with "port unreachable" as often as it likes, and these are no UDP.
    assert dropped > 2000 and received + dropped >= 6000
    assert 0 < sum(packet.dropped for packet in file.packets) <= dropped


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_tshark_reads_addresses_interfaces_times_and_comments(here: Here, tmp_path: Path) -> None:
    file = _captured(here, tmp_path, wanted=Filter(protocol=6))
    fields = ("frame.interface_name", "ip.dst", "tcp.dstport", "frame.time_epoch", "frame.comment")
    rows = _tshark(tmp_path / "pod.pcapng", *fields)
    assert rows[0][:3] == ["lo", "127.0.0.1", "15001"] and rows[0][4] == TRANSLATED
    assert rows[1][4] == ANSWER
    assert [row[3].replace(".", "") for row in rows] == [str(packet.time_ns) for packet in file.packets]


def test_tshark_finds_packets_by_their_comment_and_the_direction(node: tuple[Here, Scratch], tmp_path: Path) -> None:
    here, outside = node

    _captured(here, tmp_path, lambda: _arriving(outside), Filter(protocol=6))
    words = ["tshark", "-n", "-r", str(tmp_path / "pod.pcapng"), "-Y"]
    arriving = [*words, 'frame.packet_flags_direction == 1 && frame.comment contains "steered to 15006"']
    done = subprocess.run(arriving, capture_output=True, text=True, check=True, timeout=60)
    assert f"→ {POD4}" in done.stdout


def test_killed_in_the_middle_the_file_is_readable_and_nobody_elses_to_read(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "pod.pcapng"
    path.write_text("what was there, longer than what is written first\n" * 100)
    path.chmod(0o644)
    command = _begun(here, "-w", str(path), "--proto", "tcp")
    try:
        here.pod.run(_steered)
        until = time.monotonic() + 20
        while len(read(path.read_bytes()).packets) < 9 and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        command.send_signal(signal.SIGKILL)
        command.communicate()
    assert {packet.comment for packet in read(path.read_bytes()).packets} == {TRANSLATED, ANSWER}
    assert len(_tshark(path, "frame.number")) >= 9
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _begun(here: Here, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    command = subprocess.Popen(
        [*HEADGATE, "--netns", here.pod.path, "--for", "60s", *words], stderr=subprocess.PIPE, **options
    )
    assert command.stderr is not None
    if not (said := command.stderr.readline()).startswith(b"capturing in "):
        command.kill()
        raise AssertionError(said + command.communicate()[1])
    return command


def test_standard_output_can_be_piped_and_an_interrupt_ends_the_file_well(here: Here) -> None:
    command = _begun(here, "-w", "-", "--to", f"{NODE4}:80", stdout=subprocess.PIPE)
    try:
        here.pod.run(_steered)
        command.send_signal(signal.SIGINT)
        data, told = command.communicate(timeout=20)
    finally:
        command.kill()
        command.communicate()
    file = read(data)
    assert command.returncode == 0 and b"nothing lost" in told
    assert len(file.packets) >= 9 and file.statistics == {0: (len(file.packets), 0)}
    assert file.comment.startswith("network namespace /proc/")


def test_without_a_file_a_packet_is_a_line(here: Here) -> None:
    command = _begun(here, "--to", f"{NODE4}:80", "--count", "2", stdout=subprocess.PIPE)
    try:
        here.pod.run(_steered)
        first, second = command.communicate(timeout=20)[0].decode().splitlines()
    finally:
        command.kill()
        command.communicate()
    assert "  lo  tcp syn  " in first and first.endswith(f"-> 127.0.0.1:15001  length 74  ({TRANSLATED})")
    assert "  lo  tcp syn,ack  " in second and second.endswith(f"({ANSWER})")


def test_an_interface_whose_name_is_no_text_ends_nothing_and_is_told(node: tuple[Here, Scratch]) -> None:
    here, outside = node
    hostile = "d\udcff\x1b[3m"
    outside.shell("ip", "link", "add", "veth1", "type", "veth", "peer", "name", hostile, "netns", here.pod.path)
    outside.shell("ip", "link", "set", "veth1", "up")
    command = _begun(here, "--to", f"{NODE4}:80", "--count", "2", stdout=subprocess.PIPE)
    try:
        here.pod.shell("ip", "link", "set", hostile, "up")
        outside.run(_send_by, "veth1")
        here.pod.run(_steered)
        out, told = command.communicate(timeout=20)
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == 0 and len(out.splitlines()) == 2
    assert b"packets of an interface whose name is no UTF-8: rename it" in told and b"\x1b" not in told + out


def _send_by(interface: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        sock.send(bytes(60))


def test_a_pipe_whose_reader_has_gone_ends_the_capture_quietly(here: Here) -> None:
    command = _begun(here, "-w", "-", stdout=subprocess.PIPE)
    try:
        assert command.stdout is not None
        command.stdout.close()
        here.pod.run(_steered)
        assert command.wait(timeout=20) == 0
        assert command.stderr is not None and b"Traceback" not in command.stderr.read()
    finally:
        command.kill()
        command.wait()
        assert command.stderr is not None
        command.stderr.close()


# ── Refused ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_without_the_capability_it_is_named_and_the_file_stays_as_it_was(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("kept")
    without = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *HEADGATE, "-w", str(path)]
    done = here.pod.run(subprocess.run, without, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "CAP_NET_RAW" in done.stderr and "Traceback" not in done.stderr
    assert path.read_text() == "kept"


@pytest.mark.parametrize(
    ("file", "told"), [("no/file", "no/file: No such file or directory"), ("/dev/full", "/dev/full: No space left")]
)
def test_a_file_that_cannot_be_written_is_named(here: Here, tmp_path: Path, file: str, told: str) -> None:
    command = [*HEADGATE, "--netns", here.pod.path, "-w", str(tmp_path / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr


def test_a_disk_that_gets_full_meanwhile_is_said_with_the_files_name(here: Here) -> None:
    with here.pod.run(Capture, Filter()) as running:
        output = PcapngFile(os.devnull, 262_144, "headgate", "a pod")
        full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(full, output._fd, inheritable=False)
        os.close(full)
        here.pod.run(_steered)
        with pytest.raises(OSError, match=r"No space left on device: '/dev/null'"):
            running.run(output, time.monotonic(), 0, lambda: False)
        with pytest.raises(OSError, match="No space left"):
            output.close(0)

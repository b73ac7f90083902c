"""`headgate rules trace` on a real kernel: what it shows is what the kernel did, and nothing of it stays."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from agent.explain.packet import Way
from agent.lab import namespaces
from agent.lab.namespaces import Netns
from agent.tracing.filter import Chosen, Filter, parse_ends
from agent.tracing.traced import Kind, Trace, TracedPacket
from agent.tracing.watch import Watch, run, trace_while
from tests.netns.kernel.scratch import NODE4, NODE6, POD4
from tests.netns.rules.here import IPTABLES_NFT, NFT, Here, pod

WEB = Filter(parse_ends("--to", f"{NODE4}:80"))
HEADGATE = [sys.executable, "-m", "agent"]


@pytest.fixture
def here() -> Iterator[Here]:
    with pod() as made:
        yield made


def _connect(address: str = NODE4, port: int = 80) -> None:
    """A SYN leaves; whether somebody answers is no matter."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock, suppress(OSError):
        sock.settimeout(0.2)
        sock.connect((address, port))


def _with_conntrack(here: Here) -> None:
    """Without a rule that asks for it nothing is tracked in a namespace."""
    here.nft("table inet t {\n chain out {\n type filter hook output priority 0;\n ct state new counter\n }\n}")


def _connect_steered() -> None:
    with socket.create_server(("127.0.0.1", 15001)):
        _connect()


def _traced(here: Here, wanted: Filter = WEB, act: Any = _connect_steered) -> Trace:
    return here.pod.run(trace_while, wanted, act)


def _only(trace: Trace) -> TracedPacket:
    (packet,) = trace.packets
    return packet


def _decisions(packet: TracedPacket) -> list[tuple[str, str, str]]:
    """Rules that matched: chain, our id or the rule's text, verdict."""
    return [
        (step.chain, step.rule.rule_id or step.rule.text, step.verdict)
        for step in packet.steps
        if step.kind is Kind.RULE and step.rule is not None
    ]


def _tables(here: Here) -> list[str]:
    return here.pod.shell("nft", "list", "tables").split("\n")[:-1]


@pytest.mark.parametrize(("backend", "chain"), [(NFT, "nat-output"), (IPTABLES_NFT, "HEADGATE_CAPTURE_OUT")])
def test_a_redirected_connection_is_told_by_our_rules_ids_before_and_after_translation(
    here: Here, backend: Any, chain: str
) -> None:
    here.install(backend)
    trace = _traced(here)
    packet = _only(trace)
    assert _decisions(packet)[-1 if backend is NFT else -3][:2] == (chain, "out-capture")
    assert (str(packet.sent.destination), packet.sent.destination_port) == (NODE4, 80)
    assert packet.connection is not None and packet.connection.destination_translated
    assert (str(packet.connection.reply.source), packet.connection.reply.source_port) == ("127.0.0.1", 15001)
    assert (str(packet.last.destination), packet.last.destination_port) == ("127.0.0.1", 15001)
    assert packet.steps[-1].arrives == "lo", "its second way is told, too"
    assert trace.loss.nothing and trace.loss.begun == 1
    assert not any("trace" in table for table in _tables(here))


def test_over_lo_an_ipv6_packet_and_a_datagram_are_known_again(here: Here) -> None:
    here.install(NFT)
    here.nft(
        "table ip6 t {\n chain out {\n type nat hook output priority -150;\n udp dport 53 redirect to :5353\n }\n"
        " chain in {\n type filter hook input priority 0;\n counter\n }\n}"
    )

    def act() -> None:
        with socket.create_server(("::1", 15001), family=socket.AF_INET6):
            _connect(NODE6)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (NODE6, 53))

    wanted = Filter(parse_ends("--to", NODE6))
    stream, datagram = (packet for packet in _traced(here, wanted, act).packets if packet.sent.protocol in (6, 17))
    for packet, port in ((stream, 15001), (datagram, 5353)):
        assert (str(packet.last.destination), packet.last.destination_port) == ("::1", port)
        assert packet.steps[-1].hook == "filter input, priority 0"


def test_foreign_rules_are_told_in_their_tools_words(here: Here) -> None:
    here.nft(
        "table ip fw {\n chain out {\n type filter hook output priority 5; policy accept;\n"
        ' tcp dport 80 counter jump deeper comment "theirs"\n }\n chain deeper {\n meta mark set 0x7 drop\n }\n}'
    )
    packet = _only(_traced(here, act=_connect))
    assert packet.dropped is not None and packet.dropped.chain == "deeper"
    assert packet.dropped.mark == 7
    jump = packet.steps[-2]
    assert jump.rule is not None
    assert (jump.rule.text, jump.rule.comment, jump.target) == ("tcp dport 80 jump deeper", "theirs", "deeper")
    assert jump.hook == "filter output, priority 5"
    assert packet.connection is None, "conntrack never confirmed it"


def test_what_nft_wrote_into_a_table_of_iptables_is_told_as_nft_tells_it(here: Here) -> None:
    here.restore("iptables-nft", f"*filter\n-A OUTPUT -d {NODE4} -p tcp -j RETURN\nCOMMIT\n")
    here.nft("add set ip filter nodes { type ipv4_addr; elements = { 10.99.0.9 }; }")
    here.nft("insert rule ip filter OUTPUT ip daddr @nodes tcp dport 80 accept")
    here.nft("insert rule ip filter OUTPUT tcp dport 80 meta mark set 0x9")
    texts = [step.rule.text for step in _only(_traced(here, act=_connect)).steps if step.rule is not None]
    assert texts == ["tcp dport 80 meta mark set 0x00000009", "ip daddr @nodes tcp dport 80 accept"]


def test_ipv6_and_udp_are_traced_by_default_and_neighbour_discovery_is_not(here: Here) -> None:
    def act() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (NODE6, 53))

    _with_conntrack(here)
    packet = _only(_traced(here, Filter(way=Way.OUTBOUND), act))
    assert packet.sent.kind == "udp" and packet.connection is not None


def test_an_interface_and_a_user_that_the_packet_has_not_leave_it_out(here: Here) -> None:
    for wanted in (Filter(interface="lo"), Filter(uid=4242), Filter(mark=(1, 0xFFFFFFFF)), Filter(protocol=17)):
        assert _traced(here, wanted, _connect).packets == ()
    assert _traced(here, Filter(interface="eth0", uid=0, mark=(0, 0xFFFFFFFF), protocol=6), _connect).packets


def test_every_packet_of_an_established_connection_is_told_with_its_connection(here: Here) -> None:
    server = here.pod.run(socket.create_server, ("127.0.0.1", 0))
    port = server.getsockname()[1]
    _with_conntrack(here)
    with closing(server), closing(here.pod.run(socket.create_connection, ("127.0.0.1", port))) as client:
        served = server.accept()[0]
        with closing(served):
            wanted = Filter(parse_ends("--to", f"127.0.0.1:{port}"), chosen=Chosen.EVERY)
            trace = _traced(here, wanted, lambda: client.sendall(b"GET /"))
    (packet,) = trace.packets
    assert packet.sent.kind == "tcp psh,ack"
    assert packet.connection is not None and packet.connection.original.destination_port == port


def test_two_traces_in_one_namespace_do_not_see_each_others_packets(here: Here) -> None:
    here.install(NFT)
    other = Filter(parse_ends("--to", f"{NODE4}:81"))

    def act() -> None:
        _connect_steered()
        inner.append(trace_while(other, lambda: [_connect(port=81), _connect(port=80)]))

    inner: list[Trace] = []
    outer = _traced(here, WEB, act)
    assert [packet.sent.destination_port for packet in inner[0].packets] == [81]
    assert [packet.sent.destination_port for packet in outer.packets] == [80, 80]
    assert outer.notes == (), "another trace is no change of the rules"


def test_others_who_look_are_told_whose_the_table_is_and_nobody_removes_it(here: Here) -> None:
    with here.pod.run(Watch, WEB) as watch:
        (shown,) = here.said("show")["tables"]
        assert (shown["name"], shown["whose"]) == (watch.table, "headgate rules trace")
        assert "nothing of ours" in here.headgate("clean").stderr
        assert here.pod.run(subprocess.run, ["nft", "flush", "ruleset"], check=False).returncode == 0
        assert _tables(here) == [f"table inet {watch.table}"]
    _wait_for_none(here)


def test_rules_that_change_meanwhile_are_said_to(here: Here) -> None:
    table = "table ip t {\n chain out {\n type filter hook output priority 0;\n counter accept\n }\n}"
    here.nft(table)

    def act() -> None:
        _connect()
        here.nft(f"delete table ip t\n{table.replace('accept', 'continue')}")

    trace = _traced(here, act=act)
    assert any("rules were changed" in note for note in trace.notes)


def test_rules_of_iptables_legacy_are_said_to_be_silent(here: Here) -> None:
    here.restore("iptables-legacy", "*filter\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n")
    assert any("iptables-legacy holds rules (ip)" in note for note in _traced(here, act=_connect).notes)


def test_killed_in_the_middle_nothing_of_a_trace_remains(here: Here) -> None:
    command = subprocess.Popen(
        [*HEADGATE, "rules", "trace", "--netns", here.pod.path, "--for", "60s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert command.stderr is not None
        assert command.stderr.readline().startswith("tracing in ")
        (table,) = _tables(here)
        assert table.startswith(f"table inet headgate-trace-{command.pid}-")
    finally:
        command.send_signal(signal.SIGKILL)
        command.communicate()
    _wait_for_none(here)


def _wait_for_none(here: Here) -> None:
    until = time.monotonic() + 5
    while tables := _tables(here):
        assert time.monotonic() < until, f"left behind: {tables}"
        time.sleep(0.01)


def test_an_interrupt_ends_the_trace_and_tells_what_was_seen(here: Here) -> None:
    command = subprocess.Popen(
        [*HEADGATE, "rules", "trace", "--netns", here.pod.path, "--for", "60s", "--to", f"{NODE4}:80"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert command.stderr is not None and command.stdout is not None
        assert command.stderr.readline().startswith("tracing in ")
        here.nft("table ip t {\n chain out {\n type filter hook output priority 0;\n counter accept\n }\n}")
        here.pod.run(_connect)
        assert command.stdout.readline() == "\n"
        heading = command.stdout.readline()
        assert heading.startswith("packet 1") and f"{POD4}:" in heading and f"-> {NODE4}:80" in heading
        command.send_signal(signal.SIGINT)
        _, told = command.communicate(timeout=20)
        assert command.returncode == 0 and "1 packets traced, nothing lost" in told
        assert "rules were changed" in told
    finally:
        command.kill()
        command.communicate()
    assert not any("trace" in table for table in _tables(here))


def test_json_is_one_document_and_ends_after_so_many_packets(here: Here) -> None:
    here.nft("table ip t {\n chain out {\n type filter hook output priority 0;\n counter accept\n }\n}")
    command = subprocess.Popen(
        [
            *HEADGATE,
            "rules",
            "trace",
            "--netns",
            here.pod.path,
            "--for",
            "60s",
            "--to",
            ":80",
            "--count",
            "1",
            "-o",
            "json",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 20
        while not any("trace" in table for table in _tables(here)) and time.monotonic() < until:
            time.sleep(0.02)
        here.pod.run(_connect)
        found = json.loads(command.communicate(timeout=20)[0])
    finally:
        command.kill()
        command.communicate()
    (packet,) = found["packets"]
    assert packet["destination"] == NODE4 and packet["steps"][0]["rule"]["rule"] == "accept"
    assert found["loss"] == {"packets": 0, "of": 1, "messages": 0, "over_limit": 0, "connections": 0}


def test_without_the_capability_it_is_named(here: Here) -> None:
    command = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", *HEADGATE, "rules", "trace"]
    done = here.pod.run(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stderr and "Traceback" not in done.stderr
    assert _tables(here) == []


def test_a_namespace_that_is_gone_is_a_clear_error() -> None:
    done = subprocess.run(
        [*HEADGATE, "rules", "trace", "--netns", f"/run/netns/hg-none-{os.getpid()}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "No such file" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", [("rules", "trace"), ("capture",)])
def test_a_namespace_that_goes_meanwhile_ends_neither_in_a_traceback_nor_in_silence(
    make_netns: Callable[[], Netns], verb: tuple[str, ...]
) -> None:
    netns = make_netns()
    command = subprocess.Popen(
        [*HEADGATE, *verb, "--netns", str(netns.path), "--for", "60s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert command.stderr is not None and "ing in network namespace" in command.stderr.readline()
        namespaces.delete(netns)
        command.send_signal(signal.SIGTERM)
        told = command.communicate(timeout=20)[1]
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == 0 and "0 packets" in told and "Traceback" not in told
    if verb[0] == "rules":
        assert "whether the rules were changed meanwhile cannot be told" in told


def test_the_limit_is_kept_and_what_is_beyond_it_is_counted(here: Here) -> None:
    watch = here.pod.run(Watch, WEB, 5)
    with watch:
        here.pod.run(lambda: [_send_syn() for _ in range(50)])
        packets: list[TracedPacket] = []
        run(watch, packets.append, time.monotonic() + 0.5)
        loss = watch.loss()
    assert 5 <= len(packets) < 20
    assert loss.over_limit == 50 - len(packets) and loss.packets == 0


def _send_syn() -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex((NODE4, 80))

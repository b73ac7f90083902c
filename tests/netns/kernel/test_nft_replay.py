"""A compiled script makes what libnftables makes of it: the same listing, the same comments, the same steering."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kernel import nft, nft_replay
from agent.kernel.netlink import Netlink, attributes
from agent.kernel.nft_messages import NETLINK_NETFILTER, NEWCHAIN, NFPROTO_INET, message
from agent.kernel.refused import KernelRefused
from agent.plan import PlanSettings, build_plan
from agent.plan.render.nft import ANCHOR_TABLE, TABLE, install_script
from agent.pods import PodRef
from proxy.api.constants import DNS_PORT
from tests.netns.kernel.scratch import POD4, POD6, Scratch, pod_and_node

INBOUND = 15006


def fresh_script(plan_settings: PlanSettings) -> str:
    pod = PodRef("uid", "default", "web-0", "default", (), (), ())
    return install_script(build_plan(pod, plan_settings), (), replace=False)


SCRIPT = fresh_script(PlanSettings())


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Each test compiles anew, and leaves nothing that it has doctored."""
    nft_replay._compiled.cache_clear()
    yield
    nft_replay._compiled.cache_clear()


def replay_only(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles now; from here on a fall back on libnftables is a failure."""
    assert nft_replay._transaction(script) is not None
    monkeypatch.setattr(nft, "apply", lambda _: pytest.fail("fell back on libnftables"))


def rules_of(pod: Scratch) -> list[object]:
    """`nft -j list ruleset` without handles and without what nft says of itself."""
    listed = json.loads(pod.shell("nft", "-j", "list", "ruleset"))["nftables"]
    for entry in listed:
        for value in entry.values():
            value.pop("handle", None)
    return [entry for entry in listed if "metainfo" not in entry]


def test_replayed_rules_are_those_of_libnftables_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scratch() as reference, Scratch() as replayed:
        reference.run(nft.apply, SCRIPT)
        replay_only(SCRIPT, monkeypatch)
        replayed.run(nft_replay.apply_fresh, SCRIPT)
        for table in (ANCHOR_TABLE, TABLE):
            listing = replayed.run(nft.list_table, table)
            assert listing is not None and listing == reference.run(nft.list_table, table)
        assert rules_of(replayed) == rules_of(reference)
        assert replayed.shell("nft", "list", "ruleset") == reference.shell("nft", "list", "ruleset")


def test_replayed_rules_have_their_comments_and_have_counted_nothing() -> None:
    with Scratch() as reference, Scratch() as replayed:
        reference.run(nft.apply, SCRIPT)
        replayed.run(nft_replay.apply_fresh, SCRIPT)
        for table in (ANCHOR_TABLE, TABLE):
            counters = replayed.run(nft.list_counters, table)
            assert counters and counters == reference.run(nft.list_counters, table)
            assert all((counter.packets, counter.bytes) == (0, 0) for counter in counters)


def test_another_kind_of_set_and_family_is_replayed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "create table ip6 other\n"
        "table ip6 other {\n"
        " set nets { type ipv6_addr; flags interval; elements = { fd00::/8, fe80::/10 }; }\n"
        " map ports { type inet_service : verdict; elements = { 80 : accept, 443 : drop }; }\n"
        " chain x { ip6 saddr @nets counter tcp dport vmap @ports; tcp sport { 1, 2-9 } drop; }\n"
        "}\n"
    )
    with Scratch() as reference, Scratch() as replayed:
        reference.run(nft.apply, script)
        replay_only(script, monkeypatch)
        replayed.run(nft_replay.apply_fresh, script)
        assert rules_of(replayed) == rules_of(reference)


ports = st.integers(1, 65535).filter(lambda port: port != DNS_PORT)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(ports, min_size=3, max_size=3, unique=True),
    st.lists(st.integers(1, 0xFFF), min_size=2, max_size=2, unique=True),
)
def test_plans_of_any_ports_and_marks_compile_to_what_libnftables_makes(found: list[int], marks: list[int]) -> None:
    script = fresh_script(PlanSettings(found[0], found[1], found[2], marks[0], marks[1]))
    assert nft_replay._transaction(script) is not None
    with Scratch() as replayed:
        replayed.run(nft_replay.apply_fresh, script)
        for table in (ANCHOR_TABLE, TABLE):
            assert replayed.run(nft.list_table, table) == nft.expected_listing(script, table)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, POD4), (socket.AF_INET6, POD6)])
def test_replayed_rules_steer(family: socket.AddressFamily, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to a port where nobody listens ends at the proxy's, and that rule has counted it."""
    with pod_and_node() as (pod, node):
        replay_only(SCRIPT, monkeypatch)
        pod.run(nft_replay.apply_fresh, SCRIPT)
        with closing(pod.run(socket.create_server, (address, INBOUND), family=family)) as proxy:
            proxy.settimeout(5)
            with closing(node.run(socket.create_connection, (address, 80), 5)):
                accepted, _ = proxy.accept()
                accepted.close()
        packets = {counter.rule_id: counter.packets for counter in pod.run(nft.list_counters, TABLE)}
        assert packets["in-capture"] == 1


@pytest.mark.parametrize("taken", [ANCHOR_TABLE, TABLE])
def test_a_table_that_is_there_already_refuses_all_of_it(taken: str) -> None:
    with Scratch() as pod:
        pod.run(nft.apply, f"add table inet {taken}\n")
        before = pod.shell("nft", "list", "ruleset")
        with pytest.raises(KernelRefused, match=f"table {taken} is there already"):
            pod.run(nft_replay.apply_fresh, SCRIPT)
        assert pod.shell("nft", "list", "ruleset") == before


def test_a_second_time_is_refused_and_doubles_no_rule() -> None:
    with Scratch() as pod:
        pod.run(nft_replay.apply_fresh, SCRIPT)
        before = pod.shell("nft", "list", "ruleset")
        with pytest.raises(KernelRefused):
            pod.run(nft_replay.apply_fresh, SCRIPT)
        assert pod.shell("nft", "list", "ruleset") == before


def test_it_is_one_transaction() -> None:
    """The kernel counts its ruleset generations: one commit is one more."""
    with Scratch() as pod:
        pod.run(nft.apply, "add table inet other\n")
        before = generation(pod)
        pod.run(nft_replay.apply_fresh, SCRIPT)
        assert generation(pod) == before + 1


def generation(pod: Scratch) -> int:
    """linux/netfilter/nf_tables.h: NFT_MSG_GETGEN (16), NFTA_GEN_ID (1)."""

    def ask() -> bytes:
        with Netlink(NETLINK_NETFILTER) as netlink:
            return netlink.ask(message(16, 0, b"", socket.AF_UNSPEC))

    return int.from_bytes(attributes(pod.run(ask)[4:])[1], "big")


def test_a_script_that_libnftables_refuses_is_refused_with_its_line() -> None:
    with Scratch() as pod:
        with pytest.raises(KernelRefused, match="line 2: add rule inet headgate nowhere drop"):
            pod.run(nft_replay.apply_fresh, "create table inet headgate\nadd rule inet headgate nowhere drop\n")
        assert pod.run(nft.list_table, TABLE) is None


def test_what_the_kernel_refuses_as_messages_is_installed_by_libnftables(monkeypatch: pytest.MonkeyPatch) -> None:
    good = nft_replay._transaction(SCRIPT)
    assert good is not None
    unknown = message(NEWCHAIN, 0, b"", NFPROTO_INET)  # of no table
    doctored = nft_replay._batch((unknown,))
    monkeypatch.setattr(nft_replay, "_compiled", lambda _: doctored)
    with Scratch() as pod:
        assert pod.run(nft_replay._send, doctored)
        pod.run(nft_replay.apply_fresh, SCRIPT)
        assert pod.run(nft.list_table, TABLE) == nft.expected_listing(SCRIPT, TABLE)


def test_messages_that_make_other_rules_are_never_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the comments get lost on the way: a difference that no packet would show."""
    monkeypatch.setattr(nft_replay, "_RULE_PARTS", (1, 2, 4))
    with Scratch() as pod:
        pod.run(nft_replay.apply_fresh, SCRIPT)
        assert pod.run(nft.list_table, TABLE) == nft.expected_listing(SCRIPT, TABLE)
    assert "the ruleset lists otherwise" in caplog.text


def test_b46_many_threads_replay_one_script_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    read = nft_replay._load_and_read

    def counted(script: str) -> tuple[str, nft_replay.Transaction]:
        compiled.append(script)
        return read(script)

    monkeypatch.setattr(nft_replay, "_load_and_read", counted)
    pods = [Scratch() for _ in range(24)]
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pod: pod.run(nft_replay.apply_fresh, SCRIPT), pods))
        assert compiled == [SCRIPT]
        for pod in pods:
            assert pod.run(nft.list_table, TABLE) == nft.expected_listing(SCRIPT, TABLE)
    finally:
        for pod in pods:
            pod.__exit__()

"""nftables inside a namespace: one transaction, read back, counted, refused with the line that is wrong."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.kernel import nft
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from tests.netns.kernel.rules import STEER
from tests.netns.kernel.scratch import Scratch, pod_and_node

ELEMENT = "add element inet headgate grandfathered4 { 10.0.0.5 . 4000 . 10.0.0.9 . 80 }\n"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_table_is_applied_in_that_namespace_only_and_read_back() -> None:
    with Scratch() as pod, Scratch() as other:
        pod.run(nft.apply, STEER)
        listing = pod.run(nft.list_table, "headgate")
        assert listing is not None and "redirect to :15001" in listing
        assert other.run(nft.list_table, "headgate") is None
        assert pod.run(nft.list_table, "other") is None


def test_b41_listing_is_the_same_whatever_was_counted_or_remembered() -> None:
    with pod_and_node() as (pod, node):
        pod.run(nft.apply, STEER)
        fresh = pod.run(nft.list_table, "headgate")
        pod.run(nft.apply, ELEMENT)
        node.run(_knock)
        assert any(counter.packets for counter in pod.run(nft.list_counters))
        assert pod.run(nft.list_table, "headgate") == fresh
        assert fresh is not None and "handle" not in fresh and "packets" not in fresh and "10.0.0.5" not in fresh


def _knock() -> None:
    import socket

    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("10.99.0.5", 80))


def test_counters_are_named_by_rule_id_in_the_rules_order() -> None:
    with pod_and_node() as (pod, node):
        pod.run(nft.apply, STEER)
        node.run(_knock)
        counters = pod.run(nft.list_counters)
        assert [counter.rule_id for counter in counters] == ["own", "mark", "out", "lo", "in"]
        assert counters[-1] == RuleCounter("in", 1, 60)
        assert pod.run(nft.list_counters, "other") == ()


def test_foreign_comments_are_no_counters_of_ours() -> None:
    with Scratch() as pod:
        pod.run(
            nft.apply, 'table inet headgate {\n chain x {\n counter accept comment "theirs"\n counter drop\n }\n}\n'
        )
        assert pod.run(nft.list_counters) == ()


def test_expected_listing_equals_what_a_pod_with_the_same_plan_holds() -> None:
    with Scratch() as pod:
        pod.run(nft.apply, STEER + ELEMENT)
        assert pod.run(nft.list_table, "headgate") == nft.expected_listing(STEER)
        assert nft.expected_listing(STEER + "add rule inet headgate output drop\n") != nft.expected_listing(STEER)


def test_expected_listing_of_a_script_without_that_table_is_refused() -> None:
    with pytest.raises(KernelRefused, match="makes no such table"):
        nft.expected_listing("add table inet other\n")


def test_transaction_is_refused_whole() -> None:
    with Scratch() as pod:
        with pytest.raises(KernelRefused):
            pod.run(nft.apply, STEER + "add rule inet headgate nowhere drop\n")
        assert pod.run(nft.list_table, "headgate") is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "add table inet headgate\nadd rule inet headgate nowhere drop\n",
            "line 2: add rule inet headgate nowhere drop",
        ),
        ("add table inet headgate\n\nadd chain inet headgate x {\n", "syntax error"),
        ("table inet headgate {\n chain x {\n  tcp dport 99999 drop\n }\n}\n", "line 3: tcp dport 99999 drop"),
        ("create table inet headgate\ncreate table inet headgate\n", "File exists, line 2: create table inet headgate"),
        ("add table inet headgate\nadd x\x1b[2J\n", "\\x1b"),
    ],
)
def test_refusal_names_the_failing_line(script: str, said: str) -> None:
    with Scratch() as pod, pytest.raises(KernelRefused) as caught:
        pod.run(nft.apply, script)
    assert said in caught.value.stderr
    assert caught.value.stderr.isprintable()
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["", "a b", "headgate; flush ruleset", "a\nflush ruleset", "x" * 70])
def test_table_name_is_no_way_into_the_command(name: str) -> None:
    with Scratch() as pod:
        pod.run(nft.apply, STEER)
        with pytest.raises(KernelRefused, match="no table name"):
            pod.run(nft.list_table, name)
        assert pod.run(nft.list_table, "headgate") is not None


def test_context_is_given_back_at_once_also_after_a_refusal() -> None:
    """It holds a netlink socket that would pin the namespace; the garbage collector must not be needed for it."""
    with Scratch() as pod:
        pod.run(nft.apply, STEER)
        before = open_descriptors()
        gc.disable()
        try:
            for _ in range(50):
                pod.run(nft.list_table, "headgate")
                with pytest.raises(KernelRefused):
                    pod.run(nft.apply, "nonsense\n")
            assert open_descriptors() == before
        finally:
            gc.enable()


def test_a_thousand_contexts_cost_no_memory() -> None:
    with Scratch() as pod:

        def read(times: int) -> None:
            for _ in range(times):
                nft.list_table("headgate")

        pod.run(nft.apply, STEER)
        pod.run(read, 200)
        before = _resident_bytes()
        pod.run(read, 1000)
        assert _resident_bytes() - before < 2 << 20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_b46_threads_in_many_namespaces_at_once_do_not_disturb_each_other() -> None:
    """libnftables shares some state between contexts; each namespace must end with its own, whole ruleset."""
    pods = [Scratch() for _ in range(24)]

    def work(number: int) -> tuple[str | None, int]:
        script = STEER.replace("15001", str(20000 + number))
        pods[number].run(nft.apply, script)
        for _ in range(5):
            pods[number].run(nft.apply, f"delete table inet headgate\n{script}")
        return pods[number].run(nft.list_table, "headgate"), number

    try:
        with ThreadPoolExecutor(8) as pool:
            for listing, number in pool.map(work, range(len(pods))):
                assert listing is not None and f"redirect to :{20000 + number} " in listing
                assert listing.replace(str(20000 + number), "15001") == nft.expected_listing(STEER)
    finally:
        for pod in pods:
            pod.__exit__()


def test_counters_are_those_that_nft_lists() -> None:
    """Read from the kernel's messages here, by nft there; also past a set in the rule."""
    script = STEER + (
        "add set inet headgate some { type ipv4_addr; }\n"
        'add rule inet headgate prerouting ip saddr @some counter packets 7 bytes 9 drop comment "headgate:set"\n'
        'add rule inet headgate prerouting ip saddr @some drop comment "headgate:uncounted"\n'
    )
    with pod_and_node() as (pod, node):
        pod.run(nft.apply, script)
        node.run(_knock)
        listed = json.loads(pod.shell("nft", "-j", "list", "table", "inet", "headgate"))["nftables"]
        rules = [entry["rule"] for entry in listed if "rule" in entry]
        wanted = [
            RuleCounter(rule["comment"].removeprefix("headgate:"), counter["packets"], counter["bytes"])
            for rule in rules
            for expression in rule["expr"]
            if (counter := expression.get("counter"))
        ]
        assert pod.run(nft.list_counters) == tuple(wanted)
        assert RuleCounter("set", 7, 9) in wanted and "uncounted" not in {counter.rule_id for counter in wanted}


def test_some_rules_of_one_chain_are_read_without_the_others() -> None:
    with pod_and_node() as (pod, node):
        pod.run(nft.apply, STEER)
        node.run(_knock)
        assert pod.run(nft.read_counters, "prerouting", ("in",)) == (RuleCounter("in", 1, 60),)
        assert pod.run(nft.read_counters, "prerouting", ("out", "i")) == ()
        assert [found.rule_id for found in pod.run(nft.read_counters, "output", ("mark", "out"))] == ["mark", "out"]
        assert pod.run(nft.read_counters, "none", ("in",)) == ()
        assert pod.run(nft.read_counters, "prerouting", ("in",), "other") == ()


def test_connections_of_a_set_are_read_with_their_comments() -> None:
    four = (ip_address("10.0.0.5"), 4000, ip_address("10.0.0.9"), 80)
    slipped = (ip_address("10.0.0.6"), 65535, ip_address("255.0.0.1"), 1)
    commented = (
        'add element inet headgate grandfathered4 { 10.0.0.6 . 65535 . 255.0.0.1 . 1 comment "headgate:drift" }\n'
    )
    six = (ip_address("fd00::5"), 443, ip_address("2001:db8::ffff"), 50000)
    with Scratch() as pod:
        assert pod.run(nft.connections, "grandfathered4") is None
        pod.run(nft.apply, STEER)
        assert pod.run(nft.connections, "grandfathered4") == {}
        assert pod.run(nft.connections, "grandfathered6") is None
        pod.run(nft.apply, ELEMENT + commented)
        assert pod.run(nft.connections, "grandfathered4") == {four: "", slipped: "headgate:drift"}
        pod.run(
            nft.apply,
            "add set inet headgate s6 { type ipv6_addr . inet_service . ipv6_addr . inet_service; }\n"
            "add element inet headgate s6 { fd00::5 . 443 . 2001:db8::ffff . 50000 }\n"
            "add set inet headgate others { type ipv4_addr; }\nadd element inet headgate others { 10.0.0.1 }\n",
        )
        assert pod.run(nft.connections, "s6") == {six: ""}
        assert pod.run(nft.connections, "others") == {}


def test_tables_of_the_family_are_named() -> None:
    with Scratch() as pod:
        assert pod.run(nft.tables) == frozenset()
        pod.run(nft.apply, STEER + "table ip others {}\n")
        assert pod.run(nft.tables) == {"headgate"}


def test_a_comment_that_is_no_utf8_hides_nothing_and_ends_nothing() -> None:
    with Scratch() as pod:
        script = 'add table ip n\\nadd chain ip n c\\nadd rule ip n c drop comment "x\\377"\\n'
        pod.shell("sh", "-c", f"printf '{script}' | nft -f -")
        for list_it in (
            nft.list_ruleset,
            lambda: nft.list_chain("ip", "n", "c"),
            lambda: nft.list_tables([("ip", "n")]),
        ):
            assert 'drop comment "x\ufffd"' in (pod.run(list_it) or "")

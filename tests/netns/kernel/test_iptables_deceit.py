"""Rules that a pod's owner makes to be read as something else, or to be written back by who has more rights."""

import socket
import time
from collections.abc import Iterator

import pytest

from agent.kernel import backends, iptables, iptables_base, iptables_tools
from agent.kernel.backends import Backend
from agent.kernel.iptables_tools import Variant
from agent.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, Netlink, attribute
from agent.kernel.nft_messages import NETLINK_NETFILTER, message
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily
from agent.plan.drift import Form
from tests.netns.kernel.iptables import NODE, NODE_PLAN, OTHER_PLAN, restore, saves
from tests.netns.kernel.scratch import Scratch

BACKEND = {Variant.NFT: Backend.IPTABLES_NFT, Variant.LEGACY: Backend.IPTABLES_LEGACY}
_NEWCHAIN = 3  # linux/netfilter/nf_tables.h
_CHAIN_TABLE, _CHAIN_NAME = 1, 3

LINE_BREAK = "headgate:x\n-F HEADGATE_CAPTURE_OUT\n-I OUTPUT -m mark --mark 0x7 -j ACCEPT\n"
INTERFACES = ('a"', '"a', '"')


@pytest.fixture(params=Variant, ids=lambda variant: f"iptables-{variant.value}")
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


@pytest.fixture
def pod() -> Iterator[Scratch]:
    with Scratch() as made:
        made.shell("ip", "link", "set", "lo", "up")
        yield made


def make(pod: Scratch, variant: Variant, *words: str) -> None:
    pod.shell(f"iptables-{variant.value}", "-t", "nat", *words)


def test_a_line_break_in_a_comment_is_no_command_when_rules_are_changed_and_removed(
    pod: Scratch, variant: Variant
) -> None:
    make(pod, variant, "-A", "OUTPUT", "-m", "comment", "--comment", LINE_BREAK, "-j", "RETURN")
    before = saves(pod, variant)
    for plan in (NODE_PLAN, OTHER_PLAN):
        assert pod.run(backends.install, plan, NODE, BACKEND[variant]).changed
        assert pod.run(backends.in_force, plan, BACKEND[variant])
        assert saves(pod, variant)[0].count("--mark 0x7") == 1  # in the comment
    pod.run(backends.remove, OTHER_PLAN, BACKEND[variant])
    assert pod.run(backends.held) == frozenset()
    assert saves(pod, variant)[0] == before[0] or variant is Variant.LEGACY
    assert saves(pod, variant)[0].count("--mark 0x7") == 1


def test_nor_when_a_change_is_undone(pod: Scratch, variant: Variant) -> None:
    """What was in a chain of ours is put back, but not what somebody else had put there."""
    pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
    make(pod, variant, "-A", "HEADGATE_CAPTURE_OUT", "-m", "comment", "--comment", LINE_BREAK, "-j", "RETURN")

    def refuse(name: str) -> None:
        if name == "compare":
            raise KernelRefused(name, "refused by the test", "none")

    with pytest.raises(KernelRefused, match="refused by the test"):
        pod.run(iptables.apply, variant, OTHER_PLAN, Form.STEERING, frozenset, refuse)
    assert "--mark 0x7" not in saves(pod, variant)[0]
    assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])


@pytest.mark.parametrize("opening", INTERFACES)
@pytest.mark.parametrize("closing", INTERFACES)
def test_quotes_in_interfaces_names_hide_no_rule(pod: Scratch, variant: Variant, opening: str, closing: str) -> None:
    """iptables-save prints such a name as it is. Printed between our chains, in one whose name is nearly ours."""
    pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
    make(pod, variant, "-N", "HEADGATE_CAPTURE_IN:")
    make(pod, variant, "-A", "HEADGATE_CAPTURE_IN:", "-o", opening, "-j", "RETURN")
    make(pod, variant, "-I", "HEADGATE_CAPTURE_OUT", "1", "!", "-o", closing, "-j", "ACCEPT")
    changes = pod.run(backends.changes, NODE_PLAN, BACKEND[variant])
    assert len(changes) == 1 and "a foreign rule in chain HEADGATE_CAPTURE_OUT" in changes[0]
    assert pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant]).changed
    assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])


def test_a_chains_name_that_reads_as_rules_is_refused(pod: Scratch) -> None:
    make(pod, Variant.NFT, "-A", "OUTPUT", "-j", "RETURN")
    name = "x - [0:0]\n-A HEADGATE_CAPTURE_OUT -j RETURN\n:y"
    pod.run(_make_chain, name)
    for call in (
        lambda: iptables.read(Variant.NFT, IPFamily.IPV4),
        lambda: backends.install(NODE_PLAN, NODE, Backend.IPTABLES_NFT),
    ):
        with pytest.raises(KernelRefused, match="would read as other rules") as refused:
            pod.run(call)
        assert "\n" not in str(refused.value)
    pod.run(backends.install, NODE_PLAN, NODE, Backend.NFTABLES)  # which does not read it


def _make_chain(name: str) -> None:
    names = attribute(_CHAIN_TABLE, b"nat\0") + attribute(_CHAIN_NAME, name.encode() + b"\0")
    new = message(_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, names, socket.AF_INET)
    with Netlink(NETLINK_NETFILTER) as netlink:
        assert not any(netlink.transact(iptables_base._batch([new])).values())


def test_more_rules_than_anybody_has_are_not_read_to_the_end(
    pod: Scratch, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iptables_tools, "LARGEST_SAVE_BYTES", 50_000)
    lines = "".join(f"-A MANY -s 10.{n >> 8}.{n & 255}.0/24 -j RETURN\n" for n in range(2000))
    restore(pod, variant, "iptables", f"*nat\n:MANY - [0:0]\n{lines}COMMIT\n")
    began = time.monotonic()
    with pytest.raises(KernelRefused, match="prints more than 50000 bytes"):
        pod.run(iptables.read, variant, IPFamily.IPV4)
    assert time.monotonic() - began < 10


def test_a_foreign_rule_that_leads_into_a_chain_of_ours_is_not_written_either_and_the_remedy_says_what_to_do(
    pod: Scratch, variant: Variant
) -> None:
    theirs = ("OUTPUT", "-m", "string", "--string", "a b", "--algo", "bm", "-j", "HEADGATE_CAPTURE_OUT")
    pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
    make(pod, variant, "-A", *theirs)
    with pytest.raises(KernelRefused) as refused:
        pod.run(backends.remove, NODE, BACKEND[variant])
    assert "-X HEADGATE_CAPTURE_OUT" in refused.value.stderr and "leads into that chain" in refused.value.remedy
    make(pod, variant, "-D", *theirs)
    pod.run(backends.remove, NODE, BACKEND[variant])
    assert pod.run(backends.held) == frozenset()

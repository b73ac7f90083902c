"""Rules that are the same in many pods are read in full once; what differs in one of them is seen all the same."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.doctor.gather import alike, rules
from agent.doctor.gather.alike import Alike
from agent.ruleset.inventory import Inventory, Tool
from agent.ruleset.read import inventory
from tests.netns.rules.here import Here, quiet_pod

SIDECAR = """\
*nat
:ISTIO_REDIRECT - [0:0]
-A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""


@pytest.fixture
def read_in_full(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Inventory]]:
    """Each inventory that was read with everybody's tools."""
    full: list[Inventory] = []

    def reading() -> Inventory:
        full.append(inventory())
        return full[-1]

    monkeypatch.setattr(alike, "inventory", reading)
    yield full


def pods(stack: ExitStack, tool: str, number: int = 3) -> list[Here]:
    made = [stack.enter_context(quiet_pod()) for _ in range(number)]
    for here in made:
        for family in ("iptables", "ip6tables"):
            here.restore(f"{family}-{tool}", SIDECAR)
    return made


@pytest.mark.parametrize("tool", ["nft", "legacy"])
def test_two_hundred_alike_cost_one(read_in_full: list[Inventory], tool: str) -> None:
    known = Alike()
    with ExitStack() as stack:
        found = [here.pod.run(rules.rules, known) for here in pods(stack, tool)]
    assert len(read_in_full) == 1
    assert found[0].counts == ((Tool(f"iptables-{tool}"), 4),) and found[0] == found[1] == found[2]


@pytest.mark.parametrize("tool", ["nft", "legacy"])
def test_counters_make_no_difference(read_in_full: list[Inventory], tool: str) -> None:
    known = Alike()
    with ExitStack() as stack:
        first, second, _ = pods(stack, tool)
        first.pod.run(rules.rules, known)
        with second.pod.run(socket.socket) as sock:
            assert sock.connect_ex(("127.0.0.1", 9)) != 0
        assert "[1:60]" in second.pod.shell(f"iptables-{tool}-save", "-c")
        second.pod.run(rules.rules, known)
    assert len(read_in_full) == 1


@pytest.mark.parametrize("tool", ["nft", "legacy"])
@pytest.mark.parametrize(
    "more",
    [
        ("-t", "nat", "-A", "ISTIO_REDIRECT", "-p", "tcp", "-j", "RETURN"),
        ("-t", "nat", "-R", "ISTIO_REDIRECT", "1", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15002"),
        ("-t", "mangle", "-A", "OUTPUT", "-j", "MARK", "--set-mark", "0x539"),
        ("-t", "filter", "-P", "OUTPUT", "DROP"),
    ],
)
def test_what_differs_in_one_pod_is_read_there(read_in_full: list[Inventory], tool: str, more: tuple[str, ...]) -> None:
    known = Alike()
    with ExitStack() as stack:
        first, second, third = pods(stack, tool)
        second.pod.shell(f"iptables-{tool}", *more)
        found = [here.pod.run(rules.rules, known) for here in (first, second, third)]
        expected = second.pod.run(inventory)
    assert len(read_in_full) == 2
    assert found[0] == found[2] != found[1] and found[1].inventory.tables == expected.tables


def test_sets_of_others_are_never_taken_for_the_same(read_in_full: list[Inventory]) -> None:
    """What a set holds is in no message of a rule."""
    known = Alike()
    with ExitStack() as stack:
        for port in (7, 8):
            here = stack.enter_context(quiet_pod())
            here.nft(f"table inet t {{\n chain c {{\n tcp dport {{ {port}, 99 }} accept\n}}\n}}\n")
            found = here.pod.run(rules.rules, known)
            assert f"{{ {port}, 99 }}" in next(rule.text for table in found.inventory.tables for _, rule in table.rules)
    assert len(read_in_full) == 2

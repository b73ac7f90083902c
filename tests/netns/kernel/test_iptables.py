"""Rules by iptables-nft and iptables-legacy in real namespaces: put in force, found again, taken away."""

import fcntl
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.kernel import backends, iptables, iptables_tools
from agent.kernel.backends import Backend
from agent.kernel.iptables_tools import Variant
from agent.kernel.netns_lock import locked
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily, Steering, plan_of
from agent.plan.drift import Form
from agent.plan.ranges import Ranges
from tests.netns.kernel.iptables import (
    FOREIGN,
    INIT,
    INIT_PLAN,
    NODE,
    NODE_PLAN,
    OTHER_PLAN,
    foreign,
    holdings,
    reaches,
    restore,
    saves,
)
from tests.netns.kernel.scratch import NODE4, NODE6, Scratch, pod_and_node

BACKEND = {Variant.NFT: Backend.IPTABLES_NFT, Variant.LEGACY: Backend.IPTABLES_LEGACY}
DIRECTORY = Path("/usr/sbin")


@pytest.fixture(params=Variant, ids=lambda variant: f"iptables-{variant.value}")
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


@pytest.fixture
def pod() -> Iterator[Scratch]:
    with Scratch() as made:
        made.shell("ip", "link", "set", "lo", "up")
        yield made


def install(pod: Scratch, variant: Variant, plan: object = NODE_PLAN) -> backends.Installed:
    settings = INIT if plan is INIT_PLAN else NODE
    return pod.run(backends.install, plan, settings, BACKEND[variant])


# ── Put in force, and found again ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("plan", [NODE_PLAN, INIT_PLAN], ids=["node", "init"])
def test_installed_is_in_force_and_removed_is_gone(pod: Scratch, variant: Variant, plan: object) -> None:
    before = holdings(pod, variant)
    assert pod.run(backends.held) == frozenset()
    assert install(pod, variant, plan) == backends.Installed(changed=True)
    assert pod.run(backends.held) == {BACKEND[variant]}
    assert pod.run(backends.changes, plan, BACKEND[variant]) == ()
    pod.run(backends.remove, plan, BACKEND[variant])
    assert pod.run(backends.held) == frozenset()
    assert holdings(pod, variant) == before


def test_b41_applied_twice_is_as_once_counters_and_all(pod: Scratch, variant: Variant) -> None:
    install(pod, variant)
    with pod.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"counted", ("127.0.0.1", 9))
    before, once = pod.run(backends.counters, BACKEND[variant]), saves(pod, variant)
    assert RuleCounter("out-datagram-skip-lo", 1, 35) in before
    assert install(pod, variant) == backends.Installed(changed=False)
    assert pod.run(backends.counters, BACKEND[variant]) == before
    assert saves(pod, variant) == once


def test_b42_foreign_rules_stay_byte_for_byte(pod: Scratch, variant: Variant) -> None:
    foreign(pod, variant)
    before = holdings(pod, variant)
    install(pod, variant)
    restore(pod, variant, "iptables", "*nat\n-I OUTPUT 1 -p tcp -m tcp --dport 8 -j ACCEPT\nCOMMIT\n")
    assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) == ()  # before ours, or behind: theirs
    install(pod, variant, OTHER_PLAN)
    restore(pod, variant, "iptables", "*nat\n-D OUTPUT -p tcp -m tcp --dport 8 -j ACCEPT\nCOMMIT\n")
    pod.run(backends.remove, OTHER_PLAN, BACKEND[variant])
    assert holdings(pod, variant) == before


def test_what_others_put_into_a_table_that_was_made_for_us_keeps_it(pod: Scratch) -> None:
    install(pod, Variant.NFT)
    restore(pod, Variant.NFT, "iptables", "*nat\n-A OUTPUT -p tcp -m tcp --dport 8 -j ACCEPT\nCOMMIT\n")
    restore(pod, Variant.NFT, "ip6tables", "*raw\n:OUTPUT DROP [0:0]\nCOMMIT\n")
    pod.run(backends.remove, NODE_PLAN, Backend.IPTABLES_NFT)
    ruleset = pod.shell("nft", "list", "ruleset")
    assert "tcp dport 8" in ruleset and "policy drop" in ruleset
    assert ruleset.count("table ") == 2 and ruleset.count("chain ") == 2


def test_another_plan_takes_the_place_of_the_first(pod: Scratch, variant: Variant) -> None:
    install(pod, variant)
    assert install(pod, variant, OTHER_PLAN) == backends.Installed(changed=True)
    assert pod.run(backends.changes, OTHER_PLAN, BACKEND[variant]) == ()
    assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) != ()


@pytest.mark.parametrize("was", Backend)
@pytest.mark.parametrize("becomes", Backend)
def test_one_backend_takes_over_from_another(pod: Scratch, was: Backend, becomes: Backend) -> None:
    pod.run(backends.install, NODE_PLAN, NODE, was)
    assert pod.run(backends.choose).backend is was
    pod.run(backends.install, NODE_PLAN, NODE, becomes)
    assert pod.run(backends.held) == {becomes}
    assert pod.run(backends.in_force, NODE_PLAN, becomes)


def test_the_drain_form_captures_nothing_and_keeps_nat_hooked(pod: Scratch, variant: Variant) -> None:
    install(pod, variant)
    pod.run(backends.drain, NODE_PLAN, BACKEND[variant])
    text = "".join(saves(pod, variant))
    assert "REDIRECT" not in text and "HEADGATE_CAPTURE_OUT" in text and "return-mark-restore" in text
    once = saves(pod, variant)
    pod.run(backends.drain, NODE_PLAN, BACKEND[variant])
    assert saves(pod, variant) == once
    pod.run(backends.remove, NODE_PLAN, BACKEND[variant])
    assert "HEADGATE" not in "".join(saves(pod, variant))


def test_a_rule_of_many_parts_is_one_counter(pod: Scratch, variant: Variant) -> None:
    many = plan_of(Steering(exclude_outbound_ports=Ranges.of(*range(7000, 7080, 2))), NODE)
    pod.run(backends.install, many, NODE, BACKEND[variant])
    assert saves(pod, variant)[0].count("out-capture-skip-ports") == 3  # of 15, 15 and 10
    ids = [counter.rule_id for counter in pod.run(backends.counters, BACKEND[variant])]
    assert ids.count("out-capture-skip-ports") == 1 and len(ids) == len(set(ids))
    assert set(ids) <= {rule.rule_id for rule in many.all_rules}


def test_connections_older_than_the_rules_have_a_rule_each(variant: Variant) -> None:
    with pod_and_node() as (pod, node):
        for address in (NODE4, NODE6):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with (
                node.run(socket.create_server, (address, 8080), family=family) as listener,
                pod.run(socket.create_connection, (address, 8080)) as client,
            ):
                server, _ = listener.accept()
                with server:
                    install(pod, variant)
                    text = "".join(saves(pod, variant))
                    assert text.count(f"--sport {client.getsockname()[1]} --dport 8080") == 1  # as it is sent
                    assert text.count(f"--sport 8080 --dport {client.getsockname()[1]}") == 1  # and answered
                    assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) == ()
                    client.sendall(b"still here")
                    assert server.recv(100) == b"still here"
                    pod.run(backends.remove, NODE_PLAN, BACKEND[variant])


# ── Drift, in words ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("tool", "sabotage", "words"),
    [
        ("iptables", "*nat\n-F HEADGATE_CAPTURE_OUT", "chain HEADGATE_CAPTURE_OUT is empty: its 4 rules are missing"),
        ("iptables", "*nat\n-D HEADGATE_CAPTURE_OUT 1", "rule out-capture-skip-lo is missing"),
        ("iptables", "*nat\n-F OUTPUT", "chain OUTPUT is missing"),
        ("ip6tables", "*mangle\n-I HEADGATE_MARK_OUT 1 -p tcp -j ACCEPT", "a foreign rule in chain HEADGATE_MARK_OUT"),
        ("iptables", "*nat\n-R HEADGATE_CAPTURE_OUT 3 -j RETURN", "a foreign rule in chain HEADGATE_CAPTURE_OUT"),
        ("ip6tables", "*nat\n:HEADGATE_OLD - [0:0]", "a foreign chain HEADGATE_OLD"),
        ("iptables", "*raw\n-F\n-X", "table iptables raw is gone"),
    ],
)
def test_b43_what_differs_is_told_and_healed(
    pod: Scratch, variant: Variant, tool: str, sabotage: str, words: str
) -> None:
    install(pod, variant)
    sound = saves(pod, variant)
    restore(pod, variant, tool, f"{sabotage}\nCOMMIT\n")
    changes = pod.run(backends.changes, NODE_PLAN, BACKEND[variant])
    assert any(change.startswith(f"{tool} ") and words in change for change in changes), changes
    assert install(pod, variant) == backends.Installed(changed=True)
    assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) == ()
    assert list(map(lines, saves(pod, variant))) == list(map(lines, sound))


def lines(text: str) -> list[str]:
    """In any order, for tables are printed as they were made; without what was made for a jump that somebody took."""
    return sorted(text.replace("+table", "").replace("+chain", "").splitlines())


def test_b43_order_in_a_chain_counts(pod: Scratch, variant: Variant) -> None:
    install(pod, variant)
    rule = next(line for line in saves(pod, variant)[0].splitlines() if "out-capture-skip-proxy" in line)
    spec = rule.removeprefix("-A HEADGATE_CAPTURE_OUT ")
    move = f"*nat\n-D HEADGATE_CAPTURE_OUT {spec}\n{rule}\nCOMMIT\n"
    restore(pod, variant, "iptables", move)
    assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) == (
        "iptables nat: rules out-capture-skip-proxy and out-capture are swapped",
    )


def test_the_return_path_belongs_to_the_plan(pod: Scratch, variant: Variant) -> None:
    install(pod, variant)
    pod.shell("ip", "-6", "rule", "del", "preference", "32764")
    assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) == (
        "ip rule 32764 (fwmark 0x111/0xfff lookup 100) (IPv6) is missing",
    )
    assert install(pod, variant).changed and pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])


def test_the_sidecars_own_source_address_belongs_to_the_plan(pod: Scratch, variant: Variant) -> None:
    install(pod, variant, INIT_PLAN)
    pod.shell("ip", "address", "del", "::6/128", "dev", "lo")
    assert pod.run(backends.changes, INIT_PLAN, BACKEND[variant]) == ("address ::6 of lo is missing",)
    assert install(pod, variant, INIT_PLAN).changed and pod.run(backends.in_force, INIT_PLAN, BACKEND[variant])


# ── Faults ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_b45_without_ip6tables_ipv4_is_steered_and_the_rest_is_said(
    pod: Scratch, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in ("save", "restore"):
        name = f"iptables-{variant.value}-{verb}"
        (tmp_path / name).symlink_to(DIRECTORY / name)
    monkeypatch.setattr(iptables_tools, "DIRECTORIES", (str(tmp_path),))
    why = f"ip6tables-{variant.value}-restore is not installed"
    assert install(pod, variant) == backends.Installed(changed=True, absent=((IPFamily.IPV6, why),))
    assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])
    with pytest.raises(KernelRefused, match=why):
        pod.run(backends.install, OTHER_PLAN, NODE, BACKEND[variant], ipv6_required=True)
    assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])


def test_b45_ipv6_off_by_sysctl_keeps_nothing_from_being_steered(pod: Scratch, variant: Variant) -> None:
    pod.run(Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text, "1")
    assert install(pod, variant, INIT_PLAN) == backends.Installed(changed=True)
    assert pod.run(backends.in_force, INIT_PLAN, BACKEND[variant])
    assert install(pod, variant, NODE_PLAN).changed
    assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])


def test_without_iptables_the_refusal_says_what_to_do(
    pod: Scratch, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iptables_tools, "DIRECTORIES", (str(tmp_path),))
    with pytest.raises(KernelRefused, match=f"iptables-{variant.value}-restore is not installed.*install"):
        install(pod, variant)
    with pytest.raises(KernelRefused, match=f"iptables-{variant.value}-restore is not installed"):
        pod.run(backends.choose, BACKEND[variant])
    assert pod.run(backends.choose).backend is Backend.NFTABLES


def test_b46_two_at_once_take_turns(pod: Scratch, variant: Variant) -> None:
    """Two plans, applied again and again by two threads: what is there in the end is one of them, whole."""
    raised: list[BaseException] = []

    def again_and_again(plan: object) -> None:
        try:
            for _ in range(3):
                pod.run(iptables.apply, variant, plan, Form.STEERING, frozenset)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=again_and_again, args=(plan,)) for plan in (NODE_PLAN, OTHER_PLAN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    in_force = [pod.run(backends.in_force, plan, BACKEND[variant]) for plan in (NODE_PLAN, OTHER_PLAN)]
    assert sorted(in_force) == [False, True]


def test_b46_pods_do_not_wait_for_each_other_and_nobody_for_ever(
    pod: Scratch, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is in the pod can hold the lock, also an application without any right that wants no rules."""
    # The time is a default value, bound when the module was read.
    monkeypatch.setattr(iptables, "locked", partial(locked, 0.2))
    with Scratch() as other, pod.run(_holder) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        try:
            began = time.monotonic()
            install(other, variant)
            assert pod.run(_waits)
            assert install(pod, variant).changed
            assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])
            assert time.monotonic() - began < 10
        finally:
            holder.kill()


_HOLD = """
import fcntl, os, time
fcntl.flock(os.open("/proc/self/ns/net", os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def _holder() -> "subprocess.Popen[bytes]":
    """Of nobody, who may do nothing."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")
    return subprocess.Popen([*nobody, "/usr/bin/python3", "-c", _HOLD], stdout=subprocess.PIPE)


def _waits() -> bool:
    """Whether somebody has to wait for the lock here."""
    with Path("/proc/thread-self/ns/net").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_while_rules_change_nothing_new_leaves_in_clear(variant: Variant) -> None:
    """Tried at every step of a first installation, once the guard stands in both families."""
    seen: dict[str, list[bool]] = {}
    with pod_and_node() as (pod, node):

        def look(step: str) -> None:
            seen[step] = [reaches(pod, node, address, _arrived) for address in (NODE4, NODE6)]

        pod.run(iptables.apply, variant, NODE_PLAN, Form.STEERING, frozenset, look)
        look("done")
    assert seen.pop("guard iptables") == [True, True]
    assert seen.pop("guard ip6tables") == [False, True]
    assert len(seen) == 7 and not any(map(any, seen.values())), seen


def _arrived(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0.1)[0])


def test_others_rules_are_not_read_into_ours(pod: Scratch, variant: Variant) -> None:
    """A comment that looks like a rule of ours, quotes and all."""
    restore(pod, variant, "iptables", FOREIGN)
    assert not pod.run(iptables.held, variant)
    assert pod.run(backends.held) == frozenset()

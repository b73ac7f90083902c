"""Stories of connections that go past the proxy, and nobody sees it."""

from __future__ import annotations

from functools import partial
from typing import Final

from agent.lab.node import LabPod
from agent.lab.spec import PodSpec
from tests.stories.steered import ORDERS, PEERS, shop
from tests.stories.telling import READY_S, Story, Telling, application

_POSTGRES: Final = application("postgres", "listens", "5432", ports=(5432,))
_ENVOY: Final = application("envoy", "listens", "15001", ports=(15001,))


def _talks(pod: LabPod, *where: str) -> bool:
    """Whether a connection lives there, as ss(8) selects them."""
    return bool(pod.run(["ss", "-Htn", "state", "established", *where]).stdout)


def _database(told: Telling) -> None:
    lab, client = told.lab, told.lab.pod("client")
    lab.start_server("client", application("billing", "talks", "10.77.0.3", "5432"))
    lab.wait("billing to talk", lambda: _talks(client, "dport", "= :5432"), timeout_s=READY_S)
    told.begins()
    told.says("""
        All pods are proved, and the calls of `billing` to its database appear in no metric.
    """)
    told.runs("headgate pods", "proved")
    told.runs("headgate conn client --unsteered", "older than the rules")
    told.says("""
        **Cause.** Enrolling a pod cuts nothing: the connection was opened before the rules were there, and a database's
        lives for weeks. Meshes that cut it are asked not to (istio #48876). It is
        counted: the metric is `headgate_unsteered_connections{reason="grandfathered"}`; `why` has it as a note:
    """)
    told.runs("headgate why client | grep -A2 outside", "older than the rules")
    told.says("""
        **Remedy.** It ends in its own time, with the next deployment at the latest. Sooner: end that one connection;
        its pool opens another.
    """)
    told.runs("ip netns exec client ss -K dst 10.77.0.3 dport = 5432 2>/dev/null | grep -c ESTAB", "1")
    lab.wait("billing to talk through the proxy", partial(_by_proxy, told), timeout_s=READY_S)
    told.runs("headgate conn client", ":15001 outbound")


def _by_proxy(told: Telling) -> bool:
    """And the proxy has found out what it speaks."""
    return "15001" in told.starts("headgate conn client --path tcp --port 5432").communicate()[0]


def _ipv6(told: Telling) -> None:
    lab, pod = told.lab, told.lab.pod("shop")
    (lab.paths.directory / "istio.ip6tables").write_text((PEERS / "istio_redirect.ip6tables").read_text())
    pod.run(["iptables-nft-restore"], stdin=(PEERS / "istio_redirect.iptables").read_text())
    for name, to in (("cart", "10.77.0.3"), ("search", "fd77::3")):
        lab.start_server("shop", application(name, "talks", to, "8080"))
        lab.wait(f"{name} to talk", partial(_talks, pod, "dst", f"[{to}]"), timeout_s=READY_S)
    told.says("""
        A pod with Istio's sidecar: some of its calls are refused for want of mutual TLS, others to the same server are
        not. No agent of ours is on this node, and none is needed to look.
    """)
    told.runs("headgate conn --netns /run/netns/shop 2>/dev/null", "no rule leads it anywhere")
    told.runs("headgate rules explain --netns /run/netns/shop --to 10.77.0.3:8080 | tail -n 1", "port 15001")
    told.runs("headgate rules explain --netns /run/netns/shop --to '[fd77::3]:8080'", "outcome: passes")
    doctor = "headgate doctor --netns /run/netns/shop --only ipv6-half-off -o wide 2>/dev/null | head -n 3"
    told.runs(doctor, "rules redirect IPv4 only")
    told.says("""
        **Cause.** Rules for IPv4 alone, in a pod that has both: Istio makes IPv6's only where the mesh is told of two
        families. The resolver's answers decide which calls are in the mesh.

        **Remedy.** `ISTIO_DUAL_STACK=true`, and start the pods again, so that Istio's init container does this:
    """)
    told.runs("ip netns exec shop ip6tables-nft-restore istio.ip6tables")
    told.runs("headgate rules explain --netns /run/netns/shop --to '[fd77::3]:8080' | tail -n 1", "port 15001")


def _gone(told: Telling) -> None:
    lab = told.lab
    told.begins()
    lab.kill_agent()
    lab.pod("client").run(["nft", "flush", "ruleset"])
    told.says("""
        An audit finds calls without an entry in any log. Nothing ever failed: the pod is annotated, and its calls
        arrive.
    """)
    told.runs("ip netns exec client curl -sS http://10.77.0.3:8080/", "here you are")
    told.runs("headgate why client --netns /run/netns/client", "the rules that lead to the proxy are gone", status=1)
    told.says("""
        **Cause.** Two faults, and the first hid the second: no agent runs on the node, so nobody heals rules that
        somebody flushed. (With other agents it takes no flush: istio #61182 is a pod that was without rules for 29
        days, and every view was green.)

        **Remedy.** Start the agent; it finds pods, rules and connections as they are. Until that is
        possible the rules alone can be put back by hand:
    """)
    told.runs("headgate rules diff --netns /run/netns/client --identity mark --fix | tail -n 3")
    told.runs("headgate rules explain --netns /run/netns/client --to 10.77.0.3:8080 | tail -n 1", "port 15001")
    lab.start_agent()
    lab.wait_proved(timeout_s=READY_S)
    told.says("""
        And when the agent is there again:
    """)
    told.runs("headgate why client | tail -n 1", "it is proved")
    told.runs("ip netns exec client curl -sS http://10.96.0.10/", "here you are")


DATABASE: Final = Story(
    "The database connection is outside the mesh",
    (PodSpec("client"), PodSpec("orders", servers=(_POSTGRES,))),
    _database,
)
IPV6: Final = Story("Only IPv6 bypasses the mesh", (PodSpec("shop", listed=False, servers=(_ENVOY,)), shop()[1]), _ipv6)
GONE: Final = Story("It worked, and none of it was in the mesh", shop(), _gone, (ORDERS,))

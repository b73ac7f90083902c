"""Stories of connections that are led elsewhere than they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.lab.spec import PodSpec
from tests.stories.telling import Story, Telling, application

ORDERS: Final = Path(__file__).with_name("orders.yaml")
PEERS: Final = Path(__file__).parents[1] / "netns" / "explain" / "peers"
_CACHE: Final = (
    "table ip web-cache { chain out { type nat hook output priority -110; tcp dport 80 redirect to :3128; }; }"
)
_FIREWALL: Final = """\
table inet firewall {
  chain in {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    tcp dport 8080 accept
    meta l4proto ipv6-icmp accept
  }
}
"""


def shop() -> tuple[PodSpec, PodSpec]:
    """`client`, and `orders` behind the Service orders.default, 10.96.0.10:80."""
    orders = application("orders", "answers", "8080", ports=(8080,))
    return PodSpec("client"), PodSpec("orders", labels=(("app", "orders"),), servers=(orders,))


def _not_reached(told: Telling) -> None:
    told.begins()
    told.lab.pod("client").run(["nft", _CACHE])
    told.says("""
        HTTP calls of one pod are refused, all others work. The pod is shown as proved.
    """)
    told.runs("ip netns exec client curl -sS http://10.96.0.10/", "Failed to connect", status=7)
    told.runs("headgate pods", "proved")
    told.says("""
        `why` finds the mesh whole: its four proofs are connections to port 15002, and they arrive. But it has seen
        that somebody else translates in this pod.
    """)
    told.runs("headgate why client | grep -A1 '^ok  *rules'", "web-cache")
    told.says("""
        So the question is what becomes of *this* connection. `explain` asks every rule that is there, whoever made it,
        and sends nothing.
    """)
    told.runs("headgate rules explain client --to 10.96.0.10:80", "redirect to :3128", "nobody listens there")
    told.says("""
        **Cause.** A sidecar's leftover, a web cache that is no longer there, translates at priority -110, before our
        chain at -100. The first translation of a connection is the only one.

        **Remedy.** Its maker should take it away; until then:
    """)
    told.runs("nsenter --net=/run/netns/client nft delete table ip web-cache")
    told.runs("headgate rules explain client --to 10.96.0.10:80 | tail -n 1", "redirected to port 15001")
    told.runs("ip netns exec client curl -sS http://10.96.0.10/", "here you are")


def _probe(told: Telling) -> None:
    told.lab.pod("orders").netns.run(["nft", "-f", "-"], stdin=_FIREWALL)
    told.serves()
    told.lab.wait_proved("client")
    told.reaches("orders", "installed")
    told.says("""
        The kubelet's probe of `orders` times out since the pod is in the mesh; the application answers from inside.
    """)
    told.runs("curl -sS --max-time 1 -o /dev/null http://10.77.0.3:8080/healthz", status=28)
    told.runs("ip netns exec orders curl -sS http://10.77.0.3:8080/healthz", "here you are")
    told.runs("headgate why orders | grep -A4 FAILED", "FAILED proofs", "the policy of chain in")
    told.says("""
        The rules are in force, and what they lead to the proxy is lost. `why` names the chain; `explain` shows for the
        probe's own packet why that chain drops it.
    """)
    told.runs(
        "headgate rules explain orders --from 10.77.0.1 --to 10.77.0.3:8080 | sed -n '/^input/,$p'", "policy drop"
    )
    told.says("""
        **Cause.** The pod brought a firewall of its own, that lets port 8080 in. It asks at the hook `input`, where the
        packet is addressed to 15006 already.

        **Remedy.** Not port 15006, behind which are all ports of the pod: what the connection was opened to, which
        conntrack remembers; and 15002, where the proofs go.
    """)
    told.runs(
        "ip netns exec orders nft insert rule inet firewall in "
        "meta l4proto tcp ct original proto-dst '{ 8080, 15002 }' accept"
    )
    told.runs("curl -sS --max-time 5 http://10.77.0.3:8080/healthz", "here you are")
    told.runs("curl -sS --max-time 1 http://10.77.0.3:9090/", status=28)
    told.runs("headgate why orders | tail -n 1", "it is proved")


def _legacy(told: Telling) -> None:
    told.begins()
    told.lab.pod("client").netns.run(["iptables-legacy-restore"], stdin=(PEERS / "linkerd.iptables").read_text())
    told.says("""
        After a migration from Linkerd every call of one pod is refused. Nobody finds a rule of Linkerd's.
    """)
    told.runs("ip netns exec client curl -sS http://10.96.0.10/", "Failed to connect", status=7)
    told.runs("ip netns exec client nft list tables")
    told.runs("ip netns exec client iptables-nft-save 2>/dev/null")
    told.runs("headgate why client | grep -A1 -e '^ok  *rules' -e FAILED", "legacy iptables nat table", "FAILED proofs")
    told.says("""
        iptables has two engines, and each tool sees the rules of its own (istio #41767, kuma #5663). `doctor` and
        `explain` read all of them.
    """)
    told.runs("headgate doctor --only mixed-backends -o wide 2>/dev/null | head -n 3", "SERIOUS mixed-backends")
    told.runs("headgate rules explain client --to 10.96.0.10:80 | sed -n '/^not known/,$p'", "port 4140")
    told.says("""
        **Cause.** linkerd-init was still in the pod's template, and its image's `iptables` is the legacy one: it leads
        to 4140, where nobody listens any more. Of two translations at the same priority the first to be asked wins,
        and the kernel does not tell which that is: so `explain` gives both outcomes.

        **Remedy.** Take the init container out of the template; in the pods that run:
    """)
    told.runs("nsenter --net=/run/netns/client iptables-legacy -t nat -F")
    told.runs("headgate rules explain client --to 10.96.0.10:80 | tail -n 1", "redirected to port 15001")
    told.runs("ip netns exec client curl -sS http://10.96.0.10/", "here you are")
    told.runs("headgate why client | tail -n 1", "it is proved")


NOT_REACHED: Final = Story("Traffic does not reach the proxy", shop(), _not_reached, (ORDERS,))
PROBE: Final = Story("The probe fails since enrolment", shop(), _probe, (ORDERS,))
LEGACY: Final = Story("Every call is refused since the migration", shop(), _legacy, (ORDERS,))

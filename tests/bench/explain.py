"""How long `rules explain` takes in a namespace of 5,000 rules, and which part of it is whose.

Three makes of 5,000 rules: nft's, all in one chain, of which a packet meets each and misses each: the worst there is.
kube-proxy's with 1,000 Services, by iptables-nft and by iptables-legacy: it meets the half of the Services' chain, and
what the Service's own chains say. Wall time, median of rounds in turn; reading by the tools apart from what is done
with it, since libnftables takes 52 µs for each rule that it prints as JSON.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from agent.explain import nft_json
from agent.explain.interpret import explain
from agent.explain.outcome import Fate
from agent.explain.packet import TCP, Packet, Sender, Way
from agent.explain.tables import Ruleset
from agent.kernel import iptables_tools, nft
from agent.kernel.iptables_tools import Variant
from agent.kernel.surroundings import KernelSurroundings
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import IPFamily
from agent.pods import IPAddress
from agent.ruleset.explaining import explained
from agent.ruleset.packet_options import End, Options
from tests.bench.results import Fact

RULES: Final = 5000
_SERVICES: Final = RULES // 5
_ROUNDS: Final = 9
_BOUND_MS: Final = 100.0
_ELSEWHERE: Final = ip_address("198.51.100.7")  # RFC 5737
_SERVICE: Final = ip_address(f"10.96.{_SERVICES // 2 >> 8}.{_SERVICES // 2 & 255}")
_PODS: Final = ("flat", "kube-nft", "kube-legacy")

Say = Callable[[str], None]


def flat(rules: int = RULES) -> str:
    """One chain; no rule of it is for `_ELSEWHERE`."""
    lines = (
        f"ip daddr 10.{n >> 8}.{n & 255}.0/24 tcp dport {1000 + n} counter redirect to :15001" for n in range(rules)
    )
    return "\n".join(
        ("table inet flat {", "chain output {", "type nat hook output priority -100; policy accept;", *lines, "}", "}")
    )


def kube(services: int = _SERVICES) -> str:
    """As kube-proxy writes them: five rules for each Service with one endpoint."""
    names = [f"{n:016d}" for n in range(services)]
    chains = [f":KUBE-{kind}-{name} - [0:0]" for name in names for kind in ("SVC", "SEP")]
    jump = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    lines = ["*nat", ":KUBE-MARK-MASQ - [0:0]", ":KUBE-SERVICES - [0:0]", *chains, f"-A OUTPUT {jump}"]
    for n, name in enumerate(names):
        said = f'-m comment --comment "default/s{n}:http'
        to = f"-d 10.96.{n >> 8}.{n & 255}/32 -p tcp"
        lines += [
            f'-A KUBE-SERVICES {to} {said} cluster IP" -m tcp --dport 80 -j KUBE-SVC-{name}',
            f'-A KUBE-SVC-{name} ! -s 10.244.0.0/16 {to} {said} cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
            f'-A KUBE-SVC-{name} {said} -> 10.244.{n >> 8}.{n & 255}:8080" -j KUBE-SEP-{name}',
            f'-A KUBE-SEP-{name} -s 10.244.{n >> 8}.{n & 255}/32 {said}" -j KUBE-MARK-MASQ',
            f'-A KUBE-SEP-{name} -p tcp {said}" -m tcp -j DNAT --to-destination 10.244.{n >> 8}.{n & 255}:8080',
        ]
    return "\n".join([*lines, "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", "COMMIT\n"])


def measure(say: Say) -> tuple[Fact, ...]:
    """Raises LabError, KernelRefused."""
    pods = [PodSpec(name, labels=(("headgate.io/mesh", "disabled"),)) for name in _PODS]
    with Lab(LabSpec(tuple(pods))) as lab:
        one, by_nft, by_legacy = lab.pods
        say("explain: 5,000 rules, three times")
        one.call(nft.apply, flat())
        by_nft.call(iptables_tools.restore, Variant.NFT, IPFamily.IPV4, kube())
        by_legacy.call(iptables_tools.restore, Variant.LEGACY, IPFamily.IPV4, kube())
        found: dict[str, list[float]] = {}
        for turn in range(_ROUNDS):
            say(f"explain: round {turn + 1} of {_ROUNDS}")
            for name, took in _round(one, by_nft, by_legacy).items():
                found.setdefault(name, []).append(took)
    return tuple(_fact(name, statistics.median(times)) for name, times in found.items())


_WHAT: Final = {
    "listed": "explain: libnftables prints 5,000 rules of one chain",
    "parsed": "explain: their JSON read into values",
    "interpreted": "explain: 5,000 rules met one after another",
    "kube_nft": "explain: kube-proxy's 5,000 rules, iptables-nft, read and interpreted",
    "kube_legacy": "explain: kube-proxy's 5,000 rules, iptables-legacy, read and interpreted",
    "command": "explain: the command in kube-proxy's 5,000 rules (iptables-nft), from start to end",
}
_BOUNDED: Final = frozenset({"interpreted", "kube_nft", "kube_legacy"})


def _fact(name: str, took_ms: float) -> Fact:
    return Fact(f"explain_{name}", _WHAT[name], took_ms, "ms", _BOUND_MS if name in _BOUNDED else None)


def _round(one: LabPod, by_nft: LabPod, by_legacy: LabPod) -> dict[str, float]:
    return {
        **one.call(_parts),
        "kube_nft": by_nft.call(_whole, _SERVICE),
        "kube_legacy": by_legacy.call(_whole, _SERVICE),
        "command": _command(by_nft),
    }


def _parts() -> dict[str, float]:
    """Of the flat chain, as `explained` does it: without the collector."""
    packet = Packet(Way.OUTBOUND, TCP, _ELSEWHERE, 80, sender=Sender(0, 0))
    gc.disable()
    try:
        began = time.perf_counter()
        document = nft.list_json("chain", "inet", "flat", "output")
        listed = time.perf_counter()
        assert document is not None
        tables = nft_json.tables(document)
        assert len(list(tables[0].chains["output"].rules)) == RULES
        parsed = time.perf_counter()
        outcome = explain(Ruleset(tables), packet, KernelSurroundings())
        ended = time.perf_counter()
    finally:
        gc.enable()
    met = sum(1 for step in outcome.path if getattr(step, "rule", None) is not None)
    assert (outcome.outcome.fate, met) == (Fate.ACCEPT, RULES)
    return {
        "listed": 1000 * (listed - began),
        "parsed": 1000 * (parsed - listed),
        "interpreted": 1000 * (ended - parsed),
    }


def _whole(service: IPAddress) -> float:
    began = time.perf_counter()
    found = explained(Options(End(service, 80)))
    took = 1000 * (time.perf_counter() - began)
    assert found.explanation.outcome.fate is Fate.DNAT, found.explanation.outcome
    return took


def _command(pod: LabPod) -> float:
    words = [sys.executable, "-m", "agent", "rules", "explain", "--to", f"{_SERVICE}:80", "-o", "json"]
    began = time.perf_counter()
    done = pod.run(words, timeout_s=60)
    took = 1000 * (time.perf_counter() - began)
    assert json.loads(done.stdout)["outcome"]["verdict"] == "dnat"
    return took

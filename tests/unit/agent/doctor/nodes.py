"""A node on which nothing is wrong, to take one thing of and change it."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from agent.doctor.checks import judged
from agent.doctor.facts import (
    NODE,
    Clock,
    CniDirectory,
    CniFile,
    Descriptors,
    Facts,
    Features,
    Interface,
    Listening,
    MeshProcess,
    Modules,
    Namespace,
    Pod,
    Process,
    Rules,
    SocketPrograms,
    Tracking,
    Tried,
)
from agent.doctor.findings import Finding
from agent.ruleset.inventory import HEADGATE, HeldChain, HeldRule, HeldTable, Inventory, Tool

ADDRESS4, ADDRESS6 = ip_address("10.244.0.5"), ip_address("fd00::5")
OTHER4 = ip_address("10.244.0.6")
LO = Interface("lo", 0, False, True, (ip_address("127.0.0.1"), ip_address("::1")))
ETH0 = Interface("eth0", 0, False, True, (ADDRESS4, ADDRESS6))
WEB = Pod("default", "web", "proved", (ADDRESS4, ADDRESS6))
PROXYS = Listening(ip_address("0.0.0.0"), 15006, 0x539)
APPLICATIONS = Listening(ip_address("0.0.0.0"), 8080, 0)
DEFAULT_CAPABILITIES = 0x00000000A80425FB & ~(1 << 13)
"""containerd's for a container (oci/spec.go: defaultUnixCaps) with NET_RAW dropped."""

NFT = Tried("redirect", True, "every steered pod", "CONFIG_NFT_REDIR", "nft_redir")
OPTIONAL = Tried("TPROXY", False, "Istio's TPROXY mode", "CONFIG_NFT_TPROXY", "nft_tproxy")
BPF = Tried("sk_msg", False, "splice", "CONFIG_BPF_STREAM_PARSER", "")
BACKENDS: tuple[tuple[str, str | None], ...] = (("nft", None), ("iptables-nft", None), ("iptables-legacy", None))
FEATURES = Features((NFT, OPTIONAL), (BPF,), BACKENDS, Modules(False), "/sys/fs/cgroup")


def rules(*tables: HeldTable, ours: bool = True) -> Rules:
    counts = {tool: sum(len(list(table.rules)) for table in tables if table.tool is tool) for tool in Tool}
    counted = tuple((tool, number) for tool, number in counts.items() if number)
    return Rules(counted, Inventory(tables), ours)


def held(tool: Tool, name: str, chain: str, *texts: str, family: str = "ip", whose: str = "unknown") -> HeldTable:
    held_rules = tuple(HeldRule(text, whose=whose) for text in texts)
    return HeldTable(tool, family, name, (HeldChain(chain, held_rules),), whose=whose)


OURS = held(Tool.NFT, "headgate", "nat-output", "redirect to :15001", family="inet", whose=HEADGATE)
KUBE_PROXY = held(Tool.IPTABLES_NFT, "nat", "KUBE-SERVICES", "-d 10.96.0.1/32 -p tcp -j KUBE-SVC-X")

POD = Namespace(
    "pod default/web",
    WEB,
    rules(),
    (LO, ETH0),
    Tracking(100, 262144, 0, 0),
    (PROXYS, APPLICATIONS),
    (),
    8,
    (Process(4711, "web", DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES),),
)
OWN = Namespace(NODE, None, rules(KUBE_PROXY, ours=False), (LO, ETH0), Tracking(100, 262144, 0, 0), None, None, 50)
HEALTHY = Facts(
    OWN,
    (POD,),
    FEATURES,
    SocketPrograms(()),
    Clock(True, 0.01, 0.0, 0.5),
    (),
    CniDirectory("/etc/cni/net.d", (CniFile("10-cilium.conflist", "cbr0", ("cilium-cni", "headgate-cni")),)),
    Descriptors(
        5000,
        1 << 20,
        (
            MeshProcess(10, "agent", 1024, 60),
            MeshProcess(11, "proxy", 65536, 60),
            MeshProcess(12, "worker", 65536, 200),
            MeshProcess(13, "proxy", 20, 19, in_pod=True),
        ),
    ),
    0,
    0,
)


def with_pod(pod: Namespace) -> Facts:
    return replace(HEALTHY, pods=(pod,))


def found(facts: Facts) -> list[Finding]:
    """Without what is always told."""
    return [finding for finding in judged(facts) if finding.id != "kube-proxy"]


def the_one(facts: Facts) -> Finding:
    (finding,) = found(facts)
    assert finding.what and finding.why and finding.remedy
    return finding


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path

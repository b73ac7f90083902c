"""A pod with which nothing is wrong, and each thing that can be wrong with it."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from agent.why.facts import (
    Agent,
    Difference,
    Facts,
    Led,
    LeftOut,
    Listed,
    Loopback,
    Netns,
    NoAnswer,
    NoNetns,
    Objects,
    Ours,
    Pod,
    PortHeld,
    ProbePath,
    Probes,
    Proved,
    Proxy,
    Served,
    Silence,
    Source,
    SourceKind,
    Table,
    Unknown,
    Unopened,
    Wishes,
)

RUN: Final = "/var/run/headgate"
PATH: Final = "/run/netns/web"
FOUR: Final = tuple(Proved(name, "ok") for name in ("out4", "out6", "in4", "in6"))
OWN: Final = (ip_address("10.0.0.5"), ip_address("fd00::5"))
MARKED: Final = tuple(PortHeld(port, marked=True) for port in (15001, 15006))

AGENT: Final = Agent(
    Source(SourceKind.FILE, "/etc/pods.yaml", (), ("default/web", "shop/cart")), True, None, "nft", "4:1"
)
POD: Final = Pod(
    "default/web", "u-1", OWN, "", None, PATH, "4:100", "proved", "", True, False, Wishes(), Difference(), FOUR
)
PROXY: Final = Proxy(Served("served", workers=(1,)), 7, (7, 7))
NETNS: Final = Netns(
    PATH,
    "4:100",
    False,
    (ip_address("127.0.0.1"), ip_address("::1"), *OWN),
    Loopback(True, True, True),
    MARKED,
    Ours(("nft",), True, nothing=False),
    Table(12, 262144, full=False),
)
WELL: Final = Facts("default/web", RUN, AGENT, POD, None, PROXY, NETNS)


def of_pod(**changes: Any) -> Facts:
    return replace(WELL, pod=replace(POD, **changes))


def in_netns(**changes: Any) -> Facts:
    return replace(WELL, netns=replace(NETNS, **changes))


def of_agent(**changes: Any) -> Facts:
    return replace(WELL, agent=replace(AGENT, **changes))


def unenrolled(**changes: Any) -> Facts:
    """Of a pod that never was in the mesh."""
    state = {"state": "failed", "installed": False, "difference": Unknown("no plan is in force")}
    pod = replace(POD, **{**state, "proofs": Unknown("none was taken yet"), **changes})
    return replace(WELL, pod=pod, netns=replace(NETNS, ports=(), ours=Ours()))


def without_agent(silence: Silence = Silence.ABSENT, **more: Any) -> Facts:
    silent = NoAnswer(silence, f"{RUN}/admin.sock", **more)
    return Facts("default/web", RUN, silent, proxy=PROXY, netns=NETNS)


def stranger(asked: str, **source: Any) -> Facts:
    agent = replace(AGENT, source=replace(AGENT.source, **source))
    return Facts(asked, RUN, agent, proxy=replace(PROXY, served=None))


def out4(result: str, reason: str) -> tuple[Proved, ...]:
    return (Proved("out4", result, reason), *FOUR[1:])


THIEF: Final = Led(
    "out4",
    "a new connection to 10.0.0.9 port 15002",
    "--to 10.0.0.9:15002",
    15001,
    "redirect",
    9999,
    "rule 1 of chain output, nft table ip thief",
    undo="nsenter --net=/run/netns/web nft delete rule ip thief output handle 3",
)
DROPPED: Final = replace(THIEF, verdict="drop", port=None, by="rule 2 of chain OUTPUT, iptables-nft table ip filter")

OPEN6: Final = ProbePath("fd00::5", "open")
SHUT4: Final = ProbePath(
    "10.0.0.5",
    "shut",
    True,
    "what the node's processes send from 169.254.7.127 is dropped on the way to 10.0.0.5, or its answer is",
    "let 169.254.7.127 in where it is stopped",
)

FAULTS: Final[dict[str, Facts]] = {
    "agent absent": without_agent(),
    "agent killed": without_agent(detail="the file is there, and who made it has ended"),
    "agent stopped": without_agent(Silence.MUTE, detail="no answer within 3 s", pid=77, pid_state="T"),
    "agent mute": without_agent(Silence.MUTE, detail="no answer within 3 s", pid=77, pid_state="D"),
    "agent mute, elsewhere": without_agent(Silence.MUTE, detail="no answer within 3 s"),
    "agent forbidden": without_agent(Silence.FORBIDDEN, detail="Permission denied"),
    "agent of another version": without_agent(Silence.STRANGE, detail="status 404 for /why"),
    "pod unknown": stranger("default/wep"),
    "pod elsewhere": stranger("default/cart"),
    "pod misspelt beyond help": stranger("x/y"),
    "pod's entry is wrong": stranger(
        "default/db", problems=("/etc/pods.yaml: pod 3 (default/db): netns: is required",)
    ),
    "pod of no name": stranger("default/db", kind=SourceKind.NAMES, place="/run/netns"),
    "pod of another node": stranger("default/db", kind=SourceKind.CLUSTER, place="the API server, for node n1"),
    "namespace of nobody": replace(stranger(""), netns=NETNS),
    "not selected": replace(
        stranger("default/db", kind=SourceKind.CLUSTER, place="the API server, for node n1"),
        listed=LeftOut("neither the pod nor namespace default has headgate.io/mesh=enabled"),
    ),
    "left out while enrolled": of_pod(left_out="namespace kube-system is excluded"),
    "disabled": unenrolled(mesh_label="disabled", state="disabled"),
    "disabled, leaving": of_pod(mesh_label="disabled", state="leaving", reason="3 steered connections live on"),
    "leaving": of_pod(state="leaving", reason="3 steered connections live on"),
    "bad annotation": unenrolled(
        wishes=Wishes("annotation headgate.io/exclude-uids: value 'x': 'x' is no user id"),
    ),
    "bad annotation, rules stay": of_pod(
        wishes=Wishes("annotation headgate.io/exclude-uids: value 'x': 'x' is no user id"),
    ),
    "netns gone": replace(stranger("default/web"), listed=Listed(PATH), netns=NoNetns(Unopened.MISSING, PATH)),
    "no netns": replace(unenrolled(), netns=NoNetns(Unopened.NO_NETNS, PATH, "no namespace file")),
    "host's netns": replace(unenrolled(), netns=replace(NETNS, id="4:1")),
    "recycled": in_netns(id="4:101"),
    "not the pod's address": replace(unenrolled(), netns=replace(NETNS, addresses=(ip_address("10.0.0.6"),))),
    "lo down": in_netns(loopback=Loopback(False, False, False)),
    "lo without 127.0.0.1": in_netns(loopback=Loopback(True, False, True)),
    "lo without ::1": in_netns(loopback=Loopback(True, True, False)),
    "lo without IPv6": in_netns(loopback=Loopback(True, True, False, ipv6_off=True)),
    "port taken": replace(unenrolled(), netns=replace(NETNS, ports=(PortHeld(15006, False, 42, "nginx"),))),
    "port taken, unseen": replace(unenrolled(), netns=replace(NETNS, ports=(PortHeld(15001, False),))),
    "no proxy": replace(
        unenrolled(state="pending"),
        agent=replace(AGENT, proxy_connected=False),
        proxy=NoAnswer(Silence.ABSENT, f"{RUN}/proxy-admin.sock"),
    ),
    "proxy killed": replace(of_agent(proxy_connected=False), proxy=NoAnswer(Silence.ABSENT, f"{RUN}/proxy-admin.sock")),
    "proxy does not come": of_agent(proxy_connected=False),
    "proxy stopped": replace(
        WELL, proxy=NoAnswer(Silence.MUTE, f"{RUN}/proxy-admin.sock", "no answer within 3 s", 78, "T")
    ),
    "proxy nacks": replace(
        unenrolled(state="pending", reason="the proxy refused the pod: port 15001 is in use"),
        proxy=replace(PROXY, served=Served("pending", "port 15001 is taken by process 5 (envoy)")),
    ),
    "foreign proxy nacks": replace(
        unenrolled(state="pending", reason="the proxy refused the pod: port 15001 is in use"),
        proxy=NoAnswer(Silence.ABSENT, f"{RUN}/proxy-admin.sock"),
    ),
    "being enrolled": unenrolled(state="planned"),
    "proxy has not answered": unenrolled(state="pending"),
    "proxy hands over": replace(WELL, proxy=replace(PROXY, served=Served("handing over"))),
    "proxy's own word is no": replace(WELL, proxy=replace(PROXY, served=Served("pending", "worker 0 did not take it"))),
    "proxy does not know it": replace(WELL, proxy=replace(PROXY, served=None)),
    "nobody listens": in_netns(ports=MARKED[:1]),
    "conntrack full": in_netns(conntrack=Table(262144, 262144, full=True)),
    "refused by the kernel": unenrolled(reason="nft transaction: Operation not supported (load nf_tables)"),
    "drifted": of_pod(
        difference=Difference(("table inet headgate is gone",)), drifts=4, last_drift="gone, changed by nft (pid 9)"
    ),
    "drained": of_pod(drained=True),
    "taken before us": replace(in_netns(led=(THIEF,)), pod=replace(POD, proofs=out4("failed", "no report"))),
    "taken by nobody": replace(
        in_netns(led=(replace(THIEF, verdict="accept", port=None, by="", undo=""),)),
        pod=replace(POD, proofs=out4("failed", "no report")),
    ),
    "no policy": replace(WELL, proxy=replace(PROXY, generation=None, in_force=(None, None))),
    "objects unread": replace(
        of_agent(objects=Objects("/etc/objects", False, ("/etc/objects: cannot be listed: No such file",))),
        proxy=replace(PROXY, generation=None),
    ),
    "objects come slowly": replace(
        of_agent(objects=Objects("/etc/objects", True)), proxy=replace(PROXY, generation=None)
    ),
    "worker late": replace(WELL, proxy=replace(PROXY, in_force=(7, None))),
    "own object missing": replace(
        of_agent(objects=Objects("/etc/objects", True, ("web.yaml: no YAML",))),
        proxy=replace(PROXY, served=Served("waiting for its object")),
    ),
    "proof fails": of_pod(proofs=out4("failed", "no report of the nonce")),
    "proof is dropped": replace(in_netns(led=(DROPPED,)), pod=replace(POD, proofs=out4("failed", "no answer"))),
    "no proof outbound": of_pod(
        proofs=(Proved("out4", "absent", "no route"), Proved("out6", "absent", "no address"), *FOUR[2:])
    ),
    "probes dropped": of_pod(probes=Probes(True, (SHUT4, OPEN6))),
    "probes not in the node's set": of_pod(probes=Probes(False)),
}
"""By name, in the order of the steps."""

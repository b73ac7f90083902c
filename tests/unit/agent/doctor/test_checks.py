"""Each check finds what it is for, and nothing else; a healthy node has no finding."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.doctor.checks import IDS, judged
from agent.doctor.facts import (
    AttachedProgram,
    Clock,
    CniDirectory,
    CniFile,
    Facts,
    HeldLock,
    Interface,
    Listening,
    Modules,
    Namespace,
    Process,
    SocketPrograms,
)
from agent.doctor.findings import Severity
from agent.ruleset.inventory import Inventory, PolicyRule, Routing, Tool
from tests.unit.agent.doctor.nodes import (
    ADDRESS4,
    ADDRESS6,
    BPF,
    ETH0,
    FEATURES,
    HEALTHY,
    KUBE_PROXY,
    LO,
    NFT,
    OPTIONAL,
    OWN,
    POD,
    WEB,
    found,
    held,
    rules,
    the_one,
    with_pod,
)

SERIOUS, WARNING, INFO = Severity.SERIOUS, Severity.WARNING, Severity.INFO


def test_a_healthy_node_has_no_finding() -> None:
    assert found(HEALTHY) == []


def test_what_could_not_be_looked_at_is_no_finding() -> None:
    nothing = Namespace("pod default/web", WEB)
    assert judged(Facts(Namespace("node"), (nothing,))) == ()


def test_only_the_wanted_ids_are_judged_and_the_worst_come_first() -> None:
    two = replace(HEALTHY, clock=Clock(False, 0.0, 5.0, 1.0))
    assert [finding.severity for finding in found(two)] == [SERIOUS, WARNING]
    assert judged(two, frozenset({"bpf"})) == ()
    assert {finding.id for finding in judged(two, frozenset({"clock"}))} == {"clock"}


# ── The kernel ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_needed_expression_that_is_missing_takes_the_next_backend() -> None:
    missing = replace(NFT, complaint="Could not process rule: No such file or directory")
    backends = (("nft", "Could not process rule"), ("iptables-nft", None), ("iptables-legacy", None))
    finding = the_one(replace(HEALTHY, features=replace(FEATURES, nft=(missing,), backends=backends)))
    assert (finding.id, finding.severity) == ("nft-expressions", WARNING)
    assert "redirect: Could not" in finding.what and "iptables-nft instead" in finding.why
    assert "no module can be loaded" in finding.remedy and "CONFIG_NFT_REDIR" in finding.remedy


def test_a_needed_expression_whose_module_is_not_loaded_says_modprobe() -> None:
    missing = replace(NFT, complaint="No such file or directory")
    backends = tuple((name, "no") for name, _ in FEATURES.backends)
    features = replace(
        FEATURES, nft=(missing,), backends=backends, modules=Modules(True, frozenset({"nft_redir", "nft_ct"}))
    )
    finding = the_one(replace(HEALTHY, features=features))
    assert finding.severity is SERIOUS and "modprobe nft_redir " in finding.remedy and "no pod" in finding.why


def test_no_backend_at_all_is_serious() -> None:
    backends = tuple((name, "CAP_NET_ADMIN is missing") for name, _ in FEATURES.backends)
    finding = the_one(replace(HEALTHY, features=replace(FEATURES, backends=backends)))
    assert (finding.id, finding.severity) == ("nft-expressions", SERIOUS) and "CAP_NET_ADMIN" in finding.what


def test_an_optional_expression_that_is_missing_says_what_does_without_it() -> None:
    missing = replace(OPTIONAL, complaint="No such file or directory")
    finding = the_one(replace(HEALTHY, features=replace(FEATURES, nft=(NFT, missing))))
    assert (finding.id, finding.severity) == ("nft-optional", INFO) and "Istio's TPROXY mode" in finding.why


def test_missing_bpf_says_which_path_is_taken_instead() -> None:
    missing = replace(BPF, complaint="Operation not permitted (needs CAP_BPF, or CAP_SYS_ADMIN)")
    finding = the_one(replace(HEALTHY, features=replace(FEATURES, bpf=(missing,))))
    assert (finding.id, finding.severity) == ("bpf", INFO)
    assert "sk_msg" in finding.what and "CAP_BPF" in finding.what and "relayed by the proxy" in finding.why


def test_a_node_without_the_unified_tree() -> None:
    finding = the_one(replace(HEALTHY, features=replace(FEATURES, cgroup2=None)))
    assert (finding.id, finding.severity) == ("cgroup-v2", INFO)


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
NFT_NAT = held(Tool.NFT, "mine", "output", "redirect to :9")
LEGACY_NAT = held(Tool.IPTABLES_LEGACY, "nat", "OUTPUT", "-p tcp -j REDIRECT --to-ports 15001")
LEGACY_FILTER = held(Tool.IPTABLES_LEGACY, "filter", "INPUT", "-p tcp -j ACCEPT", "-j DROP")


@pytest.mark.parametrize(("legacy", "severity"), [(LEGACY_NAT, SERIOUS), (LEGACY_FILTER, WARNING)])
def test_legacy_rules_beside_nft_in_an_enrolled_pod(legacy: object, severity: Severity) -> None:
    finding = the_one(with_pod(replace(POD, rules=rules(NFT_NAT, legacy))))  # type: ignore[arg-type]
    assert (finding.id, finding.severity, finding.where) == ("mixed-backends", severity, "pod default/web")
    assert "rules of iptables-legacy" in finding.what and "1 of nft" in finding.what


def test_legacy_rules_beside_iptables_nft_on_the_node_are_told() -> None:
    finding = the_one(replace(HEALTHY, node=replace(OWN, rules=rules(KUBE_PROXY, LEGACY_NAT, ours=False))))
    assert (finding.id, finding.severity, finding.where) == ("mixed-backends", WARNING, "node")


def test_legacy_rules_alone_are_no_mixture() -> None:
    assert found(with_pod(replace(POD, rules=rules(LEGACY_FILTER)))) == []


MARKING = held(Tool.NFT, "vpn", "output", "meta mark set 0x00000539")


def test_b53_who_writes_our_mark_in_a_pod_is_serious_there_and_nothing_on_the_node() -> None:
    finding = the_one(with_pod(replace(POD, rules=rules(MARKING))))
    assert (finding.id, finding.severity) == ("mark-conflict", SERIOUS)
    assert "writes bits 0xfff" in finding.what and finding.remedy == "let it use bits above 0xfff"
    assert found(replace(HEALTHY, node=replace(OWN, rules=rules(KUBE_PROXY, MARKING, ours=False)))) == []


def test_b53_who_takes_our_routing_is_told() -> None:
    routing = Routing((PolicyRule("ip", 100, "from all fwmark 0x539 lookup 7"),))
    finding = the_one(with_pod(replace(POD, rules=replace(rules(), inventory=Inventory((), routing)))))
    assert finding.id == "mark-conflict" and "ip rule 100" in finding.what


@pytest.mark.parametrize(
    ("tables", "ipvs", "mode"),
    [
        ((KUBE_PROXY,), 0, "iptables (iptables-nft)"),
        ((held(Tool.IPTABLES_LEGACY, "nat", "KUBE-SERVICES", "-j KUBE-SVC-X"),), 0, "iptables (iptables-legacy)"),
        ((held(Tool.NFT, "kube-proxy", "services", "accept"),), 0, "nftables"),
        ((), 3, "ipvs"),
    ],
)
def test_kube_proxys_mode_is_read_from_its_rules(tables: tuple[object, ...], ipvs: int, mode: str) -> None:
    node = replace(OWN, rules=rules(*tables, ours=False))  # type: ignore[arg-type]
    (finding,) = judged(replace(HEALTHY, node=node, ipvs=ipvs))
    assert (finding.id, finding.severity) == ("kube-proxy", INFO) and finding.what.endswith(f" by {mode}")


def test_no_kube_proxy_is_told() -> None:
    (finding,) = judged(replace(HEALTHY, node=replace(OWN, rules=rules(ours=False))))
    assert finding.id == "kube-proxy" and "no rules" in finding.what


def test_two_modes_of_kube_proxy_are_leftovers() -> None:
    finding = the_one(replace(HEALTHY, ipvs=2))
    assert (finding.id, finding.severity) == ("kube-proxy-leftovers", WARNING)


# ── Interfaces ─────────────────────────────────────────────────────────────────────────────────────────────────────
STRICT0 = replace(ETH0, rp_filter=1)
NET1 = Interface("net1", 1, False, True, (ip_address("192.168.7.5"),))


def test_strict_reverse_path_filtering_harms_only_pods_of_several_interfaces() -> None:
    assert found(with_pod(replace(POD, interfaces=(LO, STRICT0)))) == []
    finding = the_one(with_pod(replace(POD, interfaces=(LO, STRICT0, NET1))))
    assert (finding.id, finding.severity) == ("reverse-path-filter", WARNING) and "eth0, net1" in finding.what
    loose = tuple(replace(one, rp_filter=2) for one in (LO, ETH0, NET1))
    assert found(with_pod(replace(POD, interfaces=loose))) == []


def test_src_valid_mark_harms_where_somebody_routes_by_mark() -> None:
    marked = replace(ETH0, src_valid_mark=True)
    assert found(with_pod(replace(POD, interfaces=(LO, marked)))) == []
    tproxy = Routing((PolicyRule("ip", 133, "from all fwmark 0x10000 lookup 133"),))
    pod = replace(POD, interfaces=(LO, marked), rules=replace(rules(), inventory=Inventory((), tproxy)))
    finding = the_one(with_pod(pod))
    assert (finding.id, finding.severity) == ("src-valid-mark", WARNING) and "ip rule 133" in finding.what
    assert found(with_pod(replace(pod, interfaces=(LO, ETH0)))) == []


def test_ipv6_on_the_pod_and_off_on_lo_is_serious() -> None:
    half = replace(LO, ipv6=False, addresses=(ip_address("127.0.0.1"),))
    finding = the_one(with_pod(replace(POD, interfaces=(half, ETH0))))
    assert (finding.id, finding.severity) == ("ipv6-half-off", SERIOUS) and "lo has no ::1" in finding.what


def test_an_ipv6_address_that_the_pod_should_have_and_has_not_is_told() -> None:
    off = replace(ETH0, ipv6=False, addresses=(ADDRESS4,))
    finding = the_one(with_pod(replace(POD, interfaces=(LO, off))))
    assert (finding.id, finding.severity) == ("ipv6-half-off", WARNING)
    assert str(ADDRESS6) in finding.what and "disable_ipv6 is set on eth0" in finding.what


def test_rules_of_a_peer_for_ipv4_alone_leave_ipv6_outside() -> None:
    istio = held(Tool.IPTABLES_NFT, "nat", "ISTIO_REDIRECT", "-p tcp -j REDIRECT --to-ports 15001")
    pod = replace(POD, rules=rules(istio, ours=False))
    finding = the_one(with_pod(pod))
    assert finding.id == "ipv6-half-off" and "IPv4 only" in finding.what
    both = replace(istio, family="ip6")
    assert found(with_pod(replace(pod, rules=rules(istio, both, ours=False)))) == []


# ── Programs on sockets ────────────────────────────────────────────────────────────────────────────────────────────
CILIUM = AttachedProgram("connect4", "cil_sock4_conne", 7)


@pytest.mark.parametrize(("host_only", "severity"), [(None, WARNING), (False, SERIOUS), (True, INFO)])
def test_ciliums_socket_lb(host_only: bool | None, severity: Severity) -> None:
    finding = the_one(replace(HEALTHY, programs=SocketPrograms((CILIUM,), host_only)))
    assert (finding.id, finding.severity) == ("socket-lb", severity) and "cil_sock4_conne (id 7)" in finding.what


def test_another_meshs_program_on_connect() -> None:
    merbridge = AttachedProgram("connect4", "mb_sock4_connec", 8)
    finding = the_one(replace(HEALTHY, programs=SocketPrograms((merbridge,))))
    assert finding.severity is WARNING and "mb_sock4_connec" in finding.what and "Cilium" not in finding.what


# ── CNI ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def cni(*files: CniFile) -> Facts:
    return replace(HEALTHY, cni=CniDirectory("/etc/cni/net.d", files))


CALICO = CniFile("10-calico.conflist", "k8s", ("calico", "istio-cni"))


def test_a_mesh_plugin_in_a_file_that_does_not_win_is_serious() -> None:
    winner = CniFile("05-cilium.conf", "cilium", ("cilium-cni",))
    serious, info = found(cni(winner, CALICO))
    assert (serious.id, serious.severity) == ("cni-order", SERIOUS)
    assert serious.where.endswith("/10-calico.conflist") and "istio-cni" in serious.what
    assert info.severity is INFO and info.where.endswith("/05-cilium.conf") and "10-calico.conflist" in info.what


def test_multus_in_front_may_hand_on() -> None:
    multus = CniFile("00-multus.conf", "multus", ("multus",))
    assert [one.severity for one in found(cni(multus, CALICO))] == [WARNING, INFO]


def test_a_broken_file_that_wins_is_serious() -> None:
    finding = the_one(cni(CniFile("05-broken.conflist", problem="no JSON: line 3")))
    assert finding.severity is SERIOUS and "no JSON: line 3" in finding.what


def test_a_chained_plugin_in_front_of_all_is_serious() -> None:
    finding = the_one(cni(CniFile("10-a.conflist", "a", ("linkerd-cni", "calico"))))
    assert finding.severity is SERIOUS and "linkerd-cni comes first" in finding.what


def test_two_meshes_chained_are_told() -> None:
    finding = the_one(cni(CniFile("10-a.conflist", "a", ("calico", "linkerd-cni", "istio-cni"))))
    assert finding.severity is WARNING and "linkerd-cni, istio-cni" in finding.what


def test_no_file_is_told() -> None:
    assert the_one(cni()).severity is INFO


# ── Applications ───────────────────────────────────────────────────────────────────────────────────────────────────
TAKEN = Listening(ip_address("::"), 15001, 0, 4711, pid=42, command="java")


def test_b31_an_application_on_a_port_of_the_proxys() -> None:
    finding = the_one(with_pod(replace(POD, listening=(TAKEN,))))
    assert (finding.id, finding.severity) == ("proxy-port-taken", SERIOUS)
    assert "pid 42 (java)" in finding.what and "port 15001" in finding.what


def test_b31_the_dns_port_costs_less() -> None:
    assert the_one(with_pod(replace(POD, listening=(replace(TAKEN, port=15053),)))).severity is WARNING


def test_b31_a_holder_that_is_not_to_be_seen_is_told_too() -> None:
    finding = the_one(with_pod(replace(POD, listening=(replace(TAKEN, pid=0, command=""),))))
    assert "a process that is not to be seen" in finding.what


def test_b31_a_sidecar_has_its_own_ports() -> None:
    istio = held(Tool.IPTABLES_NFT, "nat", "ISTIO_REDIRECT", "-p tcp -j REDIRECT --to-ports 15001")
    both = rules(istio, replace(istio, family="ip6"), ours=False)
    assert found(with_pod(replace(POD, listening=(TAKEN,), rules=both))) == []
    ours = replace(POD, where="netns /x", pod=None, listening=(replace(TAKEN, pid=13),))
    assert found(with_pod(ours)) == []


def test_b31_an_application_that_calls_itself_headgate_is_no_proxy() -> None:
    pod = replace(POD, listening=(replace(TAKEN, pid=13),), processes=(Process(13, "headgate", NET_RAW, NET_RAW),))
    assert {finding.id for finding in found(with_pod(pod))} == {"proxy-port-taken", "net-raw"}


def test_b31_a_pod_out_of_the_mesh_may_have_any_port() -> None:
    disabled = replace(POD, pod=replace(WEB, state="disabled"), listening=(TAKEN,))
    assert found(with_pod(disabled)) == []


NET_RAW, NET_ADMIN = 1 << 13, 1 << 12


def test_an_enrolled_pod_with_net_raw_is_told_and_others_are_not() -> None:
    pod = replace(POD, processes=(Process(9, "ping", NET_RAW, NET_RAW),))
    finding = the_one(with_pod(pod))
    assert (finding.id, finding.severity) == ("net-raw", WARNING) and "pid 9 (ping)" in finding.what
    assert found(with_pod(replace(pod, pod=replace(WEB, state="failed")))) == []


def test_net_raw_in_the_bounding_set_only_is_worth_knowing() -> None:
    finding = the_one(with_pod(replace(POD, processes=(Process(9, "web", 0, NET_RAW),))))
    assert (finding.id, finding.severity) == ("net-raw", INFO)


def test_net_admin_is_told_and_a_long_list_is_cut() -> None:
    several = tuple(Process(number, "vpn", NET_ADMIN, NET_ADMIN) for number in range(1, 6))
    finding = the_one(with_pod(replace(POD, processes=several)))
    assert (finding.id, finding.severity) == ("net-admin", WARNING) and "and 2 more" in finding.what


# ── The machine ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("clock", "severity", "says"),
    [
        (Clock(False, 16.0, 0.0, 0.5), WARNING, "kept by nobody"),
        (Clock(True, 1.5, 0.0, 0.5), WARNING, "wrong by 1.5 s"),
        (Clock(True, 0.01, -0.2, 0.5), SERIOUS, "jumped by -0.200 s"),
    ],
)
def test_a_clock_that_nobody_keeps_or_that_jumps(clock: Clock, severity: Severity, says: str) -> None:
    finding = the_one(replace(HEALTHY, clock=clock))
    assert (finding.id, finding.severity) == ("clock", severity) and says in finding.what


def test_a_lock_that_is_not_let_go() -> None:
    finding = the_one(replace(HEALTHY, locks=(HeldLock("/run/xtables.lock", 77, "iptables", 0.8),)))
    assert (finding.id, finding.severity) == ("xtables-lock", WARNING)
    assert "pid 77 (iptables)" in finding.what and "/run/xtables.lock" in finding.what


def test_every_id_is_in_the_list() -> None:
    assert all(title and name == name.lower() for name, title in IDS.items())

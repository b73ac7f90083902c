"""istio-iptables' command line and environment: every flag, what becomes of it, and the request that it amounts to.

Sources: istio/istio tools/istio-iptables/pkg/cmd/root.go (flags, variables), tools/common/config (defaults),
pkg/capture/run.go (what they do), manifests/charts/istio-control/istio-discovery/files/injection-template.yaml (what
is usually given). Rules: docs/migrate-istio.md.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.init.argv import Fate, Flag, Given, Takes, Word, of_environment, parse, switch, verdicts
from agent.init.reading import ids, interfaces, network4, networks, port, ports, resolvers, seconds
from agent.init.request import Action, Families, InitRequest, Refused, Surroundings, Validation, outside, without
from agent.kernel.backends import Backend
from agent.plan import PlanSettings
from agent.plan.ranges import Ranges
from agent.plan.steering import DnsCapture, Included, Network, Owners, Steering, VirtualInterface
from agent.plan.words import ALL
from proxy.api.constants import DNS_PORT

PROGRAM: Final = "istio-iptables"
VALIDATION_EXIT: Final = 126  # constants.ValidationErrorCode; istio-cni's repair controller looks for it
_DEFAULT_ID: Final = "1337"  # constants.DefaultProxyUID
_DEFAULT_USER: Final = "istio-proxy"
_MAX_GROUPS: Final = 64  # config.ValidateOwnerGroups

_OUTBOUND = Flag(
    "--envoy-port", "the listener for what the pod sends; ENVOY_PORT is not read, nor does istio-iptables", short="-p",
    default="15001",
)  # fmt: skip
_INBOUND = Flag(
    "--inbound-capture-port", "the listener for what reaches the pod", short="-z", default="15006",
    variables=("INBOUND_CAPTURE_PORT",),
)  # fmt: skip
_TUNNEL = Flag(
    "--inbound-tunnel-port", "reached as it is, never redirected", short="-e", default="15008",
    variables=("INBOUND_TUNNEL_PORT",),
)  # fmt: skip
_UID = Flag(
    "--proxy-uid", "users that the proxy runs as, one set: each of several is treated as the first", short="-u",
    variables=("PROXY_UID",),
)  # fmt: skip
_GID = Flag(
    "--proxy-gid", "groups that the proxy runs as; as --proxy-uid when not given", short="-g", variables=("PROXY_GID",)
)
_ENVOY_USER = Flag(
    "ENVOY_USER", "the user when --proxy-uid is not given, looked up in /etc/passwd; 1337 when there is none",
    variables=("ENVOY_USER",),
)  # fmt: skip
_MODE = Flag(
    "--istio-inbound-interception-mode", "REDIRECT; TPROXY is refused: ambient gave it up for REDIRECT (PR #52622), "
    "and the client's address is kept by headgate's own proxy without it", short="-m",
    variables=("ISTIO_INBOUND_INTERCEPTION_MODE",),
)  # fmt: skip
_PORTS_IN = Flag(
    "--istio-inbound-ports", "`*` all, a list only these, empty none", short="-b", variables=("ISTIO_INBOUND_PORTS",)
)
_NOT_IN = Flag(
    "--istio-local-exclude-ports", "ports that reach the application directly; where -b is a list, the list decides",
    short="-d", variables=("ISTIO_LOCAL_EXCLUDE_PORTS",),
)  # fmt: skip
_NOT_ON = Flag(
    "--istio-exclude-interfaces", "left alone in both directions and in every table", short="-c",
    variables=("ISTIO_EXCLUDE_INTERFACES",),
)  # fmt: skip
_NETWORKS_OUT = Flag(
    "--istio-service-cidr", "`*` all, a list only these networks, empty none but -q; a loopback network is refused: "
    "loopback is never steered", short="-i", variables=("ISTIO_SERVICE_CIDR",),
)  # fmt: skip
_NETWORKS_NOT_OUT = Flag(
    "--istio-service-exclude-cidr", "networks that are reached directly; what is none is refused, not passed over",
    short="-x", variables=("ISTIO_SERVICE_EXCLUDE_CIDR",),
)  # fmt: skip
_PORTS_OUT = Flag(
    "--istio-outbound-ports", "ports that are steered beside the networks of -i", short="-q",
    variables=("ISTIO_OUTBOUND_PORTS",),
)  # fmt: skip
_NOT_OUT = Flag(
    "--istio-local-outbound-ports-exclude", "ports that are reached directly, TCP and UDP, DNS too when 53 is one",
    short="-o", variables=("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",),
)  # fmt: skip
_GUESTS = Flag(
    "--kube-virt-interfaces", "what arrives on them is steered as the pod's own", short="-k",
    variables=("KUBE_VIRT_INTERFACES",),
)  # fmt: skip
_DRY_RUN = Flag("--dry-run", "prints the plan, changes nothing", short="-n", takes=Takes.SWITCH, variables=("DRY_RUN",))
_TIMEOUT = Flag("--probe-timeout", "how long --run-validation may take", default="5s", variables=("PROBE_TIMEOUT",))
_SKIP = Flag(
    "--skip-rule-apply", "no rule is touched; --run-validation is done", takes=Takes.SWITCH,
    variables=("SKIP_RULE_APPLY",),
)  # fmt: skip
_VALIDATE = Flag(
    "--run-validation", "the rules are tried as `headgate rules verify` does; exit 126 when they fail",
    takes=Takes.SWITCH, variables=("RUN_VALIDATION",),
)  # fmt: skip
_DNS = Flag(
    "--redirect-dns", "queries to the servers of /etc/resolv.conf, UDP and TCP, also over lo, go to port 15053",
    takes=Takes.SWITCH, variables=("REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"),
)  # fmt: skip
_ALL_DNS = Flag(
    "--capture-all-dns", "with --redirect-dns: queries to any server", takes=Takes.SWITCH,
    variables=("CAPTURE_ALL_DNS",),
)  # fmt: skip
_INVALID = Flag(
    "--drop-invalid", "packets that conntrack finds invalid are dropped", takes=Takes.SWITCH,
    variables=("DROP_INVALID", "INVALID_DROP"),
)  # fmt: skip
_DUAL = Flag(
    "--dual-stack", "both families; without it IPv6 only where the pod's first address is IPv6", takes=Takes.SWITCH,
    variables=("DUAL_STACK", "ISTIO_DUAL_STACK"),
)  # fmt: skip
_NETNS = Flag("--network-namespace", "the rules go into that namespace", variables=("NETWORK_NAMESPACE",))
_CLEANUP = Flag(
    "--cleanup-only", "takes headgate's rules away; Istio's own are left to istio-iptables", takes=Takes.SWITCH,
    variables=("CLEANUP_ONLY",),
)  # fmt: skip
_NFT = Flag("--native-nftables", "the nftables backend", takes=Takes.SWITCH, variables=("NATIVE_NFTABLES",))
_BINARY = Flag("--force-iptables-binary", "legacy or nft: that iptables backend", variables=("FORCE_IPTABLES_BINARY",))
_GROUPS = Flag(
    "ISTIO_OUTBOUND_OWNER_GROUPS", "only what these groups send is steered; names by /etc/group", default=ALL,
    variables=("ISTIO_OUTBOUND_OWNER_GROUPS",),
)  # fmt: skip
_NOT_GROUPS = Flag(
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "what these groups send goes direct; together with a list of groups refused",
    variables=("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",),
)  # fmt: skip
_LOOPBACK = Flag(
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "IPv4 addresses that are never steered; 127.0.0.0/8 when not set",
    default="127.0.0.0/8", variables=("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",),
)  # fmt: skip

_LOGS: Final = "what is done is one line on stdout, and errors on stderr"
_TPROXY: Final = "only TPROXY mode reads it"


def _noted(name: str, how: str, *, short: str = "", takes: Takes = Takes.VALUE, variable: bool = True) -> Flag:
    variables = (name.lstrip("-").upper().replace("-", "_"),) if variable else ()
    return Flag(name, how, Fate.NOTED, short=short, takes=takes, variables=variables)


FLAGS: Final = (
    _OUTBOUND, _INBOUND, _TUNNEL, _UID, _GID, _ENVOY_USER, _MODE,
    _noted("--istio-inbound-tproxy-mark", _TPROXY, short="-t"),
    _noted("--istio-inbound-tproxy-route-table", _TPROXY, short="-r"),
    _PORTS_IN, _NOT_IN, _NOT_ON, _NETWORKS_OUT, _NETWORKS_NOT_OUT, _PORTS_OUT, _NOT_OUT, _GUESTS, _DRY_RUN,
    _noted("--iptables-probe-port", "the check needs no port of its own"),
    _TIMEOUT, _SKIP, _VALIDATE, _DNS, _ALL_DNS, _INVALID, _DUAL, _NETNS,
    _noted("--cni-mode", "locks are always the namespace's own", takes=Takes.SWITCH),
    _noted("--reconcile", "rules that differ are always put in order", takes=Takes.SWITCH),
    _CLEANUP,
    _noted("--force-apply", "what is in force is read back rule by rule, never assumed", takes=Takes.SWITCH),
    _NFT, _BINARY, _GROUPS, _NOT_GROUPS, _LOOPBACK,
    _noted("--iptables-trace-logging", "every rule has a counter: `headgate rules show`", takes=Takes.SWITCH),
    _noted("--restore-format", "-o of `headgate init` chooses the format", short="-f", takes=Takes.SWITCH),
    _noted("--host-nsenter-exec", "a namespace is entered without another program", takes=Takes.SWITCH),
    _noted("--log_output_level", _LOGS, variable=False),
    _noted("--log_as_json", _LOGS, takes=Takes.SWITCH, variable=False),
    _noted("--log_caller", _LOGS, variable=False),
    _noted("--log_stacktrace_level", _LOGS, variable=False),
    _noted("--log_target", _LOGS, variable=False),
    _noted("--vklog", _LOGS, variable=False),
)  # fmt: skip
"""In the order of istio-iptables' own help; then what older versions had, and Istio's logging."""


def request(argv: Sequence[str], environ: Mapping[str, str], around: Surroundings) -> InitRequest:
    """Raises Refused, or InvalidPlan when what is asked contradicts itself."""
    given = Given((of_environment(environ, FLAGS), parse(argv, FLAGS, PROGRAM, said=(PROGRAM,))))
    notes = verdicts(given)
    _refuse_tproxy(given.word(_MODE))
    dns, dns_notes = _dns(given, around)
    return InitRequest(
        _steering(given, around, dns),
        PlanSettings(
            outbound_port=port(given.word(_OUTBOUND)),
            inbound_port=port(given.word(_INBOUND)),
            tunnel_port=port(given.word(_TUNNEL)),
            dns_port=DNS_PORT,
            owners=_owners(given, around),
            loopback4=network4(given.word(_LOOPBACK)),
        ),
        action=_action(given),
        families=Families.ALL if switch(given.word(_DUAL)) else Families.FIRST_ADDRESS,
        backend=_backend(given),
        netns=given.word(_NETNS).value or None,
        dry_run=switch(given.word(_DRY_RUN)),
        validation=_validation(given),
        notes=(*notes, *dns_notes),
    )


def _refuse_tproxy(mode: Word) -> None:
    if mode.value not in ("", "REDIRECT"):
        raise Refused(mode.where, mode.value, _MODE.how)


def _steering(given: Given, around: Surroundings, dns: DnsCapture | None) -> Steering:
    excluded_ports, excluded_networks = ports(given.word(_NOT_OUT)), _excluded_networks(given)
    included_in = _inbound(given.word(_PORTS_IN))
    include_gids, exclude_gids = _groups(given, around)
    return Steering(
        include_inbound_ports=included_in,
        exclude_inbound_ports=ports(given.word(_NOT_IN)) if included_in is None else Ranges(),
        include_outbound=_included(given, excluded_ports, excluded_networks),
        exclude_outbound_ports=excluded_ports,
        exclude_outbound_networks=excluded_networks,
        exclude_gids=exclude_gids,
        include_gids=include_gids,
        exclude_interfaces=interfaces(given.word(_NOT_ON)),
        virtual_interfaces=tuple(VirtualInterface(name) for name in interfaces(given.word(_GUESTS))),
        dns=dns,
        drop_invalid=switch(given.word(_INVALID)),
    )


def _inbound(word: Word) -> Ranges | None:
    return None if word.value.strip() == ALL else ports(word)


def _included(given: Given, not_ports: Ranges, not_networks: tuple[Network, ...]) -> Included | None:
    """Exclusions come first in Istio's chain: what they take is no longer there to be included."""
    word = given.word(_NETWORKS_OUT)
    if word.value.strip() == ALL:
        return None
    found = networks(word)
    if any(network.is_loopback for network in found):
        raise Refused(word.where, word.value, "loopback is never steered: take it out of the list")
    return Included(without(ports(given.word(_PORTS_OUT)), not_ports), outside(found, not_networks))


def _excluded_networks(given: Given) -> tuple[Network, ...]:
    word = given.word(_NETWORKS_NOT_OUT)
    if word.value.strip() == ALL:  # run.go: invalid value for OUTBOUND_IP_RANGES_EXCLUDE
        raise Refused(word.where, word.value, "to steer nothing, leave -i and -q empty")
    return networks(word)


def _groups(given: Given, around: Surroundings) -> tuple[Ranges | None, Ranges]:
    included, excluded = given.word(_GROUPS), given.word(_NOT_GROUPS)
    everyone = included.value.strip() in ("", ALL)
    if not everyone and excluded.value.strip():
        reason = f"{included.where} is a list of groups, too: one of both says enough"
        raise Refused(excluded.where, excluded.value, reason)
    if not everyone and included.value.count(",") >= _MAX_GROUPS:
        raise Refused(included.where, included.value, f"more than {_MAX_GROUPS} groups, which Istio refuses, too")
    only = None if everyone else ids(included, around.accounts.group_ids)
    return only, ids(excluded, around.accounts.group_ids)


def _owners(given: Given, around: Surroundings) -> Owners:
    uid, gid = given.word(_UID), given.word(_GID)
    users = ids(uid, around.accounts.user_ids) if uid.value.strip() else _envoy_user(given, around)
    return Owners(users, ids(gid, around.accounts.group_ids) if gid.value.strip() else users)


def _envoy_user(given: Given, around: Surroundings) -> Ranges:
    word = given.word(_ENVOY_USER)
    if word.value:
        return ids(word, around.accounts.user_ids)
    return Ranges.of(around.accounts.users.get(_DEFAULT_USER, int(_DEFAULT_ID)))


def _dns(given: Given, around: Surroundings) -> tuple[DnsCapture | None, tuple[str, ...]]:
    if not switch(given.word(_DNS)):
        return None, ()
    if switch(given.word(_ALL_DNS)):
        return DnsCapture(over_loopback=True), ()
    servers = resolvers(around.resolv_conf)
    if servers:
        return DnsCapture(servers, over_loopback=True), ()
    return None, (f"{_DNS.name}: no DNS is steered: /etc/resolv.conf names no server",)


def _action(given: Given) -> Action:
    if switch(given.word(_SKIP)):
        return Action.NOTHING
    return Action.REMOVE if switch(given.word(_CLEANUP)) else Action.INSTALL


def _backend(given: Given) -> Backend | None:
    binary = given.word(_BINARY)
    if switch(given.word(_NFT)):
        return Backend.NFTABLES
    chosen = {"": None, "legacy": Backend.IPTABLES_LEGACY, "nft": Backend.IPTABLES_NFT}
    if binary.value not in chosen:
        raise Refused(binary.where, binary.value, "use legacy or nft")
    return chosen[binary.value]


def _validation(given: Given) -> Validation | None:
    timeout_s = seconds(given.word(_TIMEOUT))
    return Validation(VALIDATION_EXIT, timeout_s) if switch(given.word(_VALIDATE)) else None

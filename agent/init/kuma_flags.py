"""The flags of `kumactl install transparent-proxy`, their variables and keys, and what becomes of each.

Sources: kumahq/kuma app/kumactl/cmd/install/install_transparent_proxy.go (flags), pkg/transparentproxy/config/config.go
(keys, variables, defaults), pkg/transparentproxy/iptables/builder (what they do); older releases' flags last.
"""

from typing import Final

from agent.init.argv import Fate, Flag, Takes

_VARIABLES: Final = "KUMA_TRANSPARENT_PROXY_"
_S: Final = Takes.SWITCH


def _flag(
    name: str,
    how: str,
    config: str = "",
    variable: str = "",
    *,
    fate: Fate = Fate.HONOURED,
    takes: Takes = Takes.VALUE,
    default: str = "",
    harmless: tuple[str, ...] = (),
) -> Flag:
    variables = (_VARIABLES + variable,) if variable else ()
    return Flag(
        name or config,
        how,
        fate,
        takes=takes,
        default=default,
        variables=variables,
        config=config,
        harmless=("", *harmless),
    )


DRY_RUN = _flag("--dry-run", "prints the plan, changes nothing", "dryRun", "DRY_RUN", takes=_S)
FAMILY = _flag("--ip-family-mode", "dualstack or ipv4", "ipFamilyMode", "IP_FAMILY_MODE", default="dualstack")
OUTBOUND = _flag(
    "--redirect-outbound-port", "the listener for what the pod sends",
    "redirect.outbound.port", "REDIRECT_OUTBOUND_PORT", default="15001",
)  # fmt: skip
STEER_IN = _flag(
    "--redirect-inbound", "false: what reaches the pod is not steered",
    "redirect.inbound.enabled", "REDIRECT_INBOUND_ENABLED", takes=_S, default="true",
)  # fmt: skip
INBOUND = _flag(
    "--redirect-inbound-port", "the listener for what reaches the pod",
    "redirect.inbound.port", "REDIRECT_INBOUND_PORT", default="15006",
)  # fmt: skip
NOT_IN = _flag(
    "--exclude-inbound-ports", "ports that reach the application directly; where includePorts is a list, it decides",
    "redirect.inbound.excludePorts", "REDIRECT_INBOUND_EXCLUDE_PORTS",
)  # fmt: skip
NOT_OUT = _flag(
    "--exclude-outbound-ports", "ports that are reached directly; 53 is TCP's alone while DNS is redirected",
    "redirect.outbound.excludePorts", "REDIRECT_OUTBOUND_EXCLUDE_PORTS",
)  # fmt: skip
NOT_FROM = _flag(
    "--exclude-inbound-ips", "networks whose connections reach the application directly",
    "redirect.inbound.excludePortsForIPs", "REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_IPS",
)  # fmt: skip
NOT_TO = _flag(
    "--exclude-outbound-ips", "networks that are reached directly; a resolver among them is still asked through the "
    "DNS listener, for Kuma's order is a trap (docs/rules.md)",
    "redirect.outbound.excludePortsForIPs", "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS",
)  # fmt: skip
NOT_FOR_UIDS = _flag(
    "--exclude-outbound-ports-for-uids", "what these users send to these ports goes direct, DNS too when 53 is one",
    "redirect.outbound.excludePortsForUIDs", "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS",
)  # fmt: skip
USER = _flag(
    "--kuma-dp-user", "the user that kuma-dp runs as, by number, or by name in /etc/passwd; as kumactl: user 5678 or "
    "kuma-dp when not given", "kumaDPUser", "KUMA_DP_USER",
)  # fmt: skip
UID = _flag("--kuma-dp-uid", "as --kuma-dp-user")
DNS = _flag(
    "--redirect-dns", "UDP queries to the servers of /etc/resolv.conf, also over lo, go to the DNS listener; TCP "
    "queries go direct (kuma PR #14557)", "redirect.dns.enabled", "REDIRECT_DNS_ENABLED", takes=_S,
)  # fmt: skip
ALL_DNS = _flag(
    "--redirect-all-dns-traffic", "as --redirect-dns, of queries to any server; both together are refused, as kumactl "
    "does", "redirect.dns.captureAll", "REDIRECT_DNS_CAPTURE_ALL", takes=_S,
)  # fmt: skip
DNS_PORT = _flag("--redirect-dns-port", "the DNS listener", "redirect.dns.port", "REDIRECT_DNS_PORT", default="15053")
INVALID = _flag(
    "--drop-invalid-packets", "packets that conntrack finds invalid are dropped",
    "dropInvalidPackets", "DROP_INVALID_PACKETS", takes=_S,
)  # fmt: skip
GUESTS = _flag(
    "--vnet", "what arrives on the interface is steered as the pod's own, except to its network; repeat for several",
    "redirect.vnet.networks", "REDIRECT_VNET_NETWORKS",
)  # fmt: skip
EXECUTABLES = _flag(
    "--iptables-executables", "paths that all end in -nft or all in -legacy (before -save, -restore) choose that "
    "backend; others are refused: which program runs is not the command line's to say",
)  # fmt: skip
CONFIG = _flag("--transparent-proxy-config", "YAML or JSON, files of it between commas, or - for standard input")
CONFIG_TEXT = _flag("--config", "YAML or JSON")
CONFIG_FILE = _flag(
    "--config-file", "a file of YAML or JSON, - for standard input; kumactl's own configuration, and a file that is "
    "not there (kuma's older template names one), say nothing of redirection",
)  # fmt: skip
ONLY_IN = _flag("", "only these ports are steered", "redirect.inbound.includePorts", "REDIRECT_INBOUND_INCLUDE_PORTS")
ONLY_OUT = _flag(
    "", "only these ports are steered", "redirect.outbound.includePorts", "REDIRECT_OUTBOUND_INCLUDE_PORTS"
)
STEER_OUT = _flag(
    "", "false: what the pod sends is not steered", "redirect.outbound.enabled", "REDIRECT_OUTBOUND_ENABLED",
    takes=_S, default="true",
)  # fmt: skip

_COUNTER: Final = "every rule has a counter: `headgate rules show`"
_LOCK: Final = "locks are the pod's own, and waited for"
_ONCE: Final = "a transaction holds or says why; the same one on the same kernel would be refused again"
_FIRST: Final = "headgate's rules always come first"
_EBPF: Final = "eBPF does not redirect here, nor in Kuma since 3.0 (PR #17225): take the flag out"


def _noted(
    name: str, how: str, config: str = "", variable: str = "", takes: Takes = Takes.VALUE, *, usual: str = ""
) -> Flag:
    """`usual`: kumactl's default, which a configuration that was written by a program spells out."""
    return _flag(name, how, config, variable, fate=Fate.NOTED, takes=takes, harmless=(usual,))


def _refused(name: str, how: str, config: str = "", takes: Takes = Takes.VALUE, harmless: tuple[str, ...] = ()) -> Flag:
    return _flag(name, how, config, fate=Fate.REFUSED, takes=takes, harmless=harmless)


FLAGS: Final = (
    DRY_RUN,
    _noted("--verbose", "the plan of --dry-run is complete anyway", "verbose", "VERBOSE", _S),
    FAMILY, OUTBOUND, STEER_IN, INBOUND, NOT_IN, NOT_OUT, NOT_FROM, NOT_TO, NOT_FOR_UIDS, USER, UID, DNS, ALL_DNS,
    DNS_PORT,
    _noted(
        "--skip-dns-conntrack-zone-split", "a kernel without conntrack zones refuses the rules and says so",
        "redirect.dns.skipConntrackZoneSplit", "REDIRECT_DNS_SKIP_CONNTRACK_ZONE_SPLIT", _S,
    ),
    INVALID, GUESTS,
    _noted("--wait", _LOCK, "wait", "WAIT", usual="5"),
    _noted("--wait-interval", _LOCK, "waitInterval", "WAIT_INTERVAL", usual="0"),
    _noted("--max-retries", _ONCE, "retry.maxRetries", "RETRY_MAX_RETRIES", usual="4"),
    _noted("--sleep-between-retries", _ONCE, "retry.sleepBetweenRetries", "RETRY_SLEEP_BETWEEN_RETRIES", usual="2s"),
    _noted("--iptables-logs", _COUNTER, "log.enabled", "LOG_ENABLED", _S),
    _noted("", _COUNTER, "log.level", "LOG_LEVEL", usual="7"),
    _noted(
        "--disable-comments", "by its comment a rule is known: it stays", "comments.disabled", "COMMENTS_DISABLED", _S
    ),
    _noted(
        "--redirect-inbound-insert-instead-of-append", _FIRST, "redirect.inbound.insertRedirectInsteadOfAppend",
        "REDIRECT_INBOUND_INSERT_REDIRECT_INSTEAD_OF_APPEND", _S,
    ),
    _noted(
        "--redirect-outbound-insert-instead-of-append", _FIRST, "redirect.outbound.insertRedirectInsteadOfAppend",
        "REDIRECT_OUTBOUND_INSERT_REDIRECT_INSTEAD_OF_APPEND", _S,
    ),
    EXECUTABLES,
    _refused(
        "--store-firewalld", "a pod has no firewalld, and what it stored would outlive the rules", "storeFirewalld", _S
    ),
    CONFIG, CONFIG_TEXT, CONFIG_FILE, ONLY_IN, ONLY_OUT, STEER_OUT,
    _refused(
        "", "the container's own /etc/resolv.conf is read", "redirect.dns.resolvConfigPath",
        harmless=("/etc/resolv.conf",),
    ),
    _refused("", "what arrives has no user", "redirect.inbound.excludePortsForUIDs"),
    *(
        _refused("", "write --iptables-executables instead", f"iptablesExecutables.{name}")
        for name in (
            "iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"
        )
    ),
    _noted("", "locks are always the namespace's own", "cniMode", "CNI_MODE", _S),
    _noted("--redirect-dns-upstream-target-chain", "without effect in kumactl, too, since 2.8"),
    _noted("--redirect-inbound-port-v6", "one listener port serves both families, as in kumactl since 2.5"),
    _refused("--exclude-outbound-tcp-ports-for-uids", "write --exclude-outbound-ports-for-uids tcp:PORTS:UIDS"),
    _refused("--exclude-outbound-udp-ports-for-uids", "write --exclude-outbound-ports-for-uids udp:PORTS:UIDS"),
    _refused("--ebpf-enabled", _EBPF, "ebpf.enabled", _S),
    *(
        _noted(f"--ebpf-{name}", _EBPF, f"ebpf.{key}")
        for name, key in (
            ("instance-ip", "instanceIP"), ("bpffs-path", "bpffsPath"), ("cgroup-path", "cgroupPath"),
            ("programs-source-path", "programsSourcePath"), ("tc-attach-iface", "tcAttachIface"),
        )
    ),
    _noted("", _EBPF, "ebpf.instanceIPEnvVarName"),
    _noted("--api-timeout", "kumactl's own: no API server is asked"),
    _noted("--log-level", "kumactl's own: what is done is one line on stdout, and errors on stderr"),
    _noted("--no-config", "kumactl's own: no configuration of it is read", takes=_S),
)  # fmt: skip
"""In the order of kumactl's own help; then keys without a flag, older releases', and kumactl's global ones."""

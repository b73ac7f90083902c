"""Every flag that the peers have (reference/redirection.md A8) stands in the tables with its fate, and once."""

import pytest

from agent.init import istio, linkerd
from agent.init.argv import Fate, Flag
from agent.init.kuma_flags import FLAGS as KUMA

ISTIO_FLAGS = {
    "--envoy-port": "-p",
    "--inbound-capture-port": "-z",
    "--inbound-tunnel-port": "-e",
    "--proxy-uid": "-u",
    "--proxy-gid": "-g",
    "--istio-inbound-interception-mode": "-m",
    "--istio-inbound-tproxy-mark": "-t",
    "--istio-inbound-tproxy-route-table": "-r",
    "--istio-inbound-ports": "-b",
    "--istio-local-exclude-ports": "-d",
    "--istio-exclude-interfaces": "-c",
    "--istio-service-cidr": "-i",
    "--istio-service-exclude-cidr": "-x",
    "--istio-outbound-ports": "-q",
    "--istio-local-outbound-ports-exclude": "-o",
    "--kube-virt-interfaces": "-k",
    "--dry-run": "-n",
    "--iptables-probe-port": "",
    "--probe-timeout": "",
    "--skip-rule-apply": "",
    "--run-validation": "",
    "--redirect-dns": "",
    "--capture-all-dns": "",
    "--drop-invalid": "",
    "--dual-stack": "",
    "--network-namespace": "",
    "--cni-mode": "",
    "--reconcile": "",
    "--cleanup-only": "",
    "--force-apply": "",
    "--native-nftables": "",
    "--force-iptables-binary": "",
}
ISTIO_VARIABLES = {
    "ISTIO_META_DNS_CAPTURE",
    "INVALID_DROP",
    "ISTIO_OUTBOUND_OWNER_GROUPS",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
    "ENVOY_USER",
}
LINKERD_FLAGS = {
    "--incoming-proxy-port": "-p",
    "--outgoing-proxy-port": "-o",
    "--proxy-uid": "-u",
    "--proxy-gid": "-g",
    "--ports-to-redirect": "-r",
    "--inbound-ports-to-ignore": "",
    "--outbound-ports-to-ignore": "",
    "--subnets-to-ignore": "",
    "--simulate": "",
    "--netns": "",
    "--use-wait-flag": "-w",
    "--timeout-close-wait-secs": "",
    "--log-format": "",
    "--log-level": "",
    "--iptables-mode": "",
    "--ipv6": "",
    "--firewall-bin-path": "",
    "--firewall-save-bin-path": "",
}
KUMA_FLAGS = (
    "--dry-run --verbose --ip-family-mode --redirect-outbound-port --redirect-inbound --redirect-inbound-port "
    "--exclude-inbound-ports --exclude-outbound-ports --exclude-inbound-ips --exclude-outbound-ips "
    "--exclude-outbound-ports-for-uids --kuma-dp-user --redirect-dns --redirect-all-dns-traffic --redirect-dns-port "
    "--skip-dns-conntrack-zone-split --drop-invalid-packets --vnet --wait --wait-interval --max-retries "
    "--sleep-between-retries --iptables-logs --disable-comments --redirect-inbound-insert-instead-of-append "
    "--redirect-outbound-insert-instead-of-append --iptables-executables --store-firewalld --transparent-proxy-config"
)


def named(flags: tuple[Flag, ...]) -> dict[str, str]:
    return {flag.name: flag.short for flag in flags}


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [(istio.FLAGS, ISTIO_FLAGS), (linkerd.FLAGS, LINKERD_FLAGS), (KUMA, dict.fromkeys(KUMA_FLAGS.split(), ""))],
    ids=["istio", "linkerd", "kuma"],
)
def test_every_flag_of_the_peer_is_in_the_table_with_its_short_form(
    flags: tuple[Flag, ...], wanted: dict[str, str]
) -> None:
    assert wanted.items() <= named(flags).items()


def test_every_variable_that_only_istio_has_is_in_the_table() -> None:
    assert {variable for flag in istio.FLAGS for variable in flag.variables} >= ISTIO_VARIABLES


@pytest.mark.parametrize("flags", [istio.FLAGS, linkerd.FLAGS, KUMA], ids=["istio", "linkerd", "kuma"])
def test_no_flag_variable_or_key_stands_twice_and_each_says_what_becomes_of_it(flags: tuple[Flag, ...]) -> None:
    for names in (
        [flag.name for flag in flags],
        [flag.short for flag in flags if flag.short],
        [variable for flag in flags for variable in flag.variables],
        [flag.config for flag in flags if flag.config],
    ):
        assert len(names) == len(set(names))
    assert all(flag.how for flag in flags)


def test_the_peers_own_files_name_no_key_that_kuma_has_not() -> None:
    """pkg/transparentproxy/config/config.go, json tags; `-` means that there is none."""
    keys = {flag.config for flag in KUMA if flag.config}
    assert {
        "kumaDPUser",
        "redirect.inbound.includePorts",
        "redirect.outbound.excludePortsForUIDs",
        "redirect.dns.skipConntrackZoneSplit",
        "redirect.vnet.networks",
        "ipFamilyMode",
        "retry.sleepBetweenRetries",
        "comments.disabled",
    } <= keys


def test_what_is_refused_has_a_reason_that_says_what_to_do_or_why() -> None:
    refused = [flag for flags in (istio.FLAGS, linkerd.FLAGS, KUMA) for flag in flags if flag.fate is Fate.REFUSED]
    assert refused
    assert all(len(flag.how) > 20 for flag in refused)

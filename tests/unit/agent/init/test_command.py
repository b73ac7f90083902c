"""The verb itself: what it prints, and how it ends when it cannot do what it was asked to. Nothing here has effects."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from agent.cli import main
from agent.init import istio, linkerd
from agent.init.argv import Flag
from agent.init.kuma_flags import FLAGS as KUMA_FLAGS


def init(*words: str, stdin: str | None = None, **environ: str) -> Result:
    return CliRunner().invoke(main, ["init", *words], input=stdin, env=environ)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--exclude-outbound-ports", "70000"), "Invalid value for --exclude-outbound-ports: '70000' is no port"),
        (("--exclude-outbound-ports", "10-5"), "ends before it begins"),
        (("--exclude-outbound-cidrs", "10.0.0.0/33"), "no address and no CIDR"),
        (("--exclude-interfaces", 'eth0"; flush ruleset'), "no interface name"),
        (("--proxy-uid", "nobody-knows"), "'nobody-knows' is no user of /etc/passwd"),
        (("--exclude-gids", "nobody-knows"), "'nobody-knows' is no group of /etc/group"),
        (("--proxy-uid", ""), "no user and no group"),
        (("--proxy-uid", "-1"), "Invalid value for --proxy-uid"),
        (("--loopback-cidr", "10.0.0.0/8"), "is not within 127.0.0.0/8"),
        (("--loopback-cidr", "::1/128"), "no IPv4 network"),
        (("--loopback-cidr", "127.0.0.1,127.0.0.3"), "not one"),
        (("--outbound-port", "15006"), "must differ"),
        (("--backend", "ebpf"), "'ebpf' is not one of"),
        (("-o", "nft"), "-o goes with --dry-run"),
        (("-o", "nft", "istio", "-b", "*"), "-o goes with --dry-run"),
        (("--udp", "deny", "istio", "-b", "*"), "does not go with istio"),
        (("istio", "-m", "TPROXY"), "-m 'TPROXY'"),
        (("istio", "-p", "15006"), "must differ"),
        (("istio", "-b", "*", "--no-such"), "no flag of istio-iptables"),
        (("linkerd", "-p", "4143", "-o", "4140"), "--proxy-uid"),
        (("kuma", "--transparent-proxy-config", "/no/such/file"), "there is no such file"),
        (("kuma", "--transparent-proxy-config", "/"), "cannot be read"),
        (("kuma", "--redirect-dns", "--redirect-all-dns-traffic"), "one of both"),
    ],
)
def test_wrong_usage_says_what_where_and_why(words: tuple[str, ...], reason: str) -> None:
    result = init(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--include-gids", "1", "--exclude-gids", "2"), "--include-gids"),
        (("--include-inbound-ports", "80", "--exclude-inbound-ports", "80"), "--include-inbound-ports"),
    ],
)
def test_wishes_that_contradict_each_other_name_the_options(words: tuple[str, ...], reason: str) -> None:
    """B14."""
    result = init("--dry-run", "-o", "nft", *words)
    assert result.exit_code == 2
    assert reason in result.stderr


@pytest.mark.parametrize("peer", ["istio", "linkerd", "kuma"])
def test_our_own_variables_do_not_go_with_a_peers_command_line(peer: str) -> None:
    result = init("--dry-run", peer, HEADGATE_EXCLUDE_OUTBOUND_PORTS="5432")
    assert result.exit_code == 2
    assert f"variable HEADGATE_EXCLUDE_OUTBOUND_PORTS: does not go with {peer}" in result.stderr


@pytest.mark.parametrize("path", ["/no/such/netns", "/etc/passwd", "/proc/self/ns/uts"])
def test_what_is_no_network_namespace_is_an_error_that_names_it(path: str) -> None:
    result = init("--netns", path)
    assert result.exit_code == 1
    assert path in result.stderr


def test_the_plan_is_printed_in_each_form() -> None:
    words = ("--dry-run", "--exclude-outbound-ports", "5432", "--proxy-uid", "root,2000-2002", "-o")
    assert "meta skuid { 0, 2000-2002 }" in init(*words, "nft").stdout
    assert "-m owner --uid-owner 2000-2002" in init(*words, "iptables").stdout
    plan = json.loads(init(*words, "json").stdout)
    assert plan["loopback_addresses"] == ["::6"]
    assert plan["return_path"] is None
    assert {"id", "direction", "meaning", "nft", "iptables"} == set(plan["rules"][0])


def test_a_node_modes_plan_has_the_way_back() -> None:
    plan = init("--dry-run", "--identity", "mark", "-o", "nft").stdout
    assert "meta mark & 0x00000fff == 0x00000539" in plan or "meta mark & 0xfff == 0x539" in plan
    assert "# ip -4 route add local default dev lo table 100\n" in plan


def test_options_are_also_read_from_the_environment_and_empty_is_not_said() -> None:
    environ = {"HEADGATE_EXCLUDE_OUTBOUND_PORTS": "5432", "HEADGATE_EXCLUDE_UIDS": "", "HEADGATE_OUTBOUND_PORT": "9001"}
    plan = init("--dry-run", "-o", "nft", **environ).stdout
    assert "5432" in plan
    assert "redirect to :9001" in plan


def test_a_proxy_that_calls_its_application_plainly_is_not_led_to_itself() -> None:
    plan = init("--dry-run", "--no-own-pod", "-o", "nft").stdout
    assert "own-pod" not in plan
    assert "::6" not in plan


def test_families_are_limited_where_asked() -> None:
    assert "ip6tables-restore" not in init("--dry-run", "-o", "iptables", "--ip-family", "ipv4").stdout


def test_what_changes_nothing_is_told_on_stderr_and_the_plan_stays_clean() -> None:
    result = init("--dry-run", "-o", "json", "linkerd", "-p", "4143", "-o", "4140", "-u", "2102", "-w")
    assert json.loads(result.stdout)["rules"]
    assert result.stderr == "-w: nothing to do: locks are the pod's own, and waited for\n"


def test_kumas_missing_kumactl_configuration_is_no_error(tmp_path: Path) -> None:
    """kuma's older templates give --config-file /tmp/kumactl/config, which their image does not have."""
    assert init("--dry-run", "-o", "nft", "kuma", "--config-file", str(tmp_path / "none")).exit_code == 0


def test_kumas_configuration_from_standard_input_ends_somewhere() -> None:
    result = init("kuma", "--transparent-proxy-config", "-", stdin="#" * 100_000)
    assert result.exit_code == 2
    assert "more than 65536 characters" in result.stderr


@pytest.mark.parametrize(
    ("peer", "flags"),
    [("istio", istio.FLAGS), ("linkerd", linkerd.FLAGS), ("kuma", KUMA_FLAGS)],
)
def test_help_tells_every_flag_and_what_becomes_of_it(peer: str, flags: tuple[Flag, ...]) -> None:
    result = init(peer, "-b", "*", "--help")
    assert result.exit_code == 0
    assert all(flag.name in result.stdout and flag.how in result.stdout for flag in flags)


DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize(
    ("document", "peer"),
    [("init", ()), ("migrate-istio", ("istio",)), ("migrate-linkerd", ("linkerd",)), ("migrate-kuma", ("kuma",))],
)
def test_the_documented_templates_are_taken(document: str, peer: tuple[str, ...]) -> None:
    template = yaml.safe_load((DOCS / f"{document}.md").read_text().split("```yaml\n")[1].split("```")[0])
    (container,) = template["initContainers"]
    words = [*container.get("command", [])[1:], *map(str, container["args"])]
    result = init("--dry-run", "-o", "nft", *peer, *words[0 if peer else 1 :])
    assert result.exit_code == 0, result.stderr
    assert "headgate:out-capture" in result.stdout

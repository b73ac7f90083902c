"""`headgate rules verify`: connections from inside, on every backend and in both modes; a fault of the rules fails it
and is named."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.kernel.backends import Backend
from agent.plan import Steering
from agent.plan.ranges import Ranges
from agent.verify import verify
from tests.netns.rules.cells import listening, titles
from tests.netns.rules.here import IPTABLES_NFT, LEGACY, MODES, NFT, SIDECAR, Here, pod, quiet_pod

LONGEST_S = 2.0
HEADGATE = str(Path(sys.executable).parent / "headgate")
NFT_OUT = ("nft", "insert", "rule", "inet", "headgate", "nat-output")
COMMON = {
    "application to elsewhere": "to 15001",
    "application to own address": "direct",
    "application to loopback": "direct",
    "proxy to elsewhere": "direct",
    "proxy to loopback": "direct",
    "application to the outbound listener": "direct",
    "application to the inbound listener": "direct",
    "application to the tunnel listener": "direct",
    "outside to the application": "to 15006",
    "outside to the tunnel listener": "direct",
}
OF_MODE = {
    "owner": {"proxy to own address": "to 15006", "proxy to the application": "direct"},
    "mark": {"proxy to own address": "direct"},
}


# ── Well ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("identity", MODES)
@pytest.mark.parametrize("backend", Backend)
def test_a_pod_that_is_well_is_proved_in_both_families_and_in_time(backend: Backend, identity: str) -> None:
    with pod() as here:
        here.install(backend, MODES[identity])
        before = _traces(here)
        shown = here.said("verify", "--identity", identity)
        assert _traces(here) == before
    seen = {(c["family"], f"{c['sender']} to {c['name']}"): c["seen"] for c in shown["cells"]}
    wanted = COMMON | OF_MODE[identity]
    assert seen == {(family, what): how for family in ("ipv4", "ipv6") for what, how in wanted.items()}
    assert shown["ok"] and titles(shown, "failed", "unknown") == set() and shown["untried"] == []
    assert shown["seconds"] <= LONGEST_S


def _traces(here: Here) -> dict[str, str]:
    """What could be left behind: interfaces, addresses, routes, listeners and rules."""
    left = here.dump()
    listeners = here.pod.shell("ss", "--listening", "--tcp", "--udp", "--numeric", "--no-header")
    return {"links": left["ip -brief link"], "routes": left["ip -4 route show table all"], "listeners": listeners}


EXCLUDED = (
    "--exclude-outbound-ports=5432,3000-3005",
    "--exclude-outbound-cidrs=10.1.0.0/16,fd01::/64",
    "--exclude-uids=2500",
    "--exclude-inbound-ports=9090",
    "--exclude-outbound-ports-for-uids=tcp:4000-4010:2600",
    "--dns-capture=true",
)


@pytest.mark.parametrize("backend", Backend)
def test_what_is_excluded_and_dns_are_proved_too(backend: Backend) -> None:
    with pod() as here:
        assert here.headgate("diff", "--fix", "--backend", backend.value, *EXCLUDED).exit_code == 0
        shown = here.said("verify", *EXCLUDED)
    assert titles(shown, "failed", "unknown") == set()
    seen = {f"{c['sender']} to {c['name']} {c['port']}/{c['protocol']}": c["seen"] for c in shown["cells"]}
    assert seen["application to an excluded port 3000/tcp"] == "direct"
    assert seen["application to an excluded network 15002/tcp"] == "direct"
    assert seen["application to elsewhere, as an excluded user 15002/tcp"] == "direct"
    assert seen["application to a port excluded for a user 4000/tcp"] == "direct"
    assert seen["outside to an excluded port 9090/tcp"] == "direct"
    assert seen["application to a DNS server 53/udp"] == seen["application to a DNS server 53/tcp"] == "to 15053"
    assert seen["proxy to a DNS server 53/udp"] == "direct"


@pytest.mark.parametrize("backend", Backend)
def test_b7_a_second_user_and_a_group_of_the_proxy_are_proved_too(backend: Backend) -> None:
    owners = ("--proxy-uid=1337,2000", "--proxy-gid=3000")
    with pod() as here:
        assert here.headgate("diff", "--fix", "--backend", backend.value, *owners).exit_code == 0
        shown = here.said("verify", *owners)
    assert titles(shown, "failed", "unknown") == set()
    seen = {f"{c['name']} {c['family']}": c["seen"] for c in shown["cells"] if c["sender"] == "proxy"}
    for how in ("as user 2000", "as group 3000"):
        for family in ("ipv4", "ipv6"):
            assert seen[f"elsewhere, {how} {family}"] == "direct"
            assert seen[f"own address, {how} {family}"] == "to 15006"


@pytest.mark.parametrize("backend", [NFT, LEGACY])
def test_where_a_proxylistens_conntrack_tells(backend: Backend) -> None:
    with pod() as here:
        here.install(backend)
        with listening(here, 15001, 15006, 15008):
            shown = here.said("verify")
            assert shown["ok"] and titles(shown, "failed", "unknown") == set()
            told = {c["reason"] for c in shown["cells"] if c["seen"].startswith("to ")}
            assert told == {"conntrack"}
            here.pod.shell(
                *(NFT_OUT if backend is NFT else ("iptables-legacy", "-t", "nat", "-I", "OUTPUT", "-j")),
                *(("accept",) if backend is NFT else ("ACCEPT",)),
            )
            failed = titles(here.said("verify"), "failed")
    assert "application to elsewhere ipv4" in failed and "proxy to elsewhere ipv4" not in failed


def test_a_pod_without_a_default_route_is_proved_on_its_own_link() -> None:
    with pod() as here:
        for family in ("-4", "-6"):
            here.pod.shell("ip", family, "route", "del", "default")
        here.install(NFT)
        shown = here.said("verify")
    assert shown["ok"] and titles(shown, "failed") == set()
    dialled = {c["destination"].rpartition(":")[0] for c in shown["cells"] if c["name"] == "elsewhere"}
    assert all(address.startswith(("fd99:", "")) and "2001:db8" not in address for address in dialled)


def test_one_family_alone_is_no_fault() -> None:
    with pod() as here:
        here.pod.shell("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        here.install(NFT)
        shown = here.said("verify")
    assert shown["ok"] and {c["family"] for c in shown["cells"]} == {"ipv4"}
    assert shown["untried"] == ["IPv6: no address but loopback and link-local ones"]


def test_where_new_interfaces_have_no_ipv6_the_rest_is_proved() -> None:
    with pod() as here:
        here.pod.shell("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        here.install(NFT)
        shown = here.said("verify")
    assert shown["ok"] and "outside to the application ipv4" in titles(shown, "ok")
    assert titles(shown, "unknown") == {"outside to the application ipv6", "outside to the tunnel listener ipv6"}


def test_two_at_once_do_not_disturb_each_other() -> None:
    with pod() as here:
        here.install(NFT)
        before = here.dump()["ip -brief link"]
        with ThreadPoolExecutor(2) as both:
            reports = [both.submit(here.pod.run, verify, Steering(), SIDECAR).result for _ in range(4)]
            assert all(report().ok for report in reports), [report().why_not for report in reports]
        assert here.dump()["ip -brief link"] == before


# ── Not well ───────────────────────────────────────────────────────────────────────────────────────────────────────
Fault = tuple[Backend, str, tuple[str, ...], set[str]]
FAULTS: tuple[Fault, ...] = (
    (
        NFT,
        "the table is gone",
        ("nft", "delete", "table", "inet", "headgate"),
        {"application to elsewhere ipv4", "application to elsewhere ipv6", "outside to the application ipv4"},
    ),
    (
        NFT,
        "a rule lets it past",
        (*NFT_OUT, "ip", "daddr", "192.0.2.0/24", "accept"),
        {"application to elsewhere ipv4"},
    ),
    (
        NFT,
        "led to another port",
        (*NFT_OUT, "tcp", "dport", "15002", "redirect", "to", ":9"),
        {"application to elsewhere ipv4", "application to elsewhere ipv6"},
    ),
    (
        NFT,
        "led to the other listener",
        (
            "nft",
            "insert",
            "rule",
            "inet",
            "headgate",
            "nat-prerouting",
            "tcp",
            "dport",
            "15002",
            "redirect",
            "to",
            ":15001",
        ),
        {"outside to the application ipv4", "outside to the application ipv6"},
    ),
    (
        NFT,
        "somebody drops it",
        ("nft", "table inet x { chain o { type filter hook output priority 0; tcp dport 15001 drop; }; }"),
        {"application to elsewhere ipv4", "application to the outbound listener ipv6"},
    ),
    (
        IPTABLES_NFT,
        "the proxy is not known",
        (
            "iptables-nft",
            "-t",
            "nat",
            "-I",
            "OUTPUT",
            "-p",
            "tcp",
            "!",
            "-o",
            "lo",
            "-j",
            "REDIRECT",
            "--to-ports",
            "15001",
        ),
        {"proxy to elsewhere ipv4"},
    ),
    (
        IPTABLES_NFT,
        "IPv6's half is gone",
        ("ip6tables-nft", "-t", "nat", "-F", "PREROUTING"),
        {"outside to the application ipv6"},
    ),
    (
        LEGACY,
        "our chain is emptied",
        ("iptables-legacy", "-t", "nat", "-F", "HEADGATE_CAPTURE_OUT"),
        {"application to elsewhere ipv4", "proxy to own address ipv4"},
    ),
)


@pytest.mark.parametrize(
    ("backend", "what", "command", "failing"), FAULTS, ids=[f"{f[0].value}: {f[1]}" for f in FAULTS]
)
def test_a_fault_of_the_rules_fails_it_with_the_cell_and_the_status_asked_for(
    backend: Backend, what: str, command: tuple[str, ...], failing: set[str]
) -> None:
    with pod() as here:
        here.install(backend)
        here.pod.shell(*command)
        done = here.headgate("verify", "-o", "json", "--fail-exit-code", "126")
    assert done.exit_code == 126 and "is not proved: " in done.stderr
    failed = titles(json.loads(done.stdout), "failed")
    assert failing <= failed
    families = {title.rpartition(" ")[2] for title in failing}
    assert families == {title.rpartition(" ")[2] for title in failed}
    assert all(title.rpartition(" ")[0] in done.stderr for title in failing)


def test_no_rules_at_all_are_a_failure_and_a_table_says_what_went_past() -> None:
    with pod() as here:
        done = here.headgate("verify", "--fail-exit-code", "95")
    assert done.exit_code == 95
    (line,) = [
        line for line in done.stdout.splitlines() if line.startswith("ipv4") and "application  elsewhere" in line
    ]
    assert "FAILED" in line and "rule out-capture should have led it to port 15001" in line


def test_a_namespace_without_an_address_proves_nothing() -> None:
    with quiet_pod() as here:
        here.install(NFT)
        done = here.headgate("verify")
    assert done.exit_code == 1 and "no connection that is to be captured could be tried" in done.stderr


# ── Whatever happens, nothing is left ──────────────────────────────────────────────────────────────────────────────
def test_the_visitor_of_a_process_that_was_killed_goes_with_it() -> None:
    code = (
        "from agent.plan import IPFamily\nfrom agent.verify.visitor import Visitor\nimport time\n"
        "Visitor(tuple(IPFamily))\nprint('there', flush=True)\ntime.sleep(60)\n"
    )
    with pod() as here:
        before = here.dump()["ip -brief link"]
        child = here.pod.run(
            subprocess.Popen, [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        with child:
            assert child.stdout is not None and child.stdout.readline() == b"there\n"
            assert "hg-verify" in here.dump()["ip -brief link"]
            os.kill(child.pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while here.dump()["ip -brief link"] != before:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_wishes_that_exclude_everything_are_proved_direct() -> None:
    with pod() as here:
        wanted = Steering(include_outbound=None, exclude_outbound_ports=Ranges.of((1, 14999), (15100, 65535)))
        here.install(NFT, SIDECAR, wanted)
        shown = here.said("verify", "--exclude-outbound-ports=1-14999,15100-65535")
    assert shown["ok"], titles(shown, "failed")

"""`headgate rules explain` on the real kernel: word for word as people read it, beside the kernel's own trace, and
where it cannot be done."""

import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from agent.explain.tables import Ruleset
from agent.plan import IPFamily
from agent.ruleset import iptables_reading, whole
from tests.netns.rules.here import IPTABLES_NFT, LEGACY, NFT, NODE, SIDECAR, Here, pod, quiet_pod

GOLDEN = Path(__file__).parent / "golden"
PEERS = Path(__file__).parents[1] / "explain" / "peers"
PINGS = """table inet t {
    chain c {
        type filter hook output priority 0; policy accept;
        ip daddr 10.99.0.9 icmp type echo-request meta mark 7 counter
        icmpv6 type echo-request drop
    }
}"""
ELSEWHERE = "192.0.2.2:80"


def explain(here: Here, *words: str) -> Result:
    return here.headgate("explain", *words)


def outcome(here: Here, *words: str) -> Any:
    said = here.said("explain", *words)
    return said["outcome"]["verdict"], said["outcome"]["port"]


def same_as_golden(name: str, text: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("REFRESH_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def peer(here: Here, name: str, tool: str = "iptables-nft") -> None:
    here.restore(tool, (PEERS / f"{name}.iptables").read_text())


# ── As people read it ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("name", "to"), [("outbound", ELSEWHERE), ("inbound", "10.99.0.5:8080")])
def test_our_own_rules_as_people_read_them(name: str, to: str) -> None:
    with pod() as here:
        here.install(NFT, NODE)
        done = explain(here, "--to", to)
    assert done.exit_code == 0 and done.stderr == ""
    same_as_golden(f"explain-ours-{name}.txt", done.stdout)


def test_a_sidecar_of_istios_as_people_read_it() -> None:
    with pod() as here:
        peer(here, "istio_redirect")
        application = explain(here, "--to", ELSEWHERE, "--uid", "1000")
        proxy = explain(here, "--to", ELSEWHERE, "--uid", "1337")
    assert application.stderr == proxy.stderr == ""
    same_as_golden("explain-istio.txt", f"{application.stdout}\n{proxy.stdout}")


def test_kube_proxy_as_people_read_it() -> None:
    """Chance decides which endpoint it is: each is told, with the way that leads there."""
    with pod() as here:
        peer(here, "kube_proxy")
        done = explain(here, "--to", "10.96.0.20:80")
    assert done.stderr == ""
    same_as_golden("explain-kube-proxy.txt", done.stdout)


# ── Beside the kernel's trace ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("node", ("--to", ELSEWHERE)),
        ("node", ("--to", "[2001:db8::2]:80")),
        ("node", ("--to", ELSEWHERE, "--mark", "0x539")),
        ("node", ("--to", "127.0.0.1:80")),
        ("node", ("--to", "10.99.0.5:80", "--uid", "1000")),
        ("node", ("--to", "192.0.2.2:53", "--proto", "udp")),
        ("pings", ("--to", "10.99.0.9", "--proto", "icmp", "--mark", "7")),
        ("pings", ("--to", "fd99::9", "--proto", "icmp")),
        ("sidecar", ("--to", ELSEWHERE, "--uid", "1000", "--gid", "1000")),
        ("sidecar", ("--to", ELSEWHERE, "--uid", "1337")),
        ("istio_redirect", ("--to", ELSEWHERE, "--uid", "1000")),
        ("istio_redirect", ("--to", "10.99.0.5:80", "--uid", "1337")),
        ("kube_proxy", ("--to", "10.96.0.20:80")),
        ("kube_proxy", ("--to", "10.96.0.50:80")),
    ],
)
def test_the_kernels_trace_of_the_packet_agrees(rules: str, words: tuple[str, ...]) -> None:
    with pod() as here:
        if rules == "node":
            here.install(NFT, NODE)
        elif rules == "sidecar":
            here.install(IPTABLES_NFT, SIDECAR)
        elif rules == "pings":
            here.nft(PINGS)
        else:
            peer(here, rules)
        done = explain(here, *words, "--live")
    assert done.exit_code == 0, done.output
    live = done.stdout.rpartition("\nlive: ")[2]
    assert live.endswith("the kernel's trace agrees\n") and "\n  = " in live
    if rules != "kube_proxy":  # there, what is behind chance's choice is not compared
        assert "\n  - " not in live and "\n  + " not in live


def test_explaining_and_trying_change_nothing() -> None:
    with pod() as here:
        here.install(IPTABLES_NFT, SIDECAR)
        before = here.dump()
        assert explain(here, "--to", ELSEWHERE).exit_code == 0
        assert _uncounted(here.dump()) == _uncounted(before)
        assert explain(here, "--to", ELSEWHERE, "--live").exit_code == 0
        assert _uncounted(here.dump()) == _uncounted(before)


def _uncounted(dump: dict[str, str]) -> dict[str, str]:
    return {tool: re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", text) for tool, text in dump.items()}


def test_what_the_kernel_will_not_send_is_said() -> None:
    with quiet_pod() as here:
        done = explain(here, "--to", ELSEWHERE, "--live")
    assert "the kernel would not send it: Network is unreachable" in done.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--to", "10.99.0.5:80"), "a packet that arrives cannot be sent from here: run `headgate rules trace`"),
        (("--to", ELSEWHERE, "--state", "established"), "leave out --state and --flags"),
        (("--to", "192.0.2.2", "--proto", "47"), "give one of them with --proto"),
        (("--to", "192.0.2.2"), "give ADDR:PORT"),
    ],
)
def test_what_cannot_be_sent_from_here_is_refused(words: tuple[str, ...], reason: str) -> None:
    with pod() as here:
        done = explain(here, *words, "--live")
    assert done.exit_code == 2 and reason in done.stderr


# ── Rulesets that are not easily read ──────────────────────────────────────────────────────────────────────────────
def test_a_rule_of_nfts_in_a_table_of_iptables_is_read_as_nft_says_it() -> None:
    """iptables-nft-save prints it without its test, and says nothing."""
    with pod() as here:
        here.nft("""table ip nat {
            set x { type ipv4_addr; elements = { 198.51.100.1 }; }
            chain OUTPUT { type nat hook output priority -100; ip daddr @x counter accept; }
        }""")
        here.restore(
            "iptables-nft", "*nat\n-A OUTPUT -p tcp -m owner --uid-owner 0 -j REDIRECT --to-ports 15001\nCOMMIT\n"
        )
        assert "-A OUTPUT -j ACCEPT\n" in here.dump()["iptables-nft-save"]
        assert outcome(here, "--to", ELSEWHERE) == ("redirect", 15001)
        assert outcome(here, "--to", "198.51.100.1:80") == ("accept", None)
        assert explain(here, "--to", ELSEWHERE, "--live").exit_code == 0


def test_a_rule_that_iptables_gives_up_at_does_not_hide_the_other_tables() -> None:
    with pod() as here:
        here.restore("iptables-nft", "*filter\n-A OUTPUT -p tcp -m owner --uid-owner 7 -j DROP\nCOMMIT\n")
        here.nft("""table ip nat {
            chain output { type nat hook output priority -100; meta skuid != 7 tcp dport 80 redirect to :15001; }
        }""")
        said = here.said("explain", "--to", ELSEWHERE, "--uid", "7")
        assert (said["outcome"]["verdict"], said["unread"], said["unknown"]) == ("drop", [], [])
        assert outcome(here, "--to", ELSEWHERE) == ("redirect", 15001)


@pytest.mark.parametrize(
    ("name", "to"), [("istio_redirect", ELSEWHERE), ("kube_proxy", "10.96.0.20:80"), ("docker_host", "10.99.0.5:8080")]
)
def test_asked_chain_by_chain_iptables_says_the_same(name: str, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pod() as here:
        peer(here, name)
        at_once = here.said("explain", "--to", to)
        monkeypatch.setattr(iptables_reading, "_SAVED_WHOLE", 0)
        assert here.said("explain", "--to", to) == at_once
    assert len(at_once["path"]) > 3 and not at_once["unread"]


def test_what_iptables_wrote_into_a_chain_of_nfts_stays_unknown_and_is_named() -> None:
    with pod() as here:
        here.restore("iptables-nft", "*nat\n-A OUTPUT -p tcp -m owner --uid-owner 7 -j RETURN\nCOMMIT\n")
        here.nft("add rule ip nat OUTPUT tcp dport 80 redirect to :15001")
        said = here.said("explain", "--to", ELSEWHERE)
    assert [way["verdict"] for way in said["either"]] == ["accept", "redirect"]
    (unknown,) = said["unknown"]
    assert (unknown["place"], unknown["what"]) == (1, "xt match owner")


def test_a_table_with_flags_hides_nothing() -> None:
    """libnftables 1.0.6 prints freed memory for one, as JSON."""
    with pod() as here:
        here.nft("table inet aaa { flags dormant;\nchain x { type filter hook output priority -5; drop\n }\n }")
        here.install(NFT, NODE)
        assert outcome(here, "--to", ELSEWHERE) == ("redirect", 15001)


def test_rules_of_both_iptables_are_met() -> None:
    with pod() as here:
        here.install(LEGACY, SIDECAR)
        here.restore("iptables-nft", "*filter\n-A OUTPUT -p tcp --dport 81 -j DROP\nCOMMIT\n")
        assert outcome(here, "--to", ELSEWHERE) == ("redirect", 15001)
        assert outcome(here, "--to", "192.0.2.2:81", "--uid", "1337") == ("drop", None)
        noted = explain(here, "--to", ELSEWHERE, "--live").stdout
    assert "iptables-legacy holds rules" in noted and noted.endswith("the kernel's trace agrees\n")


def test_names_and_comments_forge_no_rule_and_reach_no_terminal() -> None:
    comment = 'a\n\t\taccept comment "headgate:out-capture" \x1b[2J'
    with pod() as here:
        here.pod.shell(
            "iptables-nft", "-t", "nat", "-A", "OUTPUT", "-m", "comment", "--comment", comment, "-j", "ACCEPT"
        )
        here.pod.shell("nft", "add", "table", "inet", "t")
        here.pod.shell("nft", "add", "chain", "inet", "t", "c", "{ type filter hook output priority 0; }")
        here.pod.shell("nft", "add", "rule", "inet", "t", "c", 'log prefix "x\n\t\tdrop \x1b[2J" accept')
        done = explain(here, "--to", ELSEWHERE)
        said = here.said("explain", "--to", ELSEWHERE)
    assert done.exit_code == 0 and "\x1b" not in done.stdout and "out-capture:" not in done.stdout
    assert said["outcome"]["verdict"] == "accept"
    assert [step["whose"] for step in said["path"] if step.get("place")] == ["unknown", "unknown"]
    (logged,) = [step for step in said["path"] if step["table"] == "t" and step["place"]]
    assert logged["rule"] == ""  # its text could be several rules: none is shown


def test_what_libnftables_cannot_print_ends_nothing_and_is_named() -> None:
    """1.0.6 aborts when it is to print, as JSON, a name that is no UTF-8: any pod can have such a rule."""
    with pod() as here:
        here.install(NFT, NODE)
        here.pod.shell("nft", "add", "table", "inet", "t")
        here.pod.shell("nft", "add", "chain", "inet", "t", "c", "{ type filter hook output priority 5; }")
        here.pod.shell("nft", b'add rule inet t c iifname "e\xff" drop')  # type: ignore[arg-type]
        done = explain(here, "--to", ELSEWHERE)
        said = here.said("explain", "--to", ELSEWHERE)
    assert done.exit_code == 0 and done.stderr == ""
    assert {way["verdict"] for way in said["either"]} == {"redirect", "drop"}
    (unknown,) = [one for one in said["unknown"] if one["table"] == "t"]
    assert unknown["what"] == "chain c" and "SIGABRT" in unknown["why"]


# ── Rulesets that change while they are read ───────────────────────────────────────────────────────────────────────
def test_rules_that_changed_while_they_were_read_are_read_again() -> None:
    asked: list[int] = []

    def ask(ruleset: Ruleset) -> int:
        chain = next(table for table in ruleset.tables if table.name == "headgate").chains["nat-output"]
        asked.append(len(chain.rules))
        if len(asked) == 1:
            here.nft("add rule inet headgate nat-output accept")
        return len(chain.rules)

    with pod() as here:
        here.install(NFT, NODE)
        found = here.pod.run(whole.settled, ask)
    assert asked == [asked[0], asked[0] + 1] and found == asked[1]


def test_rules_that_never_rest_are_told_as_such() -> None:
    unread: list[tuple[str, ...]] = []

    def ask(ruleset: Ruleset) -> None:
        unread.append(ruleset.unread)
        here.nft("add rule inet headgate nat-output accept")

    with pod() as here:
        here.install(NFT, NODE)
        here.pod.run(whole.settled, ask)
    assert unread == [*[()] * whole.ATTEMPTS, (whole.CHANGING,)]


def test_a_chain_that_went_before_it_was_read_is_no_failure() -> None:
    asked: list[Ruleset] = []

    def ask(ruleset: Ruleset) -> list[str]:
        asked.append(ruleset)
        if len(asked) == 1:
            here.nft("delete table inet headgate")
        return [rule.comment for table in ruleset.tables for chain in table.chains.values() for rule in chain.rules]

    with pod() as here:
        here.install(NFT, NODE)
        comments = here.pod.run(whole.settled, ask)
    assert len(asked) == 2 and "headgate:zone-out" in comments and "headgate:out-capture" not in comments


def test_legacy_rules_that_change_are_seen_though_they_count_no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = iptables_reading.legacy

    def then_changed(families: Collection[IPFamily], unread: list[str]) -> dict[str, str]:
        texts = read(families, unread)
        if not asked:
            asked.append(0)
            here.restore("iptables-legacy", "*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n")
        return texts

    def ask(ruleset: Ruleset) -> None:
        asked.append(sum(len(chain.rules) for table in ruleset.tables for chain in table.chains.values()))

    with pod() as here:
        here.restore("iptables-legacy", "*nat\n-A OUTPUT -j RETURN\nCOMMIT\n")
        monkeypatch.setattr(iptables_reading, "legacy", then_changed)
        here.pod.run(whole.settled, ask)
    assert asked == [0, 1, 2]


# ── Bad input, no permission, no namespace ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("words", "option", "reason"),
    [
        (("--to", "10.99.0.9:70000"), "--to", "'70000' is no port"),
        (("--to", "example.com:80"), "--to", "is a name"),
        (("--to", ELSEWHERE, "--from", "fd99::5"), "--from", "give both of one"),
        (("--to", "10.99.0.5:80", "--iface", "eth7"), "--iface", "'eth7' does not exist there: lo, eth0"),
        (("--to", "10.99.0.5:80", "--iface", "eth0", "--uid", "5"), "--uid", "--direction outbound"),
        (("--to", ELSEWHERE, "--mark", "0x1ffffffff"), "--mark", "a number from 0 to 4294967295"),
        (("--to", ELSEWHERE, "--proto", "quic"), "--proto", "tcp, udp, icmp, icmpv6, sctp or a number"),
        (("--to", ELSEWHERE, "--flags", "syn,foo"), "--flags", "'foo': some of fin, syn"),
    ],
)
def test_wrong_options_are_named_with_the_remedy(words: tuple[str, ...], option: str, reason: str) -> None:
    with pod() as here:
        done = explain(here, *words)
    assert done.exit_code == 2 and f"'{option}'" in done.stderr and reason in done.stderr
    assert done.stdout == ""


def test_without_a_destination_there_is_no_packet() -> None:
    done = CliRunner().invoke(main, ["rules", "explain"])
    assert done.exit_code == 2 and "Missing option '--to'" in done.stderr


def test_a_namespace_that_is_gone_is_said() -> None:
    with quiet_pod() as here:
        path = here.pod.path
    for gone in (path, "/run/netns/hg-no-such"):
        done = CliRunner().invoke(main, ["rules", "explain", "--netns", gone, "--to", ELSEWHERE])
        assert done.exit_code == 1 and gone in done.stderr and done.stdout == ""


@pytest.mark.parametrize("live", [(), ("--live",)])
def test_who_may_not_read_rules_is_told_the_capability(live: tuple[str, ...]) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    with pod() as here:
        here.install(NFT, NODE)
        command = [sys.executable, "-m", "agent", "rules", "explain", "--to", ELSEWHERE, *live]
        done = subprocess.run(
            ["nsenter", f"--net={here.pod.path}", *nobody, *command],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1 and "CAP_NET_ADMIN" in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr

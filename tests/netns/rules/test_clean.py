"""`headgate rules clean`: what is ours goes, in every backend; nothing else does."""

from pathlib import Path

import pytest
from click import ClickException

from agent.cli.target import Namespace
from agent.kernel import backends
from agent.kernel.backends import Backend
from tests.netns.rules.here import LEGACY, MODES, Here, quiet_pod
from tests.unit.agent.test_cli import agent as agent_double

ROUTE = ("local", "default", "dev", "lo", "table", "100")


@pytest.mark.parametrize("identity", MODES)
@pytest.mark.parametrize("backend", Backend)
def test_install_then_clean_leaves_everything_byte_for_byte(backend: Backend, identity: str) -> None:
    with quiet_pod() as here:
        here.foreign()
        if backend is LEGACY:  # its tables, once asked for, stay for good, empty
            for tool in ("iptables-legacy", "ip6tables-legacy"):
                for table in ("raw", "mangle", "nat", "filter"):
                    here.pod.shell(tool, "-t", table, "-S")
        before = here.dump()
        here.install(backend, MODES[identity])
        if identity == "owner":
            here.pod.shell("ip", "-6", "address", "del", "::6/128", "dev", "lo")  # kept: Istio's rules are here
        assert here.dump() != before
        done = here.headgate("clean")
        assert done.exit_code == 0, done.output
        assert here.dump() == before
        assert here.pod.run(backends.held) == frozenset()
        again = here.headgate("clean")
        assert again.exit_code == 0 and again.stdout == "" and "nothing of ours" in again.stderr


def test_a_dry_run_says_what_would_go_and_touches_nothing() -> None:
    with quiet_pod() as here:
        here.install(Backend.NFTABLES)
        before = here.dump()
        done = here.headgate("clean", "--dry-run")
        assert here.dump() == before
    assert done.stdout.splitlines()[-1] == "would remove: address ::6/128 on lo"
    assert "would remove: nft table inet headgate (" in done.stdout


def _old_versions(here: Here) -> None:
    here.nft(
        "table ip headgate-v0 { chain c { type nat hook output priority -100; tcp dport 1 counter redirect to :15001 "
        'comment "headgate:out"; }; }'
    )
    here.restore(
        "iptables-nft",
        "*mangle\n:HEADGATE_OLD - [0:0]\n:HEADGATE_OLDER - [0:0]\n-A HEADGATE_OLD -j HEADGATE_OLDER\n"
        "-A OUTPUT -p tcp -j HEADGATE_OLD\nCOMMIT\n"
        '*nat\n-A PREROUTING -p tcp -m comment --comment "headgate:in" -j REDIRECT --to-ports 15006\nCOMMIT\n',
    )
    for family in ("-4", "-6"):
        here.pod.shell("ip", family, "rule", "add", "pref", "32764", "fwmark", "0x111/0xfff", "lookup", "100")
        here.pod.shell("ip", family, "route", "add", *ROUTE, "proto", "static")
    here.pod.shell("ip", "-6", "address", "add", "::6/128", "dev", "lo")


def test_what_older_versions_left_goes_too() -> None:
    with quiet_pod() as here:
        here.nft("table inet headgate-users-own { chain x { counter accept; }; }")
        here.pod.shell("ip", "rule", "add", "pref", "500", "lookup", "100")
        here.pod.shell("ip", "route", "add", "10.0.0.0/8", "dev", "lo", "table", "100")
        here.pod.shell("ip", "-6", "route", "add", *ROUTE, "metric", "7")  # by hand: proto boot
        # The built-in chains of iptables-nft, made by whoever is first: another version did not say that it made them.
        here.restore("iptables-nft", "*mangle\n-A OUTPUT -j ACCEPT\nCOMMIT\n*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n")
        before = here.dump()
        _old_versions(here)
        done = here.headgate("clean")
        assert done.exit_code == 0, done.output
        assert {what: text for what, text in here.dump().items() if before[what] != text} == {}
    assert "removed: nft table ip headgate-v0 (1 rule)" in done.stdout
    assert "in chain PREROUTING: -p tcp -j REDIRECT --to-ports 15006" in done.stdout


def test_istio_ambients_return_path_is_not_ours_to_take() -> None:
    with quiet_pod() as here:
        here.restore("iptables-nft", "*mangle\n:ISTIO_PRERT - [0:0]\n-A PREROUTING -j ISTIO_PRERT\nCOMMIT\n")
        here.pod.shell("ip", "rule", "add", "pref", "32764", "fwmark", "0x111/0xfff", "lookup", "100")
        here.pod.shell("ip", "route", "add", *ROUTE, "proto", "static")
        here.nft('table inet headgate { chain c { counter accept comment "headgate:x"; }; }')
        done = here.headgate("clean")
        assert done.exit_code == 0
        assert "32764" in here.pod.shell("ip", "rule") and "inet headgate" not in here.dump()["nft -a list ruleset"]
    assert done.stdout == "removed: nft table inet headgate (1 rule)\n"
    assert "kept: ip rule 32764" in done.stderr and "istio ambient" in done.stderr


def test_a_pod_that_an_agent_serves_is_refused_unless_forced(tmp_path: Path) -> None:
    with quiet_pod() as here:
        here.install(Backend.NFTABLES)
        before = here.dump()
        served = {
            "netns_id": Namespace(Path(here.pod.path)).identity(),
            "namespace": "shop",
            "name": "web",
            "state": "proved",
        }
        with agent_double(tmp_path, {"GET /pods": (200, {"pods": [served]})}):
            refused = here.headgate("clean", "--run-dir", str(tmp_path))
            assert refused.exit_code == 1 and "pod shop/web, which the agent serves" in refused.stderr
            assert here.dump() == before
            assert here.headgate("clean", "--run-dir", str(tmp_path), "--force").exit_code == 0
            assert here.pod.run(backends.held) == frozenset()


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_rule_that_only_pretends_to_be_ours_is_never_written_back_and_stays(tool: str) -> None:
    """Who cleans has the node's rights; who made the rule, the pod's. iptables-restore would take the second line of
    the comment for a command."""
    with quiet_pod() as here:
        pretends = "headgate:x\n-P OUTPUT DROP\n"
        here.pod.shell(tool, "-t", "nat", "-A", "OUTPUT", "-m", "comment", "--comment", pretends, "-j", "RETURN")
        here.pod.shell(tool, "-t", "nat", "-N", 'HEADGATE_"')
        before = here.dump()
        done = here.headgate("clean")
        assert done.exit_code == 0 and "nothing of ours" in done.stderr, done.output
        assert here.dump() == before
        here.install(Backend(tool))
        done = here.headgate("clean")
        assert done.exit_code == 0, done.output
        assert "\n-P OUTPUT" not in done.output
        assert here.dump()[f"{tool}-save"].count("-A ") == 1
        assert ":OUTPUT ACCEPT" in here.dump()[f"{tool}-save"]


def test_b47_a_path_that_passes_to_another_namespace_is_not_followed(tmp_path: Path) -> None:
    """As a pid does, or a name that is made anew: between two looks of the same verb."""
    with quiet_pod() as here, quiet_pod() as other:
        link = tmp_path / "pod"
        link.symlink_to(here.pod.path)
        where = Namespace(link)
        assert where.call(backends.held) == frozenset()
        other.install(Backend.NFTABLES)
        link.unlink()
        link.symlink_to(other.pod.path)
        with pytest.raises(ClickException, match="was meant: the pod was replaced"):
            where.call(backends.held)
        with pytest.raises(ClickException, match="was meant"):
            where.identity()

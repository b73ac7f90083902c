"""`headgate rules diff`: what the kernel holds otherwise than planned, named; `--fix` puts it in force."""

import socket

import pytest

from agent.kernel import backends
from agent.kernel.backends import Backend
from tests.netns.kernel.scratch import NODE4
from tests.netns.rules.here import IPTABLES_NFT, LEGACY, MODES, NFT, SIDECAR, Here, pod, quiet_pod

Sabotage = tuple[str, tuple[str, ...], str]
"""What is done, the command, and what the words name."""

_NFT_RULE = ("nft", "insert", "rule", "inet", "headgate", "nat-output", "tcp", "dport", "80", "accept")
SABOTAGES: dict[Backend, tuple[Sabotage, ...]] = {
    NFT: (
        ("the table is deleted", ("nft", "delete", "table", "inet", "headgate"), "table inet headgate is gone"),
        ("a rule is put before ours", _NFT_RULE, "a foreign rule in chain nat-output"),
        (
            "a chain is emptied",
            ("nft", "flush", "chain", "inet", "headgate", "nat-output"),
            "chain nat-output is empty",
        ),
    ),
    IPTABLES_NFT: (
        ("a chain is emptied", ("iptables-nft", "-t", "nat", "-F", "HEADGATE_CAPTURE_OUT"), "HEADGATE_CAPTURE_OUT"),
        ("IPv6's half goes", ("ip6tables-nft", "-t", "nat", "-F", "OUTPUT"), "ip6tables nat"),
    ),
    LEGACY: (
        ("the jump goes", ("iptables-legacy", "-t", "nat", "-F", "PREROUTING"), "iptables nat"),
        (
            "a rule is put before ours",
            ("iptables-legacy", "-t", "nat", "-I", "HEADGATE_CAPTURE_IN", "-j", "ACCEPT"),
            "foreign",
        ),
    ),
}
CASES = [(backend, *one) for backend, all_of in SABOTAGES.items() for one in all_of]


@pytest.mark.parametrize(
    ("backend", "what", "command", "named"), CASES, ids=[f"{case[0].value}: {case[1]}" for case in CASES]
)
def test_what_somebody_changed_is_named_and_fixed(
    backend: Backend, what: str, command: tuple[str, ...], named: str
) -> None:
    with quiet_pod() as here:
        here.install(backend)
        assert here.headgate("diff").exit_code == 0
        here.pod.shell(*command)
        differs = here.headgate("diff")
        assert differs.exit_code == 1 and named in differs.stdout and "--fix" in differs.stderr
        fixed = here.headgate("diff", "--fix")
        assert fixed.exit_code == 0 and named in fixed.stdout and "holds what is planned again" in fixed.stderr
        assert here.headgate("diff").exit_code == 0
        assert here.pod.run(backends.held) == {backend}


def test_nothing_there_differs_and_is_put_in_force_with_the_backend_asked_for() -> None:
    with quiet_pod() as here:
        assert here.headgate("diff").exit_code == 1
        assert here.headgate("diff", "--fix", "--backend", "iptables-nft").exit_code == 0
        assert here.pod.run(backends.held) == {IPTABLES_NFT}


def test_the_return_path_is_part_of_it() -> None:
    with quiet_pod() as here:
        here.install(NFT, MODES["mark"])
        here.pod.shell("ip", "-6", "rule", "del", "pref", "32764")
        differs = here.headgate("diff", "--identity", "mark")
        assert differs.exit_code == 1 and "ip rule 32764" in differs.stdout and "IPv6" in differs.stdout
        assert here.headgate("diff", "--identity", "mark", "--fix").exit_code == 0
        assert "32764" in here.pod.shell("ip", "-6", "rule")


def test_rules_of_a_second_backend_are_named_and_go_with_the_fix() -> None:
    with quiet_pod() as here:
        here.install(NFT)
        here.restore("iptables-nft", "*nat\n:HEADGATE_OLD - [0:0]\n-A OUTPUT -j HEADGATE_OLD\nCOMMIT\n")
        differs = here.headgate("diff")
        assert differs.exit_code == 1 and "iptables-nft holds rules of ours, too" in differs.stdout
        assert here.headgate("diff", "--fix").exit_code == 0
        assert here.pod.run(backends.held) == {NFT}


def test_a_difference_of_the_wishes_is_a_difference() -> None:
    with quiet_pod() as here:
        here.install(NFT)
        differs = here.headgate("diff", "--exclude-outbound-ports", "5432")
        assert differs.exit_code == 1 and "out-capture-skip-ports" in differs.stdout


def test_rules_of_the_other_mode_are_told_from_wrong_ones() -> None:
    with quiet_pod() as here:
        here.install(NFT, MODES["mark"])
        differs = here.headgate("diff")
        assert differs.exit_code == 1 and "what is there is right for --identity mark" in differs.stderr
        assert here.headgate("diff", "--identity", "mark").exit_code == 0
        here.nft("flush chain inet headgate nat-output")
        assert "--identity mark" not in here.headgate("diff").stderr


def test_options_that_contradict_are_wrong_usage_and_name_the_option() -> None:
    with quiet_pod() as here:
        done = here.headgate("diff", "--fix", "--include-gids", "5", "--exclude-gids", "6")
        assert done.exit_code == 2 and "--" in done.stderr and "gids" in done.stderr
        assert here.pod.run(backends.held) == frozenset()


@pytest.mark.parametrize("backend", [NFT, IPTABLES_NFT])
def test_a_living_steered_connection_goes_on_through_the_fix(backend: Backend) -> None:
    with pod() as here:
        here.install(backend)
        with here.pod.run(socket.create_server, ("0.0.0.0", 15001)) as proxy:
            application = here.pod.run(socket.create_connection, (NODE4, 4000), 5)
            served, _ = proxy.accept()
            with application, served:
                _sabotage(here, backend)
                assert here.headgate("diff", "--fix").exit_code == 0
                application.sendall(b"still")
                served.settimeout(5)
                assert served.recv(5) == b"still"
                served.sendall(b"there")
                application.settimeout(5)
                assert application.recv(5) == b"there"


def _sabotage(here: Here, backend: Backend) -> None:
    if backend is NFT:
        here.pod.shell(*_NFT_RULE)
    else:
        here.pod.shell("iptables-nft", "-t", "nat", "-F", "HEADGATE_CAPTURE_OUT")
    assert here.pod.run(backends.held) == {backend} and SIDECAR.outbound_port == 15001

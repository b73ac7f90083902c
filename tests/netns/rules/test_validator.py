"""`headgate rules verify` as a validator init container: with nothing permitted, or little."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.kernel import backends
from proxy.api import stream
from tests.netns.rules.cells import listen, listening, titles
from tests.netns.rules.here import IPTABLES_NFT, NFT, Here, pod

HEADGATE = str(Path(sys.executable).parent / "headgate")


def validate(here: Here, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
    """`headgate rules verify --self` in an init container that has no capability: in the pod, as this user."""
    nobody = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    command = [
        "nsenter",
        f"--net={here.pod.path}",
        *nobody,
        HEADGATE,
        "rules",
        "verify",
        "--self",
        "-o",
        "json",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_as_the_application_alone_outbound_is_proved_and_the_rest_is_said_to_be_unknown() -> None:
    with pod() as here:
        here.install(NFT)
        done = validate(here, 65534)
    shown = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {"application to elsewhere ipv4", "application to elsewhere ipv6"} <= titles(shown, "ok")
    assert {c["sender"] for c in shown["cells"] if c["result"] == "unknown"} == {"proxy", "outside"}
    reasons = " ".join(c["reason"] for c in shown["cells"] if c["result"] == "unknown")
    assert "CAP_SETUID" in reasons and "CAP_SYS_ADMIN" in reasons


def test_where_nothing_can_be_seen_our_own_proxy_is_asked() -> None:
    with pod() as here:
        here.install(NFT)
        with listening(here, 15006, 15008), here.pod.run(listen, socket.AF_INET, "0.0.0.0", 15001) as proxy:
            answering = threading.Thread(target=_answer_proofs, args=(proxy,))
            answering.start()
            done = validate(here, 65534)
            proxy.shutdown(socket.SHUT_RDWR)
            answering.join()
    cells = {(c["name"], c["family"]): c for c in json.loads(done.stdout)["cells"] if c["sender"] == "application"}
    proved = cells["elsewhere", "ipv4"]
    assert (proved["seen"], proved["result"], proved["reason"]) == ("to 15001", "ok", "our own proxy said so")
    assert cells["elsewhere", "ipv6"]["result"] == "ok"  # nobody holds that family's port: a listener of the probe's


def _answer_proofs(proxy: socket.socket) -> None:
    """As the sidecar does."""
    while True:
        try:
            connection, _ = proxy.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                if stream.match_proof_request(connection.recv(256)):
                    connection.sendall(stream.PROOF_ANSWER)


def test_as_the_proxys_user_as_istio_runs_its_validator_the_inboundlistener_is_proved() -> None:
    with pod() as here:
        here.install(IPTABLES_NFT)
        done = validate(here, 1337, "--fail-exit-code", "126")
    shown = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {"proxy to own address ipv4", "proxy to elsewhere ipv4", "proxy to own address ipv6"} <= titles(shown, "ok")


@pytest.mark.parametrize("uid", [65534, 1337])
def test_a_validator_without_rules_ends_with_the_status_that_a_repairer_looks_for(uid: int) -> None:
    with pod() as here:
        assert here.pod.run(backends.held) == frozenset()
        done = validate(here, uid, "--fail-exit-code", "126")
    assert done.returncode == 126, done.stdout


def test_the_other_verbs_need_no_more_than_an_init_container_has() -> None:
    rights = "-all,+net_admin,+net_raw"
    user = ("--reuid=1000", "--regid=1000", "--clear-groups", f"--bounding-set={rights}", f"--inh-caps={rights}")
    with pod() as here:
        before = here.dump()["nft -a list ruleset"]

        def rules(*words: str) -> str:
            command = ("setpriv", *user, f"--ambient-caps={rights}", HEADGATE, "rules", *words)
            return here.pod.shell(*command)

        rules("show")
        assert here.dump()["iptables-legacy-save"] == ""  # looking makes none of its tables
        rules("diff", "--fix", "--backend", "nft")
        assert rules("diff") == ""
        assert "out-capture: " in rules("show")
        rules("clean")
        assert here.dump()["nft -a list ruleset"] == before

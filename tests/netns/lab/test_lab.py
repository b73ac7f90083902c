"""A lab on the real kernel: built, used, and removed without a trace, also after a crash."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.lab import namespaces, processes, state
from agent.lab.errors import LabError
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec, ServerSpec
from agent.lab.state import LabPaths

THREAD_NETNS = Path("/proc/thread-self/ns/net")


def _json(lab: Lab, url: str) -> dict[str, object]:
    answer = json.loads(lab.pod("client").run(["curl", "--silent", "--globoff", "--max-time", "5", url]).stdout)
    assert isinstance(answer, dict)
    return answer


def test_pods_reach_each_other_and_the_node_in_both_families() -> None:
    with Lab() as lab:
        web, client = lab.pod("web-v2"), lab.pod("client")
        four = _json(lab, f"http://{web.address4}:8080/")
        six = _json(lab, f"http://[{web.address6}]:8080/")
        assert (four["pod"], four["client"], four["port"]) == ("web-v2", str(client.address4), 8080)
        assert (six["pod"], six["client"]) == ("web-v2", str(client.address6))
        with lab.node.listen("10.77.0.1", 9) as listener, client.netns.connect("10.77.0.1", 9) as call:
            accepted, peer = listener.accept()
            accepted.close()
            assert peer[:2] == call.getsockname()[:2]


def test_a_service_address_is_routed_nowhere_without_a_proxy() -> None:
    with Lab() as lab:
        done = lab.pod("client").run(["curl", "-s", "--max-time", "1", "http://10.96.0.10/"], check=False)
        assert done.returncode != 0


def test_a_callable_runs_inside_and_the_caller_stays_outside(bare_lab: Lab) -> None:
    own = THREAD_NETNS.stat().st_ino
    inside = bare_lab.pod("client").call(lambda: THREAD_NETNS.stat().st_ino)
    assert inside == bare_lab.pod("client").netns.identity[1] != own
    assert THREAD_NETNS.stat().st_ino == own


def test_an_error_inside_reaches_the_caller(bare_lab: Lab) -> None:
    server = bare_lab.pod("server")
    with pytest.raises(ConnectionRefusedError):
        bare_lab.pod("client").netns.connect(server.address4, 1)
    with pytest.raises(LabError, match="exit 3: no"):
        server.run(["sh", "-c", "echo no >&2; exit 3"])


def test_addresses_are_usable_at_once_without_duplicate_address_detection(bare_lab: Lab) -> None:
    server = bare_lab.pod("server")
    shown = json.loads(server.run(["ip", "-j", "-6", "addr", "show", "dev", "eth0"]).stdout)
    assert all("tentative" not in address for address in shown[0]["addr_info"])
    with server.netns.listen(server.address6, 9):
        bare_lab.pod("client").netns.connect(server.address6, 9).close()


def test_a_pod_of_one_family_has_no_address_of_the_other() -> None:
    with Lab(LabSpec((PodSpec("four", families=(4,)), PodSpec("six", families=(6,))))) as lab:
        assert lab.pod("four").address6 is None and lab.pod("six").address4 is None
        assert "inet6" not in lab.pod("four").run(["ip", "addr"]).stdout
        assert (
            "eth0" in (six := lab.pod("six").run(["ip", "addr", "show", "dev", "eth0"]).stdout) and "inet " not in six
        )


def test_two_labs_with_equal_addresses_live_side_by_side() -> None:
    with Lab() as one, Lab() as two:
        assert one.pod("web-v1").address4 == two.pod("web-v1").address4
        one.pod("web-v1").run(["ip", "link", "set", "eth0", "down"])
        assert _json(two, f"http://{two.pod('web-v1').address4}:8080/")["pod"] == "web-v1"


def test_a_name_in_use_is_refused_and_the_lab_of_that_name_lives_on(bare_lab: Lab) -> None:
    with pytest.raises(LabError, match="is up; `headgate lab down"):
        Lab(name=bare_lab.paths.name).up()
    assert bare_lab.node.path.exists()


@pytest.mark.parametrize("name", ["a-b", "", "A", "x" * 17, "../x"])
def test_a_name_that_could_mean_another_lab_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="lab name"):
        LabPaths(name)


def test_a_server_that_does_not_start_takes_the_whole_lab_down_and_is_named() -> None:
    broken = ServerSpec("web", ("sh", "-c", "echo cannot bind; exit 1"), ports=(8080,))
    lab = Lab(LabSpec((PodSpec("a", servers=(broken,)),)))
    with pytest.raises(LabError, match=r"a\.web does not accept on 10\.77\.0\.2 port 8080:\ncannot bind"):
        lab.up()
    assert namespaces.with_prefix(lab.paths.prefix) == [] and not lab.paths.directory.exists()


def test_down_ends_every_process_inside_also_those_the_lab_did_not_start(bare_lab: Lab) -> None:
    with bare_lab.pod("client").popen(["sleep", "60"]) as stray:
        bare_lab.down()
        assert stray.wait(timeout=5) == -signal.SIGTERM
    bare_lab.down()  # once more is quiet
    assert namespaces.with_prefix(bare_lab.paths.prefix) == []


def test_what_a_killed_owner_left_is_found_and_removed() -> None:
    code = (
        "import sys, time; from agent.lab.node import Lab; lab = Lab(); lab.up();"
        "print(lab.paths.name, lab._children['web-v1.web'].pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        name, server_pid = owner.stdout.readline().split()
        paths, server = LabPaths(name), processes.identify(int(server_pid))
        assert name not in state.remove_abandoned(), "its owner lives"
        owner.kill()
    assert processes.alive(server) and paths.exists()
    assert name in state.remove_abandoned()
    assert not processes.alive(server) and not paths.exists()


def test_labels_and_objects_are_replaced_in_one_step_for_agent_and_proxy(bare_lab: Lab) -> None:
    bare_lab.set_label("server", "headgate.io/mesh", "disabled")
    pod = bare_lab.config_directory / "pod-server.yaml"
    assert "headgate.io/mesh: disabled" in pod.read_text()
    assert "headgate.io/mesh: disabled" in bare_lab.pods_file.read_text()
    bare_lab.set_label("server", "headgate.io/mesh", None)
    assert "disabled" not in pod.read_text() + bare_lab.pods_file.read_text()
    bare_lab.write_object("extra", "addresses: ['@server.address4@']")
    assert (bare_lab.config_directory / "extra.yaml").read_text() == "addresses: ['10.77.0.3']"
    assert not list(bare_lab.config_directory.glob(".*")), "nothing half-written is left"
    bare_lab.remove_object("extra")
    assert not (bare_lab.config_directory / "extra.yaml").exists()

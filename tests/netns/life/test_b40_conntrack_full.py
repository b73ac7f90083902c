"""B40: the pod's conntrack table is full: the agent goes on and says why, new connections fail closed, old ones live.

The same under load: tests/netns/faults/test_conntrack_full.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.kernel import conntrack
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life.full_table import FullTable
from tests.netns.life.talk import Echo, Talk, address


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server", labels=(("headgate.io/mesh", "disabled"),))))) as made:
        made.start()
        yield made


def test_b40_full_conntrack_table_fails_new_connections_closed_and_says_why(lab: Lab) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, 4)
    with ExitStack() as stack, Echo(server) as echo, Talk(client, to) as steered:
        steered.says()
        assert steered.steered_to() == 15001
        full = stack.enter_context(FullTable(client))
        table = client.call(conntrack.table)
        assert table.is_full and table.entries == table.limit
        callers = len(echo.callers)
        with pytest.raises(TimeoutError):
            client.netns.connect(to, 9000, timeout_s=0.5)
        assert len(echo.callers) == callers, "nothing went past the mesh"
        assert client.call(conntrack.table).dropped > table.dropped

        verified = lab.agent_get("/pods/default/client/verify", method="POST", timeout_s=20)
        assert verified["state"] == "installed" and verified["conntrack_full"] is True
        assert re.search(r"conntrack table of the pod's namespace is full \(\d+ of \d+ entries", lab.log("agent"))
        assert _metric(lab) == "1.0"
        (event,) = [e for e in lab.agent_get("/events")["items"] if e["reason"] == "ConntrackTableFull"]
        assert "raise net.netfilter.nf_conntrack_max" in event["message"]
        steered.says()  # who has an entry keeps it
        assert _doctor(lab) == (1, "serious", "pod default/client")

        full.make_room()
        lab.wait_proved("client")
        lab.agent_get("/pods/default/client/verify", method="POST", timeout_s=20)  # else within a minute
        assert _metric(lab) == "0.0"
        assert "has room again" in lab.log("agent")
        with Talk(client, to) as again:
            again.says()
            assert again.steered_to() == 15001


def _metric(lab: Lab) -> str:
    page = lab.node.run(["curl", "-sf", "http://127.0.0.1:15014/metrics"]).stdout
    found = re.search(r'^headgate_conntrack_full\{namespace="default",pod="client"\} (\S+)$', page, re.MULTILINE)
    return found[1] if found else ""


def _doctor(lab: Lab) -> tuple[int, str, str]:
    """Exit status, severity and place of the one finding about conntrack."""
    words = ["doctor", "--run-dir", str(lab.run_directory), "--only", "conntrack", "-o", "json"]
    done = CliRunner().invoke(main, words)
    (finding,) = json.loads(done.stdout)["findings"]
    return done.exit_code, finding["severity"], finding["where"]

"""Tens of thousands of connections to one address and port, as fast as they are answered, one request each.

Which side ends a connection decides whose port waits in TIME-WAIT, so both are measured: 30,000 that the server ends
are more than the 28,232 ports that a client has by default (Linux, ip_local_port_range), 25,000 that the client ends
are fewer. Kernel limits and time-outs are the defaults, and so are the ports, except those of clients that end first:
to find a free port among 25,000 that wait takes the kernel 2 ms a connect(2), with or without a proxy. As HTTP,
where the proxy keeps its connections to the server, and as opaque TCP, where it opens and ends one for each.
"""

from collections.abc import Callable
from typing import Any, Final

from agent.lab.load import Ends, Shape
from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec, ServerSpec
from tests.bench import testbed
from tests.bench.results import Fact
from tests.bench.rows import WEB

CONNECTIONS: Final = 16
"""At once, by one thread: it is the proxy's delay that is to be seen, not that of a turn among many."""
TIMEOUT_S: Final = 120.0
_P999_BOUND_MS: Final = 200.0
_RUNS: Final = (
    ("http", "server", 80, Ends.SERVER, 30_000),
    ("http", "client", 80, Ends.CLIENT, 25_000),
    ("tcp", "server", 9000, Ends.SERVER, 30_000),
    ("tcp", "client", 9000, Ends.CLIENT, 25_000),
)

Say = Callable[[str], None]


def measure(say: Say) -> tuple[Fact, ...]:
    """Two figures a run. Raises LabError."""
    facts: list[Fact] = []
    with Lab(_spec()) as lab:
        for protocol, side, *_ in _RUNS:
            if side == "client":
                lab.pod(f"client-{protocol}-{side}").netns.write_sysctl(*testbed.MORE_PORTS)
        lab.start_proxy(*testbed.ONE_WORKER)
        lab.start_agent()
        lab.wait_ready()
        lab.wait_proved()
        for protocol, side, port, ends, number in _RUNS:
            say(f"{number} {protocol} connections that the {side} ends first")
            found = _run(lab, f"client-{protocol}-{side}", port, ends, number)
            what = f"{number:,} {protocol} connections to one address, {side} closing first"
            key = f"{protocol}_{side}_first"
            facts += [
                Fact(f"{key}_errors", f"{what}: errors", found["failed"] + number - found["sent"], "", 0),
                Fact(f"{key}_connect_ms", f"{what}: connect p99.9", found["connect_ns"]["p99.9"] / 1e6, "ms",
                     _P999_BOUND_MS),
            ]  # fmt: skip
    return tuple(facts)


def _run(lab: Lab, pod: str, port: int, ends: Ends, number: int) -> dict[str, Any]:
    with RunningLoad(
        lab.pod(pod),
        [f"http://{WEB}:{port}/"],
        connections=CONNECTIONS,
        seconds=TIMEOUT_S,
        requests=number,
        shape=Shape(ends),
    ) as load:
        found: dict[str, Any] = load.result(timeout_s=2 * TIMEOUT_S)["all"]
    return found


def _spec() -> LabSpec:
    """A client pod for each run: the ports of the one before it are waiting still."""
    clients = tuple(PodSpec(f"client-{protocol}-{side}") for protocol, side, _, _, _ in _RUNS)
    near = PodSpec("server-headgate", labels=(("app", "near"),))
    return LabSpec((*clients, near, server_pod("server")), (testbed.CONF / "connections.yaml",))


def server_pod(name: str) -> PodSpec:
    """nginx outside the mesh, as behind every row, on no particular core."""
    text = (testbed.CONF / "server.conf").read_text(encoding="utf-8")
    files = (("server.conf", text), ("large", "x"))
    server = ServerSpec("server", ("nginx", "-p", "@directory@", "-c", "server.conf"), files, (8080, 8081))
    return PodSpec(name, labels=(("app", "server"), ("headgate.io/mesh", "disabled")), servers=(server,))

"""Every way in which the rules may be there: three backends, and the proxy known by its mark or by its owner."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from agent.kernel import backends
from agent.kernel.backends import Backend
from agent.lab.node import LabPod
from agent.plan import PlanSettings, ProbeSettings, RedirectPlan
from agent.plan.build import plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners, Steering

PROXY_UID: Final = 1337
SECOND_PROXY_UID: Final = 1338
PROXY_GID: Final = 2102
OWNERS: Final = Owners(Ranges.of((PROXY_UID, SECOND_PROXY_UID)), Ranges.of(PROXY_GID))


@dataclass(frozen=True, slots=True)
class Setup:
    """`init`: the proxy is a user of the pod's (a sidecar); else it is known by the mark of its sockets (a node's).
    `probes`: the node gives its own connections an address."""

    backend: Backend
    init: bool
    probes: bool = False

    def __str__(self) -> str:
        return f"{self.backend.value}-{'init' if self.init else 'node'}"

    @property
    def settings(self) -> PlanSettings:
        probes = ProbeSettings() if self.probes else None
        return PlanSettings(owners=OWNERS) if self.init else PlanSettings(probes=probes)

    def plan(self, steering: Steering) -> RedirectPlan:
        return plan_of(steering, self.settings)

    @contextmanager
    def applied(self, pod: LabPod, steering: Steering) -> Iterator[RedirectPlan]:
        """The rules are in force meanwhile, and leave nothing behind."""
        plan = self.plan(steering)
        before = holdings(pod)
        try:
            pod.call(backends.install, plan, self.settings, self.backend)
            assert pod.call(backends.in_force, plan, self.backend)
            yield plan
        finally:
            pod.call(backends.remove, plan, self.backend)
        assert holdings(pod) == before


_IDLE: Final = re.compile(r"#|\*|COMMIT|:[A-Z]+ ACCEPT ")

SETUPS: Final = tuple(Setup(backend, init) for init in (False, True) for backend in Backend)
NODE_SETUPS: Final = tuple(setup for setup in SETUPS if not setup.init)
PROBED_SETUPS: Final = tuple(Setup(setup.backend, init=False, probes=True) for setup in NODE_SETUPS)
INIT_SETUPS: Final = tuple(setup for setup in SETUPS if setup.init)


def holdings(pod: LabPod) -> list[str]:
    """All that rules could have changed in the pod's namespace. A table of iptables-legacy, once used, is there for
    good: empty and accepting, it is as good as none."""
    commands = (
        ["nft", "list", "ruleset"],
        ["ip", "-4", "rule"],
        ["ip", "-6", "rule"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "-o", "addr", "show", "dev", "lo"],
    )
    legacy = [pod.run([f"{tool}-legacy-save"]).stdout for tool in ("iptables", "ip6tables")]
    return [*(pod.run(command).stdout for command in commands), *map(_rules_of, legacy)]


def _rules_of(save: str) -> str:
    return "\n".join(line for line in save.splitlines() if not _IDLE.match(line))

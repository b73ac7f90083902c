"""Sequences of snapshots as a supervisor makes them: what does not change from one to the next is the same object."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from proxy.model.address import SocketAddress
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    Endpoint,
    HttpRule,
    InboundPort,
    MissingBackend,
    Protocol,
    RetryPolicy,
    ServiceName,
    ServicePort,
    WeightedBackend,
)
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import Workload
from proxy.policy.refs import NOTHING

ONCE = RetryPolicy(1, frozenset(), 0.5)


def workload(name: str, version: str = "v1", labels: int = 1) -> Workload:
    pairs = tuple((f"label-{number}", version) for number in range(labels))
    return Workload("default", name, name, "default", name, version, name, version, pairs, (f"10.1.0.{name}",))


def service_name(name: str) -> ServiceName:
    return ServiceName("default", name, f"{name}.default.svc.cluster.local")


@dataclass
class World:
    """`chance` decides what happens next; a few names, so that they come, go and come again."""

    chance: Random
    widest: int = 6
    workloads: dict[str, Workload] = field(default_factory=dict)
    former: list[Any] = field(default_factory=list)
    snapshot: PolicySnapshot = NOTHING

    def next(self) -> PolicySnapshot:
        maps: list[dict[Any, Any] | Mapping[Any, Any]] = []
        now = self.snapshot
        self._change_workloads()
        for known, make in ((now.services, self._service), (now.inbound, self._inbound)):
            made = dict(known)
            for _ in range(self.chance.randrange(4)):
                key = SocketAddress(f"10.96.0.{self.chance.randrange(4)}", 80)
                if self.chance.random() < 0.3:
                    made.pop(key, None)
                elif self.former and self.chance.random() < 0.3:
                    # An object that was let go comes back as the same object.
                    back = [one for one in self.former if isinstance(one, ServicePort) is (known is now.services)]
                    if back:
                        made[key] = self.chance.choice(back)
                else:
                    made[key] = make()
            maps.append(made if made != known else known)
        self.former += [*now.services.values(), *now.inbound.values()]
        self.snapshot = PolicySnapshot(
            now.generation + self.chance.randrange(1, 3),
            maps[0],
            {owner.addresses[0]: owner for owner in self.workloads.values()},
            {("default", name): owner for name, owner in self.workloads.items()},
            maps[1],
            (),
        )
        return self.snapshot

    def _change_workloads(self) -> None:
        for _ in range(self.chance.randrange(3)):
            name = str(self.chance.randrange(5))
            if self.chance.random() < 0.3:
                self.workloads.pop(name, None)
            else:
                self.workloads[name] = workload(name, f"v{self.chance.randrange(3)}")

    def _inbound(self) -> InboundPort:
        return InboundPort(service_name("in"), self.chance.choice(list(Protocol)))

    def _backend(self, subset: str) -> Backend | MissingBackend:
        if self.chance.random() < 0.2:
            return MissingBackend(service_name("none"), 80, subset, "no such Service")
        wanted = self.chance.randrange(self.widest)
        known = [*self.workloads.values(), workload("stranger")]
        lent = self._lent(subset)
        fresh = tuple(Endpoint(SocketAddress(f"10.1.0.{n}", 80), self.chance.choice(known)) for n in range(wanted))
        cut = self.chance.randrange(len(lent) + 1)
        return Backend(service_name("web"), 80, subset, (*lent[:cut], *fresh, *lent[cut + 1 :]))

    def _lent(self, subset: str) -> tuple[Endpoint, ...]:
        for port in self.snapshot.services.values():
            for rule in port.rules:
                for one in rule.backends:
                    if isinstance(one.backend, Backend) and one.backend.subset == subset:
                        return one.backend.endpoints
        return ()

    def _service(self) -> ServicePort:
        everything = self._backend("")
        whole = everything if isinstance(everything, Backend) else Backend(everything.service, 80, "", ())
        rules = tuple(
            HttpRule(
                f"rule-{number}",
                tuple(WeightedBackend(n, self._backend(f"v{n}")) for n in range(1, self.chance.randrange(2, 4))),
                self.chance.choice((DEFAULT_RETRY, ONCE)),
            )
            for number in range(self.chance.randrange(1, 3))
        )
        refused = self.chance.choice(("", "VirtualService default/web is rejected"))
        return ServicePort(service_name("web"), 80, self.chance.choice(list(Protocol)), whole, rules, refused)


def unchanged(before: PolicySnapshot, after: PolicySnapshot) -> list[tuple[str, object]]:
    """Keys that hold the same object in both, by the name of their map."""
    return [
        (name, key)
        for name in ("services", "workloads", "pods", "inbound")
        for key, value in getattr(after, name).items()
        if getattr(before, name).get(key) is value
    ]


def without_rejections(snapshot: PolicySnapshot) -> PolicySnapshot:
    return replace(snapshot, rejections=())

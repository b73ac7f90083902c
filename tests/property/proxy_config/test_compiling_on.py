"""A compiler that goes on from generation to generation says what one that begins afresh would say, and what no change
touched stays the same object."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api.stream import ObjectGone, ObjectName, ObjectSeen
from proxy.config.compile import PolicyCompiler, compile_policy
from proxy.config.object_table import ObjectTable
from proxy.model.snapshot import PolicySnapshot

NAMES = ("a", "b", "c")
CORE, DISCOVERY, ISTIO = "", "discovery.k8s.io", "networking.istio.io"


class Cluster:
    """Objects that come, change and go; some are malformed, some claim what is another's."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.table = ObjectTable()
        self.table.finish()

    def change(self) -> None:
        makers = (self._service, self._slice, self._slice, self._pod, self._pod, self._rule, self._route, self._route)
        group, kind, body = self.chance.choice(makers)()
        name = str(body["metadata"]["name"])  # type: ignore[index]
        if self.chance.random() < 0.2:
            self.table.drop(ObjectGone(ObjectName(group, kind, "default", name)))
            return
        version = f"{group}/v1" if group else "v1"
        self.table.put(ObjectSeen({"apiVersion": version, "kind": kind, **body}))

    def begin_anew(self) -> None:
        """A stream that breaks off, and tells of less the next time."""
        self.table.begin()
        for _ in range(6):
            self.change()
        self.table.finish()

    def _name(self) -> str:
        return self.chance.choice(NAMES)

    def _weight(self) -> object:
        return self.chance.choice((0, 10, 50, 90, "ninety"))

    def _service(self) -> tuple[str, str, dict[str, object]]:
        name = self._name()
        ports = [{"name": "http", "port": self.chance.choice((80, 81))}]
        if self.chance.random() < 0.3:
            ports.append({"name": "tcp-x", "port": self.chance.choice((90, 0))})
        addresses = [f"10.96.0.{self.chance.randrange(1, 4)}", "fd96::1"][: self.chance.randrange(1, 3)]
        return CORE, "Service", {"metadata": {"name": name}, "spec": {"clusterIPs": addresses, "ports": ports}}

    def _slice(self) -> tuple[str, str, dict[str, object]]:
        owner = self._name()
        endpoints = [
            {
                "addresses": [f"10.1.0.{number}"],
                "conditions": {"ready": self.chance.random() < 0.7, "terminating": self.chance.random() < 0.2},
                **({"targetRef": {"kind": "Pod", "name": f"pod-{number}"}} if self.chance.random() < 0.7 else {}),
            }
            for number in range(1, 5)
            if self.chance.random() < 0.6
        ]
        return (
            DISCOVERY,
            "EndpointSlice",
            {
                "metadata": {
                    "name": f"slice-{self.chance.randrange(3)}",
                    "labels": {"kubernetes.io/service-name": owner},
                },
                "addressType": self.chance.choice(("IPv4", "IPv4", "IPv4", "IPv6")),
                "ports": [{"name": self.chance.choice(("http", "tcp-x")), "port": 8080}],
                "endpoints": endpoints,
            },
        )

    def _pod(self) -> tuple[str, str, dict[str, object]]:
        number = self.chance.randrange(1, 5)
        metadata: dict[str, object] = {
            "name": f"pod-{number}",
            "labels": {"version": self.chance.choice(("v1", "v2"))},
            "creationTimestamp": f"2026-01-0{self.chance.randrange(1, 4)}T00:00:00Z",
            "annotations": {"headgate.io/workers": self.chance.choice(("1", "2", "many"))},
        }
        address = f"10.1.0.{self.chance.choice((number, number, self.chance.randrange(1, 5)))}"
        phase = self.chance.choice(("Running", "Running", "Succeeded"))
        return CORE, "Pod", {"metadata": metadata, "status": {"phase": phase, "podIPs": [{"ip": address}]}}

    def _rule(self) -> tuple[str, str, dict[str, object]]:
        subsets = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2") if self.chance.random() < 0.8]
        host = self.chance.choice((*NAMES, "a.b"))
        spec: dict[str, object] = {"host": host, "subsets": subsets}
        if self.chance.random() < 0.1:
            spec["unknown"] = 1
        return ISTIO, "DestinationRule", {"metadata": {"name": self._name()}, "spec": spec}

    def _route(self) -> tuple[str, str, dict[str, object]]:
        split = [
            {"destination": {"host": self.chance.choice((*NAMES, "nobody")), "subset": v}, "weight": self._weight()}
            for v in ("v1", "v2")
        ]
        spec = {"hosts": [self.chance.choice((*NAMES, "*", "nobody"))], "http": [{"route": split}]}
        return ISTIO, "VirtualService", {"metadata": {"name": self._name()}, "spec": spec}


def parts(policy: PolicySnapshot) -> dict[object, object]:
    """An address that passes from one Service to another is another place: its endpoints are that Service's."""
    found: dict[object, object] = {}
    for name in ("services", "workloads", "pods", "inbound"):
        found |= {(name, key): value for key, value in getattr(policy, name).items()}
    for key, port in policy.services.items():
        found["endpoints", port.service.host, key] = port.all_endpoints
        found |= {("endpoint", port.service.host, key, one.address): one for one in port.all_endpoints.endpoints}
    return found


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_compiling_on_is_as_good_as_compiling_afresh_and_keeps_what_stays(chance: Random) -> None:
    cluster, going_on = Cluster(chance), PolicyCompiler()
    before: PolicySnapshot | None = None
    for _ in range(12):
        for _ in range(chance.randrange(1, 5)):
            cluster.change()
        if chance.random() < 0.1:
            cluster.begin_anew()
        objects = cluster.table.objects()
        now = going_on.compile(objects)
        afresh = compile_policy(objects, None)
        for name in ("services", "workloads", "pods", "inbound", "hot_pods", "rejections"):
            assert getattr(now, name) == getattr(afresh, name), name
        if before is not None:
            assert now is before or now.generation == before.generation + 1
            known = parts(before)
            for place, value in parts(now).items():
                assert value is known.get(place) or value != known.get(place), place
        before = now


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_objects_came_says_nothing(chance: Random) -> None:
    cluster = Cluster(chance)
    for _ in range(30):
        cluster.change()
    objects = cluster.table.objects()
    shuffled = list(objects.admitted.items())
    chance.shuffle(shuffled)
    one, other = compile_policy(objects, None), compile_policy(type(objects)(dict(shuffled), ()), None)
    for name in ("services", "workloads", "pods", "inbound", "hot_pods", "rejections"):
        assert getattr(one, name) == getattr(other, name), name

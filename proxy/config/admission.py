"""Which objects are in force: decoded if they can be, else in their last good version, else not at all."""

from collections.abc import Callable, Iterable
from typing import Final

from proxy.config import istio, kubernetes
from proxy.config.fields import InvalidPolicy, Node
from proxy.config.objects import Admitted, Decoded, ObjectKey, ObjectSet, RawObject, RefusedRoute
from proxy.config.text import printable
from proxy.model.snapshot import Rejection

_ISTIO_VERSIONS: Final = frozenset({"v1", "v1beta1", "v1alpha3"})

_Decoder = Callable[[Node, RawObject], Decoded]
_DECODERS: Final[dict[tuple[str, str], tuple[frozenset[str], _Decoder]]] = {
    ("", "Service"): (frozenset({"v1"}), lambda node, raw: kubernetes.decode_service(node, raw.key)),
    ("", "Pod"): (frozenset({"v1"}), lambda node, raw: kubernetes.decode_pod(node, raw.key, raw.created)),
    ("", "Namespace"): (frozenset({"v1"}), lambda node, raw: kubernetes.decode_namespace(node, raw.key)),
    ("discovery.k8s.io", "EndpointSlice"): (
        frozenset({"v1"}),
        lambda node, raw: kubernetes.decode_endpoint_slice(node, raw.key),
    ),
    ("networking.istio.io", "VirtualService"): (_ISTIO_VERSIONS, istio.decode_virtual_service),
    ("networking.istio.io", "DestinationRule"): (_ISTIO_VERSIONS, istio.decode_destination_rule),
}

_POLICY_GROUPS: Final = (
    *("networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"),
    *("gateway.networking.k8s.io", "policy.linkerd.io", "linkerd.io"),
    *("split.smi-spec.io", "specs.smi-spec.io", "access.smi-spec.io"),
)
"""An unknown kind in these is policy that would not be carried out: rejected. In any other group it is none of ours."""


def admit(
    raws: Iterable[RawObject], problems: tuple[Rejection, ...] = (), previous: ObjectSet | None = None
) -> ObjectSet:
    """Decide on every object; of several with one key the first counts and the others are reported.

    `previous` is what was in force before: an unchanged object (the same RawObject) is not decoded again, and a
    malformed one keeps the last version that was good. Never raises.
    """
    before = {} if previous is None else previous.admitted
    admitted: dict[ObjectKey, Admitted] = {}
    duplicates = []
    for raw in raws:
        if raw.key in admitted:
            duplicates.append(_duplicate(raw, admitted[raw.key].raw))
            continue
        known = before.get(raw.key)
        if known is not None and known.raw is raw:
            admitted[raw.key] = known
            continue
        verdict = decide(raw, known)
        if verdict is not None:
            admitted[raw.key] = verdict
    return ObjectSet(admitted, (*problems, *duplicates))


def rejection_of(invalid: InvalidPolicy, source: str, stale: bool = False) -> Rejection:
    return Rejection(invalid.owner, invalid.field, invalid.reason, stale, invalid.remedy, printable(source))


def decide(raw: RawObject, known: Admitted | None) -> Admitted | None:
    """What is in force of an object, `known` being its version before; None for one that is none of ours."""
    found = _DECODERS.get((raw.key.group, raw.key.kind))
    if found is None and raw.key.group not in _POLICY_GROUPS:
        return None
    node = Node(raw.body, "", str(raw.key))
    try:
        if found is None:
            raise InvalidPolicy(str(raw.key), "kind", f"{raw.key.kind} is not supported by this version")
        versions, decode = found
        if raw.version not in versions:
            wanted = " or ".join(sorted(versions))
            raise InvalidPolicy(
                str(raw.key), "apiVersion", f"version {raw.version} is not supported", f"write it as {wanted}"
            )
        return Admitted(raw, decode(node, raw), None)
    except InvalidPolicy as invalid:
        good = known.value if known is not None and not isinstance(known.value, RefusedRoute) else None
        rejection = rejection_of(invalid, raw.source, stale=good is not None)
        if good is None and raw.key.kind == "VirtualService":
            return Admitted(raw, istio.refused_route(raw, invalid), rejection)
        return Admitted(raw, good, rejection)


def _duplicate(raw: RawObject, first: RawObject) -> Rejection:
    reason = f"is there already: {first.source} defines it too, and counts"
    return Rejection(str(raw.key), "metadata.name", printable(reason), False, "remove one", printable(raw.source))

"""agent.pods: what a pod may be called, and which pods are enrolled."""

from ipaddress import ip_address

import pytest

from agent.pods import InvalidPod, NetnsId, PodRef, Proof, Proofs, ProofStatus, sorted_pairs, wants_mesh

OK = Proof(ProofStatus.OK)
ABSENT = Proof(ProofStatus.ABSENT, "the pod has no IPv6 address")
FAILED = Proof(ProofStatus.FAILED, "nobody listens on 15001")


def pod(**changes: object) -> PodRef:
    fields: dict[str, object] = {"uid": "u-1", "namespace": "default", "name": "web"}
    return PodRef(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uid", ""),
        ("uid", "a/b"),
        ("uid", "x" * 129),
        ("namespace", "Default"),
        ("namespace", "a.b"),
        ("namespace", "x" * 64),
        ("name", "-web"),
        ("name", "web\n"),
        ("name", "web; drop table"),
        ("name", "x" * 254),
        ("service_account", ""),
        ("service_account", 'a"b'),
    ],
)
def test_a_name_that_kubernetes_would_refuse_is_refused_with_its_field(field: str, value: str) -> None:
    with pytest.raises(InvalidPod) as refused:
        pod(**{field: value})
    assert refused.value.field == field
    assert len(str(refused.value)) < 250


def test_names_that_kubernetes_allows_are_allowed() -> None:
    assert str(pod(namespace="a-1", name="web.v1-0", uid="6ba7b810-9dad-11d1-80b4-00c04fd430c8")) == "a-1/web.v1-0"


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({}, True),
        ({"headgate.io/mesh": "enabled"}, True),
        ({"headgate.io/mesh": "disabled"}, False),
        ({"headgate.io/mesh": "Disabled"}, True),
        ({"headgate.io/mesh": "off"}, True),
        ({"other/mesh": "disabled"}, True),
    ],
)
def test_only_the_exact_label_keeps_a_pod_out(labels: dict[str, str], wanted: bool) -> None:
    assert wants_mesh(pod(labels=sorted_pairs(labels.items()))) is wanted


def test_labels_in_another_order_are_the_same_pod() -> None:
    assert pod(labels=sorted_pairs([("b", "2"), ("a", "1")])) == pod(labels=sorted_pairs([("a", "1"), ("b", "2")]))


def test_label_and_annotation_are_found_by_key() -> None:
    one = pod(labels=(("app", "web"),), annotations=(("note", "x"),), addresses=(ip_address("10.0.0.5"),))
    assert (one.label("app"), one.label("none"), one.annotation("note"), one.annotation("app")) == (
        "web",
        None,
        "x",
        None,
    )


def test_a_netns_is_written_as_device_and_inode() -> None:
    assert str(NetnsId(4, 4026532000)) == "4:4026532000"


@pytest.mark.parametrize(
    ("proofs", "hold"),
    [
        (Proofs(OK, OK, OK, OK), True),
        (Proofs(OK, ABSENT, OK, ABSENT), True),
        (Proofs(ABSENT, OK, ABSENT, OK), True),
        (Proofs(OK, FAILED, OK, OK), False),
        (Proofs(ABSENT, ABSENT, OK, OK), False),  # nothing says that outbound works
        (Proofs(ABSENT, ABSENT, ABSENT, ABSENT), False),
    ],
)
def test_proofs_hold_when_none_failed_and_each_direction_has_one(proofs: Proofs, hold: bool) -> None:
    assert proofs.hold is hold


def test_failures_name_the_proof_and_the_reason() -> None:
    assert Proofs(OK, ABSENT, FAILED, OK).failures == ("in4: nobody listens on 15001",)

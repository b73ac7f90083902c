"""Objects that are streamed: complete or not, begun anew, malformed, gone."""

from proxy.api.stream import ObjectGone, ObjectName, ObjectSeen
from proxy.config.compile import compile_policy
from proxy.config.manifest import documents
from proxy.config.object_table import MAX_PROBLEMS, ObjectTable
from tests.unit.proxy_config.samples import MESH, REVIEWS, VIP, compiled, shares, split

ROUTE = ObjectGone(ObjectName("networking.istio.io", "VirtualService", "default", "reviews"))


def put(table: ObjectTable, *texts: str) -> None:
    for text in texts:
        for document in documents(text):
            assert isinstance(document.value, dict)
            table.put(ObjectSeen(document.value))


def told(*texts: str) -> ObjectTable:
    table = ObjectTable()
    table.begin()
    put(table, *texts)
    table.finish()
    return table


def test_objects_of_a_stream_amount_to_what_the_same_files_do() -> None:
    policy = compile_policy(told(*MESH, split(90, 10)).objects(), None)
    assert policy == compiled(*MESH, split(90, 10))


def test_it_is_complete_only_once_everything_was_told_and_not_while_it_is_told_again() -> None:
    table = ObjectTable()
    assert not table.complete
    table.begin()
    put(table, *MESH)
    assert not table.complete
    table.finish()
    assert table.complete
    table.begin()
    assert not table.complete


def test_what_a_new_beginning_does_not_name_stays_until_its_end_and_is_gone_then() -> None:
    table = told(*MESH, split(90, 10))
    table.begin()
    put(table, *MESH)
    assert shares(compile_policy(table.objects(), None).services[VIP]) == [("v1", 90), ("v2", 10)]
    table.finish()
    assert shares(compile_policy(table.objects(), None).services[VIP]) == [("", 1)]


def test_a_beginning_that_breaks_off_takes_nothing_away() -> None:
    table = told(*MESH, split(90, 10))
    table.begin()
    put(table, REVIEWS)
    table.begin()
    put(table, *MESH, split(90, 10))
    table.finish()
    assert compile_policy(table.objects(), None) == compiled(*MESH, split(90, 10))


def test_an_object_that_goes_while_everything_is_told_again_is_gone_at_its_end() -> None:
    table = told(*MESH, split(90, 10))
    table.begin()
    put(table, *MESH, split(90, 10))
    table.drop(ROUTE)
    table.finish()
    assert shares(compile_policy(table.objects(), None).services[VIP]) == [("", 1)]


def test_a_malformed_version_keeps_the_last_good_one_and_says_so() -> None:
    table = told(*MESH, split(90, 10))
    first = compile_policy(table.objects(), None)
    put(table, split("ninety", 10))
    second = compile_policy(table.objects(), first)
    assert second.services[VIP] is first.services[VIP]
    assert [(one.object, one.stale) for one in second.rejections] == [("VirtualService default/reviews", True)]
    assert second.rejections[0].source == "object stream"


def test_last_good_versions_outlive_a_new_beginning() -> None:
    """The agent restarts while an object is malformed: this proxy knew it when it was good."""
    table = told(*MESH, split(90, 10))
    table.begin()
    put(table, *MESH, split("ninety", 10))
    table.finish()
    policy = compile_policy(table.objects(), None)
    assert shares(policy.services[VIP]) == [("v1", 90), ("v2", 10)]
    assert [one.stale for one in policy.rejections] == [True]


def test_a_newer_version_that_says_the_same_is_no_change() -> None:
    """A pod's status changes every minute."""
    table = told(*MESH)
    first = compile_policy(table.objects(), None)
    put(table, *(text.replace("status: {", "status: {startTime: now, ") for text in MESH))
    assert compile_policy(table.objects(), first) is first


def test_objects_without_a_usable_name_are_listed_within_a_bound_until_the_next_beginning() -> None:
    table = told(*MESH)
    for number in range(MAX_PROBLEMS + 10):
        table.put(ObjectSeen({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"NO {number}"}}))
    table.put(ObjectSeen({"kind": 5}))
    policy = compile_policy(table.objects(), None)
    assert len(policy.rejections) == MAX_PROBLEMS
    assert policy.services == compiled(*MESH).services
    table.begin()
    put(table, *MESH)
    table.finish()
    assert compile_policy(table.objects(), None).rejections == ()


def test_gone_is_gone_whatever_is_known_of_it() -> None:
    table = told(*MESH, split(90, 10))
    table.drop(ROUTE)
    table.drop(ROUTE)
    table.drop(ObjectGone(ObjectName("", "Pod", "", "reviews-v1")))
    policy = compile_policy(table.objects(), None)
    assert shares(policy.services[VIP]) == [("", 1)]
    assert ("default", "reviews-v1") not in policy.pods

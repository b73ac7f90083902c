"""The pods file: what it may say, and what is said of what it may not."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pods import PodRef
from agent.sources.pods_file import InvalidPodsFile, ListedPod, derived_uid, parse_pods

RUN = Path("/run/netns")


def problems(text: str) -> list[str]:
    return [str(problem) for problem in parse_pods(text, RUN)[1]]


def test_entry_with_every_field() -> None:
    text = """
    pods:
      - name: web
        namespace: shop
        uid: 6f2c
        service_account: seller
        netns: /var/run/netns/cni-1
        addresses: [10.0.0.5, "fd00::5"]
        labels: {b: "2", a: "1"}
        annotations: {headgate.io/exclude-outbound-ports: "5432"}
    """
    pod = PodRef(
        uid="6f2c",
        namespace="shop",
        name="web",
        service_account="seller",
        addresses=(ip_address("10.0.0.5"), ip_address("fd00::5")),
        labels=(("a", "1"), ("b", "2")),
        annotations=(("headgate.io/exclude-outbound-ports", "5432"),),
    )
    assert parse_pods(text, RUN) == ((ListedPod(pod, "/var/run/netns/cni-1"),), ())


def test_defaults_of_a_short_entry() -> None:
    (listed,), _ = parse_pods("pods: [{name: web, netns: web}]", RUN)
    assert listed == ListedPod(
        PodRef(derived_uid("default", "web", "/run/netns/web"), "default", "web", "default"), "/run/netns/web"
    )


def test_derived_uid_is_the_same_in_every_process_and_differs_by_each_part() -> None:
    assert derived_uid("default", "web", "/run/netns/web") == "983a79d1-2a74-59c5-bb5d-e986239c5261"
    uids = {derived_uid(*parts) for parts in [("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x")]}
    assert len(uids) == 4


@pytest.mark.parametrize("text", ["", "pods:", "pods: []", "{}"])
def test_empty_file_lists_no_pods(text: str) -> None:
    assert parse_pods(text, RUN) == ((), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pods: [", "no YAML: .*line 2"),
        ("- web", "one key: `pods`"),
        ("pods: {}\nmore: 1", "one key: `pods`"),
        ("pods: 5", "pods: must be a list"),
        ("a: &a [*a]\npods: []", "one key"),
        ("pods: !!python/object/apply:os.system [true]", "no YAML"),
    ],
)
def test_file_that_makes_no_list_is_refused_whole(text: str, said: str) -> None:
    with pytest.raises(InvalidPodsFile, match=said):
        parse_pods(text, RUN)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("web", "pod 1: entry: must be a mapping"),
        ("{netns: web}", "pod 1: name: is required"),
        ("{name: web}", "pod 1 (default/web): netns: is required"),
        ("{name: 5, netns: web}", "pod 1: name: must be text, is int; quote it"),
        ("{name: Web, netns: web}", "pod 1 (default/Web): name: 'Web' is not a DNS name"),
        ("{name: web, netns: ../../etc}", "netns: '../../etc' is neither a name under /run/netns nor an absolute path"),
        ("{name: web, netns: ..}", "netns: '..' is neither"),
        ('{name: web, netns: "/a\\0b"}', "netns: a path holds no NUL"),
        ("{name: web, netns: web, address: 10.0.0.5}", "pod 1 (default/web): address: unknown field"),
        ("{name: web, netns: web, addresses: 10.0.0.5}", "addresses: must be a list"),
        ("{name: web, netns: web, addresses: [10.0.0.500]}", "addresses: '10.0.0.500' is no IP address"),
        ("{name: web, netns: web, addresses: [10.0.0.5/24]}", "addresses: '10.0.0.5/24' is no IP address"),
        ("{name: web, netns: web, addresses: [5]}", "addresses: '5' is no IP address"),
        ("{name: web, netns: web, labels: [a]}", "labels: must be a mapping"),
        ("{name: web, netns: web, labels: {a: true}}", "labels: 'a': key and value must be text; quote them"),
        ('{name: web, netns: web, uid: "a b"}', "uid: 'a b' is not a uid"),
        ('{name: "a\\e[2J", netns: web}', "pod 1 (default/a\\x1b[2J): name:"),
    ],
)
def test_wrong_entry_is_named_by_position_name_and_field(entry: str, said: str) -> None:
    (problem,) = problems(f"pods: [{entry}]")
    assert said in problem
    assert problem.isprintable()


def test_wrong_entry_costs_that_entry_only() -> None:
    pods, wrong = parse_pods("pods: [{name: a, netns: a}, {name: b}, {name: c, netns: c}]", RUN)
    assert [listed.pod.name for listed in pods] == ["a", "c"]
    assert [problem.key for problem in wrong] == ["default/b"]


def test_two_pods_share_neither_uid_nor_namespace() -> None:
    text = "pods: [{name: a, netns: a, uid: u}, {name: b, netns: b, uid: u}, {name: c, netns: a}]"
    assert problems(text) == [
        "pod 2 (default/b): uid: is default/a's already",
        "pod 3 (default/c): netns: is default/a's already; two pods cannot share one set of rules",
    ]


@given(st.text(max_size=300))
def test_hostile_text_is_parsed_or_refused(text: str) -> None:
    try:
        _, wrong = parse_pods(text, RUN)
    except InvalidPodsFile as error:
        assert str(error).isprintable()
    else:
        assert all(str(problem).isprintable() for problem in wrong)

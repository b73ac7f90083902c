"""From which address an application is called, by how the proxy stands in its pod."""

import pytest

from proxy.datapath.standing import NODE, CallFrom, Standing, parse

CLIENT, PASSTHROUGH, POD = CallFrom.CLIENT, CallFrom.PASSTHROUGH, CallFrom.POD
APPLICATION, OTHER = "10.0.0.5", "10.0.0.9"
APPLICATION6, OTHER6 = "fd00::5", "fd00::9"


def sidecar(way: CallFrom, *, marks: bool = False) -> Standing:
    return Standing(own_netns=True, marks=marks, from4=way, from6=way)


def test_a_nodes_proxy_speaks_as_its_clients_and_plainly_for_the_pod_itself() -> None:
    assert NODE.source(OTHER, APPLICATION) == OTHER
    assert NODE.source(OTHER6, APPLICATION6) == OTHER6
    assert NODE.source(APPLICATION, APPLICATION) is None


def test_where_the_rules_go_by_user_a_transparent_call_for_the_pod_itself_is_marked_too() -> None:
    """Unmarked it would be taken for a call of the own pod through a Service, and led back."""
    assert sidecar(CLIENT).source(APPLICATION, APPLICATION) == APPLICATION
    assert sidecar(CLIENT, marks=True).source(APPLICATION, APPLICATION) is None


def test_without_transparency_every_client_has_the_passthrough_address() -> None:
    for client in (OTHER, APPLICATION):
        assert sidecar(PASSTHROUGH).source(client, APPLICATION) == "127.0.0.6"
    for client in (OTHER6, APPLICATION6):
        assert sidecar(PASSTHROUGH).source(client, APPLICATION6) == "::6"


def test_with_the_pods_own_address_what_may_be_itself_is_told_apart() -> None:
    assert sidecar(POD).source(OTHER6, APPLICATION6) is None
    assert sidecar(POD).source(APPLICATION6, APPLICATION6) == "::6"


def test_each_family_stands_for_itself() -> None:
    mixed = Standing(own_netns=True, marks=False, from4=PASSTHROUGH, from6=CLIENT)
    assert mixed.source(OTHER, APPLICATION) == "127.0.0.6"
    assert mixed.source(OTHER6, APPLICATION6) == OTHER6
    assert (mixed.transparent(ipv6=False), mixed.transparent(ipv6=True)) == (False, True)


@pytest.mark.parametrize("way", list(CallFrom))
@pytest.mark.parametrize("marks", [False, True])
def test_a_worker_reads_what_the_supervisor_wrote(way: CallFrom, marks: bool) -> None:
    for standing in (NODE, sidecar(way, marks=marks), Standing(True, marks, way, POD)):
        assert parse(standing.words()) == standing


@pytest.mark.parametrize("words", ["", "own,1,client", "own,1,client,nobody", "own,1,client,pod,more"])
def test_other_words_are_no_standing(words: str) -> None:
    with pytest.raises(ValueError):
        parse(words)

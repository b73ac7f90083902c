"""What sockets, conntrack and the proxy say of the same connection becomes one row, and nothing is told twice."""

from ipaddress import ip_address

import pytest

from agent.connections.join import CUT, QUEUED
from agent.connections.values import Path, Reason, Way
from tests.unit.agent.connections.described import POD, Pod, commands, ends

APP = f"{POD}:4000 > 10.96.0.10:80"
DOWN = f"127.0.0.1:15001 > {POD}:4000"
UP = f"{POD}:5000 > 10.0.0.9:8080"


@pytest.fixture
def pod() -> Pod:
    return Pod()


def steered_out(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.holds(DOWN, "headgate")
    pod.holds(UP, "headgate", proxys=True)
    pod.flow(APP, DOWN)
    pod.flow(UP, zone=1)


# ── The proxy's word ───────────────────────────────────────────────────────────────────────────────────────────────
def test_a_steered_connection_out_is_one_row_of_three_sockets(pod: Pod) -> None:
    steered_out(pod)
    pod.tells(Way.OUTBOUND, Path.HTTP, "10.96.0.10:80", f"{POD}:4000", "127.0.0.1:15001", UP)
    one = pod.only()
    assert (one.way, one.path, ends(one), one.listener) == (Way.OUTBOUND, Path.HTTP, APP, 15001)
    assert commands(one) == ("curl", None)
    assert one.upstream == (ip_address("10.0.0.9"), 8080) and one.upstream_from == (ip_address(POD), 5000)
    assert (one.service, one.route, one.age_s, one.worker) == ("web.shop.svc.cluster.local", "default", 3.0, 2)
    assert one.steered and not one.unsteered and one.reason is None


def test_b38_conntrack_shows_the_proxy_another_port_of_the_client(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.holds(f"127.0.0.1:15001 > {POD}:1234", "headgate")
    pod.flow(APP, f"127.0.0.1:15001 > {POD}:1234")
    pod.tells(Way.OUTBOUND, Path.TCP, "10.96.0.10:80", f"{POD}:1234", "127.0.0.1:15001")
    one = pod.only()
    assert ends(one) == APP and commands(one) == ("curl", None)


def test_a_steered_connection_in_names_the_application_that_serves_it(pod: Pod) -> None:
    client, application = f"{POD}:15006 > 10.0.0.7:4000", f"{POD}:80 > 10.0.0.7:5000"
    pod.serves(f"{POD}:80", "nginx")
    pod.holds(client, "headgate")
    pod.holds(f"10.0.0.7:5000 > {POD}:80", "headgate", proxys=True)
    pod.holds(application, "nginx")
    pod.flow(f"10.0.0.7:4000 > {POD}:80", client)
    pod.flow(f"10.0.0.7:5000 > {POD}:80", zone=1)
    pod.tells(Way.INBOUND, Path.HTTP, f"{POD}:80", "10.0.0.7:4000", f"{POD}:15006", f"10.0.0.7:5000 > {POD}:80")
    one = pod.only()
    assert (one.way, ends(one)) == (Way.INBOUND, f"10.0.0.7:4000 > {POD}:80")
    assert commands(one) == (None, "nginx")


def test_the_proxys_port_towards_the_application_may_be_its_clients_own(pod: Pod) -> None:
    """Two entries of one original tuple, in two zones; the application sees a third port."""
    pod.holds(f"{POD}:15006 > 10.0.0.7:4000", "headgate")
    pod.holds(f"10.0.0.7:4000 > {POD}:80", "headgate", proxys=True)
    pod.holds(f"{POD}:80 > 10.0.0.7:999", "nginx")
    pod.flow(f"10.0.0.7:4000 > {POD}:80", f"{POD}:15006 > 10.0.0.7:4000")
    pod.flow(f"10.0.0.7:4000 > {POD}:80", f"{POD}:80 > 10.0.0.7:999", zone=1)
    pod.tells(Way.INBOUND, Path.TCP, f"{POD}:80", "10.0.0.7:4000", f"{POD}:15006", f"10.0.0.7:4000 > {POD}:80")
    one = pod.only()
    assert commands(one) == (None, "nginx") and one.path is Path.TCP


def test_between_two_requests_the_destination_is_who_listens_there(pod: Pod) -> None:
    pod.serves("0.0.0.0:80", "nginx")
    pod.holds(f"{POD}:15006 > 10.0.0.7:4000", "headgate")
    pod.tells(Way.INBOUND, Path.HTTP, f"{POD}:80", "10.0.0.7:4000", f"{POD}:15006")
    assert commands(pod.only()) == (None, "nginx")


def test_an_idle_connection_and_the_application_that_holds_its_end_are_one_row(pod: Pod) -> None:
    pod.serves(f"{POD}:80", "nginx")
    pod.holds(f"10.0.0.7:5000 > {POD}:80", "headgate", proxys=True)
    pod.holds(f"{POD}:80 > 10.0.0.7:5000", "nginx")
    pod.tells(Way.INBOUND, Path.IDLE, f"{POD}:80", upstream=f"10.0.0.7:5000 > {POD}:80")
    one = pod.only()
    assert (one.path, commands(one)) == (Path.IDLE, ("headgate", "nginx"))


def test_what_the_proxy_tells_and_the_kernel_has_not_is_not_told(pod: Pod) -> None:
    """It is younger than the reading of the sockets, or has ended since."""
    pod.tells(Way.OUTBOUND, Path.HTTP, "10.96.0.10:80", f"{POD}:4000", "127.0.0.1:15001", UP)
    pod.tells(Way.OUTBOUND, Path.IDLE, "10.0.0.9:8080", upstream=UP)
    assert pod.tcp() == []


def test_a_pod_that_calls_itself_by_a_service_is_one_row_with_both_processes(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.holds(DOWN, "headgate")
    pod.holds(f"{POD}:5000 > {POD}:8080", "headgate", proxys=True)
    pod.holds(f"{POD}:8080 > {POD}:5000", "nginx")
    pod.flow(APP, DOWN)
    pod.tells(Way.OUTBOUND, Path.TCP, "10.96.0.10:80", f"{POD}:4000", "127.0.0.1:15001", f"{POD}:5000 > {POD}:8080")
    assert ends(pod.only()) == APP


# ── Conntrack's ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_without_the_proxys_word_a_redirect_is_told_as_such_and_its_other_half_as_the_proxys(pod: Pod) -> None:
    steered_out(pod)
    by_path = {one.path: one for one in pod.tcp()}
    assert by_path.keys() == {Path.REDIRECT, Path.PROXY}
    led, own = by_path[Path.REDIRECT], by_path[Path.PROXY]
    assert (ends(led), led.listener, commands(led), led.steered) == (APP, 15001, ("curl", None), True)
    assert (ends(own), own.way) == (UP, Way.OUTBOUND)


@pytest.mark.parametrize("marked", [True, False], ids=["by its mark", "by its port"])
def test_where_conntrack_is_not_told_the_proxys_sockets_are_known_all_the_same(pod: Pod, marked: bool) -> None:
    """Who has no CAP_NET_ADMIN reads neither conntrack nor marks."""
    socket = UP if marked else DOWN
    pod.holds(socket, "headgate", proxys=marked)
    assert pod.only().path is Path.PROXY


def test_linkerds_listener_is_known_by_its_port_and_its_proxy_by_the_process(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.holds(f"127.0.0.1:4140 > {POD}:4000", "linkerd2-proxy")
    pod.holds(UP, "linkerd2-proxy")
    pod.flow(APP, f"127.0.0.1:4140 > {POD}:4000")
    pod.flow(UP)
    by_path = {one.path: one for one in pod.tcp()}
    assert by_path[Path.REDIRECT].listener == 4140
    assert ends(by_path[Path.PROXY]) == UP


def test_a_server_that_somebody_redirects_to_is_not_taken_for_a_proxy(pod: Pod) -> None:
    pod.serves("0.0.0.0:8080", "tomcat")
    pod.holds(f"{POD}:8080 > 10.0.0.7:4000", "tomcat")
    pod.holds(UP, "tomcat")
    pod.flow(f"10.0.0.7:4000 > {POD}:80", f"{POD}:8080 > 10.0.0.7:4000")
    pod.flow(UP)
    by_path = {one.path: one for one in pod.tcp()}
    assert by_path[Path.REDIRECT].listener == 8080 and by_path[Path.REDIRECT].way is Way.INBOUND
    assert ends(by_path[Path.DIRECT]) == UP


def test_a_connection_whose_proxy_was_killed_is_told_as_cut(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.flow(APP, DOWN)
    one = pod.only()
    assert (one.path, one.listener, one.why) == (Path.REDIRECT, 15001, CUT)


def test_a_connection_that_waits_in_the_listeners_queue_is_told_so(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.holds(DOWN, None)
    pod.flow(APP, DOWN)
    assert pod.only().why == QUEUED


def test_a_proxys_end_that_is_closed_waits_in_no_queue(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.holds(DOWN, None, state="fin-wait-2")
    pod.flow(APP, DOWN)
    assert pod.only().why == CUT


def test_a_translation_to_elsewhere_goes_direct_and_names_where_it_went(pod: Pod) -> None:
    pod.holds(APP, "curl")
    pod.flow(APP, f"10.0.0.9:8080 > {POD}:4000")
    one = pod.only()
    assert (one.path, ends(one), one.upstream) == (Path.DIRECT, APP, (ip_address("10.0.0.9"), 8080))


def test_conntracks_time_is_the_age_where_it_keeps_it(pod: Pod) -> None:
    pod.holds(UP)
    pod.flow(UP, since_s=940.0)
    assert pod.only().age_s == 60.0


# ── Sockets alone ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_two_ends_that_face_each_other_are_one_row_of_who_opened_it(pod: Pod) -> None:
    pod.serves("127.0.0.1:6379", "redis")
    pod.holds("127.0.0.1:6379 > 127.0.0.1:4000", "redis")
    pod.holds("127.0.0.1:4000 > 127.0.0.1:6379", "app")
    one = pod.only()
    assert (ends(one), commands(one)) == ("127.0.0.1:4000 > 127.0.0.1:6379", ("app", "redis"))
    assert (one.way, one.reason, one.unsteered) == (Way.LOCAL, Reason.LOOPBACK, False)


@pytest.mark.parametrize("known", [True, False], ids=["by conntrack", "by who listens"])
def test_who_opened_what_goes_direct(pod: Pod, known: bool) -> None:
    pod.serves(f"{POD}:80", "nginx")
    pod.holds(UP, "curl")
    pod.holds(f"{POD}:80 > 10.0.0.7:4000", "nginx")
    if known:
        pod.flow(UP)
        pod.flow(f"10.0.0.7:4000 > {POD}:80")
    assert {(one.way, ends(one)) for one in pod.tcp()} == {
        (Way.OUTBOUND, UP),
        (Way.INBOUND, f"10.0.0.7:4000 > {POD}:80"),
    }
    assert all(one.reason is None for one in pod.tcp()), "still to be found"
    assert {one.at_least_s for one in pod.tcp()} == {5.0}


def test_a_port_that_is_listened_on_may_be_called_from_too(pod: Pod) -> None:
    """conntrack's word is worth more than the listeners'."""
    pod.serves(f"{POD}:5000", "nginx")
    pod.holds(UP, "curl")
    pod.flow(UP)
    assert pod.only().way is Way.OUTBOUND

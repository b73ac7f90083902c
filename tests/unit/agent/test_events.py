"""agent.events: one event a pod, reason and minute, in a bounded ring, with Kubernetes' fields."""

from agent.events import MESSAGE_CHARACTERS, Events, EventType, PodEvent, Reason, event_list
from agent.pods import PodRef

WEB = PodRef("u-1", "default", "web")
CART = PodRef("u-2", "shop", "cart")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Scene:
    def __init__(self, capacity: int = 100) -> None:
        self.clock = Clock()
        self.events = Events(self.clock, capacity)

    def drift(self, after_s: float = 0.0, pod: PodRef = WEB, message: str = "gone") -> PodEvent:
        self.clock.now_s += after_s
        return self.events.record(pod, EventType.WARNING, Reason.DRIFTED, message)


def test_what_happens_again_within_a_minute_is_counted() -> None:
    scene = Scene()
    scene.drift()
    scene.drift(30, message="swapped")
    event = scene.drift(29.5)
    assert scene.events.all() == (event,)
    assert (event.count, event.message) == (3, "gone")
    assert event.last_s - event.first_s == 59.5


def test_a_minute_later_it_is_another_event() -> None:
    scene = Scene()
    first = scene.drift()
    second = scene.drift(60)
    third = scene.drift(1)
    assert scene.events.all() == (first, third)
    assert (second.count, third.count) == (1, 2)


def test_another_reason_and_another_pod_are_events_of_their_own() -> None:
    scene = Scene()
    drifted, other = scene.drift(), scene.drift(1, CART)
    scene.clock.now_s += 1
    healed = scene.events.record(WEB, EventType.NORMAL, Reason.HEALED, "in force again")
    assert scene.events.all() == (drifted, other, healed)
    assert scene.events.all("default", "web") == (drifted, healed)
    assert scene.events.all("shop", "web") == ()


def test_a_pod_made_anew_under_its_name_is_another() -> None:
    scene = Scene()
    scene.drift()
    scene.drift(1, PodRef("u-9", "default", "web"))
    assert [event.count for event in scene.events.all("default", "web")] == [1, 1]


def test_the_newest_seen_comes_last() -> None:
    scene = Scene()
    scene.drift()
    scene.drift(1, CART)
    scene.drift(1)
    assert [event.pod for event in scene.events.all()] == ["cart", "web"]


def test_the_oldest_go_when_there_is_no_more_room_and_do_not_come_back() -> None:
    scene = Scene(capacity=3)
    pods = [PodRef(f"u-{number}", "default", f"p{number}") for number in range(5)]
    for pod in pods:
        scene.drift(1, pod)
    assert [event.pod for event in scene.events.all()] == ["p2", "p3", "p4"]
    again = scene.drift(1, pods[0])
    assert again.count == 1
    assert [event.pod for event in scene.events.all()] == ["p3", "p4", "p0"]


def test_a_clock_that_goes_back_begins_a_new_event() -> None:
    scene = Scene()
    scene.drift()
    assert scene.drift(-100).count == 1


def test_a_hostile_message_is_made_printable_and_cut() -> None:
    event = Scene().drift(message="\x1b[2J" + "x" * 5000)
    assert event.message.isprintable() and len(event.message) == MESSAGE_CHARACTERS


def test_fields_are_those_of_kubernetes() -> None:
    scene = Scene()
    scene.drift()
    scene.drift(1.9)
    (item,) = event_list(scene.events.all())["items"]
    assert item == {
        "apiVersion": "v1",
        "kind": "Event",
        "type": "Warning",
        "reason": "RedirectionDrifted",
        "message": "gone",
        "count": 2,
        "firstTimestamp": "2023-11-14T22:13:20Z",
        "lastTimestamp": "2023-11-14T22:13:21Z",
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "uid": "u-1"},
        "source": {"component": "headgate-agent"},
    }

"""Shorthand for the stories of a pod's life."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from agent.pods import NetnsId, PodRef, Proof, Proofs, ProofStatus
from agent.reconcile import Action, Event, Life, LifeSettings, Seen, begin, step
from agent.reconcile.life import Acked, Held, Inspected, Inspection, Installed, ProofsTaken

SETTINGS = LifeSettings(drain_s=1.0, drain_poll_s=0.5)
ADDRESS = ip_address("10.0.0.5")
POD = PodRef("u-1", "default", "web", addresses=(ADDRESS,))
NETNS = NetnsId(4, 100)
SEEN = Seen(POD, "/run/netns/web", NETNS)
DISABLED = replace(SEEN, pod=replace(POD, labels=(("headgate.io/mesh", "disabled"),)))
FOUND = Inspected(Inspection((ip_address("127.0.0.1"), ADDRESS)))
ADOPTED = Inspected(replace(FOUND.inspection, held=Held.RULES))
DRAINING = Inspected(replace(FOUND.inspection, held=Held.DRAIN_FORM))

OK = Proof(ProofStatus.OK)
PROVED = ProofsTaken(Proofs(OK, OK, OK, OK))
UNPROVED = ProofsTaken(Proofs(OK, OK, Proof(ProofStatus.FAILED, "no report"), OK))


@dataclass
class Story:
    """A life told event by event; `did` is every action so far."""

    life: Life
    did: list[Action] = field(default_factory=list)
    last: tuple[Action, ...] = ()

    def hears(self, *events: Event) -> "Story":
        for event in events:
            self.life, self.last = step(self.life, event, SETTINGS)
            self.did.extend(self.last)
        return self

    @property
    def state(self) -> str:
        return self.life.state.value


def told(seen: Seen = SEEN) -> Story:
    life, actions = begin(seen, SETTINGS)
    return Story(life, list(actions), actions)


def enrolled(seen: Seen = SEEN) -> Story:
    """A pod that is proved."""
    return told(seen).hears(FOUND, Acked(), Installed(), PROVED)

"""A pod's life: (life, event) -> (life, actions). The agent's decisions, and the only owner of a pod's state. No IO."""

from agent.reconcile.life import Action, Event, Life, LifeSettings, Seen, State
from agent.reconcile.telling import Telling, telling
from agent.reconcile.transitions import begin, step

__all__ = [
    "Action",
    "Event",
    "Life",
    "LifeSettings",
    "Seen",
    "State",
    "Telling",
    "begin",
    "step",
    "telling",
]

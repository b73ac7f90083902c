"""The agent's shell: events in, decisions by agent.reconcile, actions out by agent.kernel and agent.handoff."""

from agent.supervisor.service import serve

__all__ = ["serve"]

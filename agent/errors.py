"""What ends the agent before it has begun."""


class CannotStart(Exception):
    """The agent cannot run as it was asked to. The message says what to change; unchanged, it fails again."""

"""Why nothing was changed."""


class Refused(ValueError):
    """A pod that cannot be what it asks to be. `field`: which part of it, `reason`: what and the remedy. The same pod
    is refused again: do not retry."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class CannotEdit(ValueError):
    """Text that means what is expected and is written so that it cannot be changed in place. `line` from 1; whoever
    wrote it must write it plainer."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason

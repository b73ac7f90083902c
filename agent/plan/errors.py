"""Why no plan can be made."""


class InvalidPlan(ValueError):
    """No plan can be made: `field` names the setting or annotation, `reason` what is wrong. Do not retry unchanged."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

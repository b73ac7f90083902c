"""What goes wrong with a lab, told to the person who asked for it."""


class LabError(Exception):
    """The lab cannot do what was asked; the text names what, where and the remedy. Retry only after that remedy."""

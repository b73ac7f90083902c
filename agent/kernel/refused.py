"""How the kernel's refusals are told."""


class KernelRefused(Exception):
    """The kernel, or the library that speaks to it, did not do what was asked.

    `command` is what was attempted, `stderr` the kernel's or the library's own words with the failing line, `remedy`
    what to look at next. Nothing was half-applied. May be retried once the remedy was followed; the same command on
    the same kernel is refused again.
    """

    def __init__(self, command: str, stderr: str, remedy: str) -> None:
        super().__init__(f"{command}: {stderr} ({remedy})")
        self.command = command
        self.stderr = stderr
        self.remedy = remedy

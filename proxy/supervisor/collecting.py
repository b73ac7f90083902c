"""Python's collector of cycles, around a policy of a million objects that has none (library/gc.html)."""

import gc
from typing import Final

_USUAL: Final = gc.get_threshold()
_LOADING: Final = (20_000, 10, 1_000)
"""Each full collection walks over all that has come so far: the policy of 10,000 Services and 50,000 endpoints took 7.3
to 9.4 s of CPU (five runs), with these 5.4 to 6.7 (four), with none at all 5.3 to 6.1 (three)."""


def begin_loading() -> None:
    gc.set_threshold(*_LOADING)


def loaded() -> None:
    """What is there now is walked over no more, by no collection of what comes and goes: half a second each, while
    nothing else is done. What replaces it is let go by its count of references, as it would be anyway."""
    gc.freeze()
    gc.set_threshold(*_USUAL)

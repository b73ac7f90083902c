"""Which workers serve a pod, and in which order it moves. Pure: no process is asked here."""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b


def place(uid: str, workers: Collection[int], number: int = 1) -> tuple[int, ...]:
    """The `number` of `workers` that serve a pod, its home first; all of them where there are fewer.

    Rendezvous hashing (Thaler and Ravishankar, 1998): each worker has its own score for each pod, and the highest
    serve. So one worker less moves only what it had, one more takes only what it will have, and another `number`
    keeps those that stay.
    """
    ordered = sorted(
        workers, key=lambda index: blake2b(f"{index} {uid}".encode(), digest_size=8).digest(), reverse=True
    )
    return tuple(ordered[:number])


@dataclass(frozen=True, slots=True)
class Move:
    """What to tell workers now about one pod: who is to open its listeners, who is to accept no more."""

    serve: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


def next_move(wanted: Collection[int], asked: Collection[int], serving: Collection[int]) -> Move:
    """From where a pod is accepted to where it should be, without an instant when nobody accepts.

    `asked` were handed the listeners, `serving` are those of them that said they accept. New ones open first; the
    others release only when all of `wanted` serve. Asked again after each answer and each death until it is `Move()`.
    """
    missing = tuple(index for index in wanted if index not in asked)
    if missing or not all(index in serving for index in wanted):
        return Move(missing)
    return Move(release=tuple(index for index in asked if index not in wanted))

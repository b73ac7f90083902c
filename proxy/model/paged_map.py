"""A mapping that never changes, and whose changed successor costs what changed, not what there is."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, overload

_PAGES: Final = 256
"""A page of 20,000 keys has 78: copied in 2 µs, where a dict of all takes 0.5 ms and 0.2 ms more to be freed. A look-up
costs a call and a hash more, some 0.2 µs, a few times a connection and not at all a request."""

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class PagedMap(Mapping[K, V]):
    """Keys by hash on pages; a successor shares the pages on which nothing changed. Made by `Draft.done`."""

    __slots__ = ("_length", "_pages")

    def __init__(self, pages: tuple[dict[K, V], ...] = ({},) * _PAGES, length: int = 0) -> None:
        self._pages = pages
        self._length = length

    def __getitem__(self, key: K) -> V:
        return self._pages[hash(key) % _PAGES][key]

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        return self._pages[hash(key) % _PAGES].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._pages[hash(key) % _PAGES]

    def __iter__(self) -> Iterator[K]:
        return (key for page in self._pages for key in page)

    def __len__(self) -> int:
        return self._length


class Draft(Generic[K, V]):
    """A successor in the making. The map that it began with stays as it is, and so does the one that was done."""

    __slots__ = ("_length", "_own", "_pages")

    def __init__(self, base: PagedMap[K, V]) -> None:
        self._pages = list(base._pages)
        self._length = len(base)
        self._own: set[int] = set()

    def put(self, key: K, value: V) -> None:
        page = self._page(key)
        self._length += key not in page
        page[key] = value

    def drop(self, key: K) -> None:
        """A key that is not there is no error."""
        self._length -= self._page(key).pop(key, None) is not None

    def done(self) -> PagedMap[K, V]:
        self._own.clear()
        return PagedMap(tuple(self._pages), self._length)

    def _page(self, key: K) -> dict[K, V]:
        number = hash(key) % _PAGES
        if number not in self._own:
            self._own.add(number)
            self._pages[number] = self._pages[number].copy()
        return self._pages[number]

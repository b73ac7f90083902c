"""Names of users and groups -> numbers, from the text of passwd(5) and group(5).

Never through NSS: a container's nsswitch.conf may lead a look-up into a network that is not there yet (istio #48416),
and what a rule holds must be what the container's own files say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.plan.words import ID_MAX, items, shown

_NAME, _ID = 0, 2  # fields of both files
_LEAST_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class Accounts:
    """Users' and groups' ids by name. Made by `of`."""

    users: Mapping[str, int]
    groups: Mapping[str, int]

    @classmethod
    def of(cls, passwd: str, group: str) -> "Accounts":
        """Lines that are none of these files' are passed over, as getpwnam(3) does; the first of a name counts."""
        return cls(_ids(passwd), _ids(group))

    def user_ids(self, text: str) -> str:
        """A list of names, numbers and ranges with every name replaced by its number, for `agent.plan.words.parse_ids`.
        ValueError shows the name that is not known."""
        return _numbered(text, self.users, "user", "/etc/passwd")

    def group_ids(self, text: str) -> str:
        """As `user_ids`, of groups."""
        return _numbered(text, self.groups, "group", "/etc/group")


NOBODY: Final = Accounts({}, {})


def _ids(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if line.startswith("#") or len(fields) < _LEAST_FIELDS or not fields[_NAME]:
            continue
        number = fields[_ID]
        if number.isascii() and number.isdigit() and len(number) <= len(str(ID_MAX)) and int(number) <= ID_MAX:
            found.setdefault(fields[_NAME], int(number))
    return found


def _numbered(text: str, known: Mapping[str, int], what: str, file: str) -> str:
    return ",".join(_number(item, known, what, file) for item in items(text))


def _number(item: str, known: Mapping[str, int], what: str, file: str) -> str:
    if item in known:
        return str(known[item])
    if item[0].isdigit():
        return item
    raise ValueError(f"{shown(item)} is no {what} of {file}: give the number, or add the {what} to the image")

"""What the second archive holds beyond the first, as a third: usage: tar_difference.py LESS MORE DIFFERENCE

Members are the same when kind, rights, owner, link and content are; of directories and links the header alone tells.
"""

import hashlib
import sys
import tarfile
from collections.abc import Iterator


def main(less: str, more: str, difference: str) -> None:
    with tarfile.open(less) as archive:
        there = set(_members(archive))
    with tarfile.open(more) as archive, tarfile.open(difference, "w") as out:
        told = zip(archive.getmembers(), list(_members(archive)), strict=True)
        for member in (member for member, one in told if one not in there):
            out.addfile(member, archive.extractfile(member) if member.isfile() else None)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[object, ...]]:
    for member in archive.getmembers():
        content = archive.extractfile(member) if member.isfile() else None
        digest = hashlib.sha256(content.read()).digest() if content else b""
        yield member.name, member.type, member.mode, member.uid, member.gid, member.linkname, digest


if __name__ == "__main__":
    main(*sys.argv[1:])

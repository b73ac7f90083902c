"""Images made here, for no registry is needed: one of busybox alone, and one that is nothing but the places at which a
container finds this machine's own programs."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Final

NAME: Final = "localhost/busybox:1"
HERE: Final = "localhost/here:1"
"""Its /usr is whatever is mounted there."""
_BUSYBOX: Final = Path("/bin/busybox")
_APPLETS: Final = ("sh", "sleep", "httpd", "wget", "nc")
_MERGED: Final = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin", "var/run": "/run"}
_DIRECTORIES: Final = ("usr", "etc", "run", "tmp", "var", "host")


def write(path: Path) -> None:
    """Both, as `docker save` lays them out, which `ctr images import` takes."""
    images = ((NAME, _busybox(), ["/bin/busybox", "sleep", "100000"]), (HERE, _here(), ["/bin/false"]))
    listed = []
    with tarfile.open(path, "w") as archive:
        for name, layer, entrypoint in images:
            digest = hashlib.sha256(layer).hexdigest()
            config = _config(digest, entrypoint)
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(archive, config_name, config)
            _add(archive, f"{digest}/layer.tar", layer)
            listed.append({"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]})
        _add(archive, "manifest.json", json.dumps(listed).encode())


def _config(digest: str, entrypoint: list[str]) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()


def _here() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _DIRECTORIES:
            made = tarfile.TarInfo(name)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(made)
        for name, target in _MERGED.items():
            _link(archive, name, target)
    return buffer.getvalue()


def _busybox() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "bin/busybox", _BUSYBOX.read_bytes(), 0o755)
        for applet in _APPLETS:
            _link(archive, f"bin/{applet}", "busybox")
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    archive.addfile(link)

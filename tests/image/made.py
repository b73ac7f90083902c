"""The image as `make image` left it, and what it holds, unpacked."""

import configparser
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

DIRECTORY: Final = Path("build/image")
TARGET: Final = os.environ.get("HEADGATE_IMAGE_TARGET", "headgate")
_TAG: Final = "" if TARGET == "headgate" else f"-{TARGET}"


@dataclass(frozen=True, slots=True)
class Made:
    """`archive`: as `docker load` and `ctr images import` take it. `config`: its OCI configuration."""

    archive: Path
    name: str
    config: dict[str, Any]
    layers: tuple[str, ...]

    def sbom(self, of: str) -> dict[str, Any]:
        name = f"{self.archive.name.removesuffix('.tar')}.{of}.cdx.json"
        found: dict[str, Any] = json.loads(self.archive.with_name(name).read_text())
        return found

    def unpack(self, directory: Path) -> Path:
        """As a runtime does it, layer by layer."""
        directory.chmod(0o755)
        for layer in self.layers:
            with tarfile.open(self.archive) as outer, NamedTemporaryFile() as inner:
                content = outer.extractfile(layer)
                assert content is not None
                shutil.copyfileobj(content, inner)
                inner.flush()
                subprocess.run(["tar", "-C", str(directory), "-xf", inner.name], check=True)
        return directory


@cache
def made() -> Made:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read("setup.cfg")
    archive = DIRECTORY / f"headgate-{setup['metadata']['version']}{_TAG}.tar"
    with tarfile.open(archive) as outer:
        (manifest,) = _json(outer, "manifest.json")
        config = _json(outer, manifest["Config"])
    return Made(archive, manifest["RepoTags"][0], config, tuple(manifest["Layers"]))


def _json(archive: tarfile.TarFile, name: str) -> Any:
    content = archive.extractfile(name)
    assert content is not None
    return json.load(content)


def run_in(root: Path, *command: str, uid: int = 1337) -> str:
    """What it prints, in namespaces of its own, without a network; as the sidecar's user where nothing else is said."""
    own = ["unshare", "--net", "--pid", "--fork", f"--mount-proc={root}/proc"]
    entered = [*own, "chroot", f"--userspec={uid}:{uid}", str(root), *command]
    environment = {"PATH": "/opt/headgate/bin:/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8"}
    ended = subprocess.run(entered, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout

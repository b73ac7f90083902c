"""The directory that container runtimes take the network's configuration from."""

import json
from pathlib import Path
from typing import Any, Final

from agent.doctor.facts import CniDirectory, CniFile

DIRECTORY: Final = Path("/etc/cni/net.d")
_SUFFIXES: Final = frozenset({".conf", ".conflist", ".json"})  # containerd go-cni, cri-o ocicni
_LARGEST_BYTES: Final = 1 << 20
_PLUGINS_AT_MOST: Final = 64


def directory(path: Path = DIRECTORY) -> CniDirectory:
    """Raises OSError when it cannot be listed; a file that cannot be read is told in the result."""
    names = sorted(entry.name for entry in path.iterdir() if entry.suffix in _SUFFIXES and entry.is_file())
    return CniDirectory(str(path), tuple(_file(path / name) for name in names))


def _file(path: Path) -> CniFile:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return CniFile(path.name, problem=f"larger than {_LARGEST_BYTES} bytes")
        body = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        return CniFile(path.name, problem=f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return CniFile(path.name, problem=f"no JSON: {error}")
    if not isinstance(body, dict):
        return CniFile(path.name, problem="no JSON object")
    listed = body.get("plugins") if path.suffix == ".conflist" else [body]
    types = tuple(_type(plugin) for plugin in listed[:_PLUGINS_AT_MOST]) if isinstance(listed, list) else ()
    if not types or None in types:
        return CniFile(path.name, problem="names no plugin, or one without a type")
    return CniFile(path.name, str(body.get("name", "")), tuple(str(kind) for kind in types))


def _type(plugin: Any) -> str | None:
    kind = plugin.get("type") if isinstance(plugin, dict) else None
    return kind if isinstance(kind, str) and kind else None

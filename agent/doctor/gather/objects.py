"""The objects of a directory of YAML, as agent and proxy take them (agent.sources.objects)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent.doctor.declared import Declared, declared
from agent.doctor.findings import Unseen
from agent.sources.manifests import objects_in
from agent.sources.objects import MAX_FILE_BYTES
from proxy.api.stream import ObjectName

_SUFFIXES: Final = (".yaml", ".yml")


def read(directory: Path) -> tuple[Declared, tuple[Unseen, ...]]:
    """The first file by name counts where two hold the same object. Raises OSError when the directory cannot be
    listed; a file that cannot be used is told."""
    found: dict[ObjectName, Mapping[str, Any]] = {}
    unseen: list[Unseen] = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(_SUFFIXES) or not path.is_file():
            continue
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
            for name, body in objects_in(path.read_text("utf-8-sig")):
                found.setdefault(name, body)
        except (OSError, ValueError, RecursionError) as error:
            unseen.append(Unseen("objects", f"file {path}", str(error)))
    return declared(found.items()), tuple(unseen)

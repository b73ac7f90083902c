"""A CNI network configuration list, with our plugin as its last one, and without. Pure.

Everything else in it stays as it is, unknown keys too: it is another's file.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from agent.printable import printable

PLUGIN: Final = "headgate-cni"
_SUFFIXES: Final = (".conf", ".conflist", ".json")
"""What libcni takes for a configuration (libcni/conf.go, ConfFiles as containerd and cri-o call it)."""


_OF_LIST: Final = ("cniVersion", "name")
"""Of a single plugin's configuration, what the list takes over."""


class BadConflist(ValueError):
    """A file that is no CNI configuration; the message says why. Whoever wrote it must change it."""


@dataclass(frozen=True, slots=True)
class Chained:
    """Our entry in it. `exclude_namespaces`: whose pods start without an agent."""

    socket: str
    exclude_namespaces: tuple[str, ...]

    def entry(self) -> dict[str, Any]:
        return {"type": PLUGIN, "socket": self.socket, "excludeNamespaces": list(self.exclude_namespaces)}


def first_of(names: Iterable[str]) -> str | None:
    """The file that a runtime takes: the first in lexical order."""
    return min((name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")), default=None)


def holds_ours(text: str) -> bool:
    """False also for what is no configuration."""
    try:
        return any(_is_ours(plugin) for plugin in _plugins(_read(text)))
    except BadConflist:
        return False


def with_ours(text: str, ours: Chained) -> str:
    """The list with our plugin behind all others, or the text itself where it is so. A single plugin's configuration
    becomes a list of it. Raises BadConflist."""
    config = _read(text)
    plugins = _plugins(config)
    others = [plugin for plugin in plugins if not _is_ours(plugin)]
    if not others:
        raise BadConflist("no plugin is in it that gives a pod its network; ours adds none")
    if plugins == [*others, ours.entry()]:
        return text
    rest: dict[str, Any] = (
        dict(config) if "plugins" in config else {key: config[key] for key in _OF_LIST if key in config}
    )
    return _text({**rest, "plugins": [*others, ours.entry()]})


def without_ours(text: str) -> str:
    """The text itself where ours is not in it. Raises BadConflist."""
    config = _read(text)
    plugins = _plugins(config)
    if not any(map(_is_ours, plugins)):
        return text
    return _text({**config, "plugins": [plugin for plugin in plugins if not _is_ours(plugin)]})


def _read(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConflist(f"it is no JSON: {printable(str(error), 200)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise BadConflist("it is no CNI configuration: an object with a name")
    return config


def _plugins(config: dict[str, Any]) -> list[dict[str, Any]]:
    if "plugins" not in config:
        if not isinstance(config.get("type"), str):
            raise BadConflist("it has neither plugins nor a type")
        return [{key: value for key, value in config.items() if key not in _OF_LIST}]
    plugins = config["plugins"]
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise BadConflist("its plugins are no list of objects")
    return plugins


def _is_ours(plugin: dict[str, Any]) -> bool:
    return plugin.get("type") == PLUGIN


def _text(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2) + "\n"

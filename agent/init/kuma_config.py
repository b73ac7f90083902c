"""Kuma's transparent-proxy configuration, YAML or JSON, as words of kumactl's flags.

Source: kumahq/kuma pkg/transparentproxy/config/config.go (keys), pkg/config (files are merged, later ones win).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from agent.init.argv import Flag, Word
from agent.init.request import Refused

MAX_CHARACTERS: Final = 65536
"""A configuration with everything in it has two thousand; annotations, which may carry one, end at 262,144 in all."""


@dataclass(frozen=True, slots=True)
class ConfigText:
    """`where`: the flag and, if it named one, the file."""

    where: str
    text: str


def words_of(config: ConfigText, flags: Sequence[Flag]) -> tuple[Word, ...]:
    """Raises Refused for what is no configuration, and for a key that is not Kuma's."""
    by_key = {flag.config: flag for flag in flags if flag.config}
    words = []
    for key, value in _flat(_parsed(config), ""):
        flag = by_key.get(key)
        if flag is None:
            raise Refused(f"{config.where}: {key}", value, "is no key of Kuma's transparent proxy configuration")
        words.append(Word(flag, value, f"{config.where}: {key}"))
    return tuple(words)


def _parsed(config: ConfigText) -> Mapping[Any, Any]:
    if len(config.text) > MAX_CHARACTERS:
        reason = f"more than {MAX_CHARACTERS} characters are no configuration"
        raise Refused(config.where, f"{len(config.text)} characters", reason)
    try:
        # Scalars as they are written: YAML 1.1 would read the unquoted 80:1 as 4801, base sixty; Go's does not.
        parsed = yaml.load(config.text, Loader=yaml.BaseLoader)  # noqa: S506 - makes text, lists and mappings alone
    except (yaml.YAMLError, RecursionError) as error:
        raise Refused(config.where, config.text, f"is no YAML: {str(error).splitlines()[0]}") from None
    if parsed is None or parsed in _NOTHING:
        return {}
    if not isinstance(parsed, Mapping):
        raise Refused(config.where, config.text, "is no mapping: it begins with `redirect:` and the like")
    return parsed


def _flat(value: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Dotted keys with text, one pair each item of a list. No deeper than Kuma's keys go: YAML may hold itself."""
    if isinstance(value, Mapping) and depth <= _DEEPEST:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield prefix, _text(item)
    elif value not in _NOTHING:
        yield prefix, _text(value)


_DEEPEST: Final = 4
_NOTHING: Final = ("", "~", "null")
"""Says nothing, as to Go's json."""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "a structure"

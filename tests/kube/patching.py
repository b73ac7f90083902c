"""What a patch makes of an object: RFC 7386, RFC 6902, and as much of the strategic one as annotations and labels need.

Strategic patches of lists that have a merge key (containers, volumes) are beyond this.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

from tests.kube.refusals import Refused, bad_request
from tests.kube.resources import Body

MERGE: Final = "application/merge-patch+json"
JSON: Final = "application/json-patch+json"
_REJECTED: Final = "the server rejected our request due to an error in our request"
STRATEGIC: Final = "application/strategic-merge-patch+json"


def patched(body: Body, kind: str, change: Any) -> Body:
    """`kind`: the media type. The body given is left as it was. Raises Refused 400 or 422."""
    if kind == JSON:
        return json_patched(body, change)
    if not isinstance(change, dict):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        )
    made: Body = _merged(copy.deepcopy(body), change)
    return made


def _merged(target: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    made = target if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def json_patched(body: Body, steps: Any) -> Body:
    made = {"": copy.deepcopy(body)}
    if not isinstance(steps, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    for step in steps:
        try:
            _STEPS[step["op"]](made, step)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Refused(422, "Invalid", _REJECTED, {}) from error
    return made[""]


def _add(whole: Any, step: Any) -> None:
    _put(whole, step["path"], copy.deepcopy(step["value"]))


def _remove(whole: Any, step: Any) -> None:
    holder, key = _place(whole, step["path"])
    del holder[_index(holder, key)]


def _replace(whole: Any, step: Any) -> None:
    holder, key = _place(whole, step["path"])
    at = _index(holder, key)
    holder[at]  # a place that is not there cannot be replaced
    holder[at] = copy.deepcopy(step["value"])


def _move(whole: Any, step: Any) -> None:
    holder, key = _place(whole, step["from"])
    value = holder[_index(holder, key)]
    del holder[_index(holder, key)]
    _put(whole, step["path"], value)


def _copy(whole: Any, step: Any) -> None:
    holder, key = _place(whole, step["from"])
    _put(whole, step["path"], copy.deepcopy(holder[_index(holder, key)]))


def _test(whole: Any, step: Any) -> None:
    holder, key = _place(whole, step["path"])
    if holder[_index(holder, key)] != step["value"]:
        raise ValueError(f"testing path {step['path']} value failed")


_STEPS: Final[dict[str, Callable[[Any, Any], None]]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


def _put(whole: Any, pointer: str, value: Any) -> None:
    holder, key = _place(whole, pointer)
    if not isinstance(holder, list):
        holder[key] = value
    elif key == "-":
        holder.append(value)
    elif int(key) > len(holder):
        raise IndexError(f"{pointer} is beyond the list")
    else:
        holder.insert(int(key), value)


def _place(whole: Any, pointer: str) -> tuple[Any, str]:
    """RFC 6901. The holder of what is pointed to, and its key there; `whole` has the document under an empty key."""
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer} is no JSON pointer")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]
    holder = whole
    for part in parts[:-1]:
        holder = holder[_index(holder, part)]
    return holder, parts[-1]


def _index(holder: Any, key: str) -> Any:
    return int(key) if isinstance(holder, list) else key

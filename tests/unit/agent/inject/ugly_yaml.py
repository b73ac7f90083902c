"""Workloads as people write them: every style that YAML has, in one file, with comments in all places."""

import json
from typing import Any

from hypothesis import strategies as st

Draw = Any
_COMMENTS = ("# a note", "#", "# - name: debug", "# key: value", "#\ttabs\t", '# "quoted', "# größer 😀")
_TEXTS = (
    "web",
    "a b",
    "on",
    "1:30",
    "0755",
    "ü 😀",
    "it's",
    'say "hi"',
    "- x",
    "a: b",
    "trailing ",
    "*star",
    "",
    "#no",
)
_LINES = ("one\ntwo\n", "one\n\n  two\n", "no end", "end\n\n\n", "# no comment\n- no item\n")


@st.composite
def workloads(draw: Draw) -> str:
    """The text of one to three documents."""
    newline = draw(st.sampled_from(("\n", "\n", "\r\n")))
    documents = draw(
        st.lists(st.sampled_from(("Pod", "Deployment", "CronJob", "List", "Service")), min_size=1, max_size=3)
    )
    lines: list[str] = [draw(st.sampled_from(("# head", "", "%YAML 1.1")))]
    for number, kind in enumerate(documents):
        if number or lines[0].startswith("%") or draw(st.booleans()):
            lines.append("---" + draw(st.sampled_from(("", " # here", "   "))))
        lines += _Writer(draw).document(_object(draw, kind))
    if draw(st.booleans()):
        lines.append("...")
    text = newline.join(lines)
    return draw(st.sampled_from(("", "\ufeff"))) + text + draw(st.sampled_from(("", newline, newline * 2)))


# ── What is said ───────────────────────────────────────────────────────────────────────────────────────────────────
def _object(draw: Draw, kind: str) -> dict[str, Any]:
    name = {"name": draw(st.sampled_from(("web", "on", "x-1")))}
    if kind == "List":
        items = [_object(draw, inner) for inner in draw(st.lists(st.sampled_from(("Pod", "Deployment")), max_size=2))]
        return {"apiVersion": "v1", "kind": "List", "items": items}
    if kind == "Service":
        return {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": {"ports": [{"port": 80}]}}
    pod = _pod(draw)
    if kind == "Pod":
        metadata = pod.get("metadata")
        return _shuffled(draw, {**pod, "apiVersion": "v1", "kind": "Pod", "metadata": {**name, **(metadata or {})}})
    if kind == "CronJob":
        spec: dict[str, Any] = {"jobTemplate": {"spec": _shuffled(draw, {"backoffLimit": 1, "template": pod})}}
        return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": name, "spec": spec}
    spec = _shuffled(draw, {"replicas": 2, "template": pod})
    return _shuffled(draw, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": name, "spec": spec})


def _pod(draw: Draw) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": _named(draw, 1), "dnsPolicy": "Default"}
    for key in ("initContainers", "volumes"):
        _perhaps(draw, spec, key, [], _named(draw, 1))
    annotations: dict[str, Any] = {}
    _perhaps(draw, annotations, "annotations", {}, {"note": _text(draw), "other": "x"})
    if draw(st.booleans()):
        annotations["labels"] = {"app": "web"}
    pod = {"spec": _shuffled(draw, spec)}
    _perhaps(draw, pod, "metadata", {}, _shuffled(draw, annotations))
    return _shuffled(draw, pod)


def _perhaps(draw: Draw, into: dict[str, Any], key: str, empty: Any, full: Any) -> None:
    choice = draw(st.sampled_from(("absent", "null", "empty", "full")))
    if choice != "absent":
        into[key] = {"null": None, "empty": empty, "full": full}[choice]


def _named(draw: Draw, least: int) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(("a", "b", "c")), min_size=least, max_size=3, unique=True))
    return [
        _shuffled(draw, {"name": name, **({"args": [_text(draw), _text(draw)]} if draw(st.booleans()) else {})})
        for name in names
    ]


def _text(draw: Draw) -> str:
    text: str = draw(st.sampled_from((*_TEXTS, *_LINES)))
    return text


def _shuffled(draw: Draw, of: dict[str, Any]) -> dict[str, Any]:
    return dict(draw(st.permutations(list(of.items()))))


# ── How it is written ──────────────────────────────────────────────────────────────────────────────────────────────
class _Writer:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def document(self, value: dict[str, Any]) -> list[str]:
        style = self.one_of("block", "block", "block", "json", "pretty", "tabs")
        if style == "block":
            return self.block(value, 0)
        if style == "json":
            return [json.dumps(value, ensure_ascii=self.one_of(True, False))]
        return json.dumps(value, indent="\t" if style == "tabs" else self.one_of(1, 2, 4)).split("\n")

    def block(self, value: Any, column: int) -> list[str]:
        lines: list[str] = []
        if isinstance(value, dict):
            for key, inner in value.items():
                lines += self.noise(column)
                lines += self.under(" " * column + self.key(key) + ":", inner, column)
            return lines
        for item in value:
            lines += self.noise(column)
            lines += self.item(item, column)
        return lines

    def item(self, item: Any, column: int) -> list[str]:
        dash = " " * column + "-"
        if not isinstance(item, dict):
            return self.under(dash, item, column)
        style = self.one_of("inline", "inline", "below", "flow")
        if style == "flow":
            return [f"{dash} {self.flow(item)}{self.comment()}"]
        if style == "below":
            return [dash + self.comment(), *self.block(item, column + 2)]
        wide = self.one_of(2, 4)
        inner = self.block(item, column + wide)
        first = next(index for index, line in enumerate(inner) if line.strip() and not line.strip().startswith("#"))
        # What stands before the first key cannot stand before it in the dash's line.
        return [*inner[:first], f"{dash}{' ' * (wide - 1)}{inner[first].lstrip(' ')}", *inner[first + 1 :]]

    def under(self, key: str, value: Any, column: int) -> list[str]:
        if value in ([], {}):
            return [key + " " + self.one_of(*(("[]", "[ ]") if value == [] else ("{}", "{ }"))) + self.comment()]
        if isinstance(value, dict | list):
            if self.one_of("block", "block", "flow") == "flow":
                return [f"{key} {self.flow(value)}{self.comment()}"]
            deeper = self.one_of(1, 2, 4) if isinstance(value, dict) else self.one_of(0, 2)
            deeper = deeper if deeper or not key.lstrip().startswith("-") else 2
            return [key + self.comment(), *self.block(value, column + deeper)]
        if value is None:
            return [key + self.one_of("", " ~", " null", "  null") + self.comment()]
        if isinstance(value, str) and "\n" in value:
            return self.literal(key, value, column)
        return [f"{key} {self.scalar(value)}{self.comment()}"]

    def literal(self, key: str, text: str, column: int) -> list[str]:
        body = text.rstrip("\n")
        ends = len(text) - len(body)
        chomping = {0: "-", 1: ""}.get(ends, "+")
        lines = [" " * (column + 3) + line if line else "" for line in body.split("\n")]
        return [f"{key} |{chomping}", *lines, *[""] * (ends - 1)]

    def flow(self, value: Any) -> str:
        if isinstance(value, dict):
            inner = [f"{self.key(key)}: {self.flow(item)}" for key, item in value.items()]
            return "{" + self.one_of(", ", " , ").join(inner) + "}"
        if isinstance(value, list):
            space = self.one_of("", " ")
            return "[" + space + ", ".join(self.flow(item) for item in value) + space + "]"
        return "null" if value is None else json.dumps(value, ensure_ascii=False)

    def key(self, key: str) -> str:
        return str(self.one_of(key, key, f'"{key}"', f"'{key}'"))

    def scalar(self, value: Any) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        plain = value.replace(".", "").replace("/", "").isalnum() and value not in ("on", "0755")
        single = "'" + value.replace("'", "''") + "'"
        return str(self.one_of(json.dumps(value, ensure_ascii=False), single, *([value] if plain else [])))

    def comment(self) -> str:
        return str(self.one_of("", "", "", "  ", *(f"  {one}" for one in _COMMENTS)))

    def noise(self, column: int) -> list[str]:
        if self.one_of(True, False, False):
            return [" " * self.one_of(0, column, column + 2) + self.one_of(*_COMMENTS)]
        return self.one_of([], [], [""], ["   "])

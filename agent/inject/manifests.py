"""The text of manifests → the same text, with ours in it or without.

Each change is proved: the new text is read again, and must say what the old one says with the same edits applied.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from agent.inject.edits import Edit, Path, applied, below
from agent.inject.errors import CannotEdit, Refused
from agent.inject.lines import Lines
from agent.inject.nodes import Document, Node, documents
from agent.inject.pod import Injection, injected, uninjected
from agent.inject.pod_security import refusal
from agent.inject.status import PARTS, has_status
from agent.inject.template import Template
from agent.inject.text_edits import Change, changed, changes
from agent.inject.workloads import Workload, misplaced, pod_security_levels, workloads
from agent.pods.selection import EXCLUDED_NAMESPACES
from agent.printable import printable
from agent.sources.manifests import InvalidManifest

BOM: Final = "\ufeff"
_DEFAULT: Final = "default"
_SHOWN: Final = 400
_UNUSUAL: Final = (
    "is written so that it would not say what it should when changed: write it plainer (anchors and aliases out, block "
    "style as kubectl prints it)"
)


class Outcome(Enum):
    """Of one workload."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Report:
    """`line`: where its document begins."""

    workload: str
    document: int
    line: int
    outcome: Outcome
    why: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    text: str
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the text does not say itself: the namespace of what names none, and the namespaces' pod security levels."""

    namespace: str = _DEFAULT
    levels: Mapping[str, str] = field(default_factory=dict)


class InvalidInput(ValueError):
    """The document (from 1; None: the file), and what is wrong in it. Nothing was changed; do not retry."""

    def __init__(self, document: int | None, reason: str) -> None:
        super().__init__(reason if document is None else f"document {document}: {reason}")


@dataclass(frozen=True, slots=True)
class Manifests:
    """Text that was read; `values`: of its documents, as kubectl reads them."""

    lines: Lines
    documents: tuple[Document, ...]
    values: tuple[Any, ...]
    bom: str = ""

    @property
    def text(self) -> str:
        return f"{self.bom}{self.lines.text}"


def read(text: str) -> Manifests:
    """Raises InvalidInput."""
    bare = text.removeprefix(BOM)
    try:
        found = tuple(documents(bare))
    except InvalidManifest as error:
        raise InvalidInput(None, str(error)) from None
    return Manifests(
        Lines(bare), found, tuple(document.root.plain for document in found), text[: len(text) - len(bare)]
    )


def levels_in(manifests: Manifests) -> dict[str, str]:
    """Of the Namespaces in it: what pod security each enforces."""
    return dict(pair for value in manifests.values for pair in pod_security_levels(value))


def namespaces_in(manifests: Manifests, default: str) -> frozenset[str]:
    """Of all that makes pods in it; `default` where none is named."""
    return frozenset(found.namespace or default for value in manifests.values for found in workloads(value))


def inject(manifests: Manifests, template: Template, around: Surroundings) -> Done:
    """Raises InvalidInput."""
    # What is there and is not as it should be goes first; then everything is as if it had never been.
    bare, _ = _edited(manifests, lambda _, pod, __: _stale(pod, template))
    done, reports = _edited(bare, lambda workload, pod, spelled: _wanted(workload, pod, spelled, template, around))
    return Done(done.text, tuple(reports))


def uninject(manifests: Manifests) -> Done:
    """Raises InvalidInput."""
    done, reports = _edited(manifests, lambda _, pod, __: uninjected(pod))
    return Done(done.text, tuple(reports))


# ── What is decided of a workload ──────────────────────────────────────────────────────────────────────────────────
_Decide = Callable[[Workload, Mapping[str, Any], dict[Path, str]], Injection]


def _stale(pod: Mapping[str, Any], template: Template) -> Injection:
    return uninjected(pod) if has_status(pod) and injected(pod, template).edits else Injection()


def _wanted(
    workload: Workload, pod: Mapping[str, Any], spelled: dict[Path, str], template: Template, around: Surroundings
) -> Injection:
    namespace = workload.namespace or around.namespace
    if namespace in EXCLUDED_NAMESPACES:
        return Injection(skipped=f"namespace {namespace} is excluded")
    injection = injected(pod, template, spelled)
    refused = "" if injection.skipped else refusal(printable(namespace), around.levels.get(namespace, ""))
    return replace(injection, warnings=(*injection.warnings, refused)) if refused else injection


# ── What becomes of the text ───────────────────────────────────────────────────────────────────────────────────────
def _edited(manifests: Manifests, decide: _Decide) -> tuple[Manifests, list[Report]]:
    made: list[Change] = []
    reports: list[Report] = []
    expected = []
    for document, value in zip(manifests.documents, manifests.values, strict=True):
        edits: list[Edit] = []
        _nothing_misplaced(document, value)
        for workload in workloads(value):
            injection = _decided(decide, workload, document, manifests.lines.text)
            edits += below((*workload.path, *workload.pod), injection.edits)
            reports.append(_report(workload, document, injection))
        try:
            made += changes(manifests.lines, document.root, edits)
        except CannotEdit as error:
            raise InvalidInput(document.number, str(error)) from None
        expected.append(applied(value, edits))
    return (_proved(manifests, made, expected) if made else manifests), reports


def _nothing_misplaced(document: Document, value: object) -> None:
    for one in misplaced(value):
        node = document.root.inner(one.path)
        assert node is not None
        reason = f"line {node.line}: {printable(str(one.workload), _SHOWN)}: {one.field}: {one.remedy}"
        raise InvalidInput(document.number, reason)


def _decided(decide: _Decide, workload: Workload, document: Document, text: str) -> Injection:
    pod = document.root.inner((*workload.path, *workload.pod))
    assert pod is not None
    try:
        return decide(workload, pod.plain, _spellings(text, pod))
    except Refused as error:
        reason = f"line {pod.line}: {printable(str(workload), _SHOWN)}: {error}"
        raise InvalidInput(document.number, reason) from None


def _report(workload: Workload, document: Document, injection: Injection) -> Report:
    outcome = Outcome.CHANGED if injection.edits else Outcome.SKIPPED if injection.skipped else Outcome.UNCHANGED
    name = printable(str(workload), _SHOWN)
    return Report(name, document.number, document.line, outcome, injection.skipped, injection.warnings)


def _proved(manifests: Manifests, made: list[Change], expected: list[Any]) -> Manifests:
    """An anchor may be used where nobody looked, and YAML be written in ways that nobody thought of."""
    text = f"{manifests.bom}{changed(manifests.lines.text, made)}"
    try:
        done = read(text)
    except InvalidInput as error:
        raise InvalidInput(None, f"{_UNUSUAL} ({error})") from None
    for document, found, wanted in zip(manifests.documents, done.values, expected, strict=False):
        if found != wanted:
            raise InvalidInput(document.number, _UNUSUAL)
    if len(done.values) != len(expected):
        raise InvalidInput(None, _UNUSUAL)
    return done


def _spellings(text: str, pod: Node) -> dict[Path, str]:
    """What stands after the colons of empty values."""
    found: dict[Path, str] = {}
    for *above, key in PARTS:
        holder = pod.inner(tuple(above))
        pair = (holder.pairs or {}).get(str(key)) if holder is not None else None
        if pair is not None and pair.alias is None and pair.node.is_empty:
            found[(*above, key)] = text[pair.key_end : pair.end].lstrip(" \t\r\n").removeprefix(":")
    return found

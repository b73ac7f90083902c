"""Text as it comes: what is taken, and what is refused with its line because a change could not be made in place."""

import json
import time

import pytest
import yaml

from agent.inject.manifests import InvalidInput, Outcome, Surroundings, inject, levels_in, namespaces_in, read, uninject
from tests.unit.agent.inject.pods import NATIVE, ORDINARY

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n"
DEPLOYMENT = """\
# The shop's front end
apiVersion: apps/v1
kind: Deployment
metadata:
    name: web   # the name
spec:
    replicas: 2
    template:
        metadata:
            labels: {app: web}
            # before the containers
        spec:
            containers:
              # the application
              - name: web
                image: "web:1.0"     # quoted
                command: ['sh', "-c", "true"]
"""


def injected(text: str) -> str:
    done = inject(read(text), NATIVE, Surroundings())
    assert {report.outcome for report in done.reports} == {Outcome.CHANGED}
    assert uninject(read(done.text)).text == text
    return done.text


def refused(text: str) -> str:
    with pytest.raises(InvalidInput) as raised:
        inject(read(text), NATIVE, Surroundings())
    return str(raised.value)


# ── Taken ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_line_that_was_there_is_there_and_in_order() -> None:
    lines = iter(injected(DEPLOYMENT).splitlines())
    assert all(line in lines for line in DEPLOYMENT.splitlines())


def test_what_is_added_is_indented_as_what_is_there() -> None:
    after = injected(DEPLOYMENT).splitlines()
    assert "            initContainers:" in after
    assert "              - name: headgate-init" in after


def test_comments_before_an_item_stay_before_it() -> None:
    after = injected(f"{POD}  initContainers: # slow\n  # the first\n  - name: wait\n  containers:\n  - name: a\n")
    assert "  initContainers: # slow\n  - name: headgate-init\n" in after
    assert "  # the first\n  - name: wait\n" in after


def test_windows_line_ends() -> None:
    after = injected(f"{POD}  containers:\n  - name: a\n".replace("\n", "\r\n"))
    assert after.count("\n") == after.count("\r\n")


def test_line_ends_of_old_macs_and_of_yaml() -> None:
    injected(f"{POD}  containers:\n  - name: a\n".replace("\n", "\r"))
    injected(f"{POD}  containers:\n  - name: a # x\x85  - name: b\u2028  - name: c\n")


def test_a_last_line_that_does_not_end() -> None:
    assert not injected(f"{POD}  containers:\n  - name: a").endswith("\n")
    assert not injected(f"spec:\n  containers:\n  - name: a\n{POD.removesuffix('spec:' + chr(10))[:-1]}").endswith("\n")


def test_a_byte_order_mark() -> None:
    assert injected(f"\ufeff{POD}  containers:\n  - name: a\n").startswith("\ufeffapiVersion")


@pytest.mark.parametrize(
    "scalar", ["|\n    x\n    y\n\n\n", "|+\n    x\n\n", ">-\n    x\n    y\n", "|2\n      x\n", "a\n    b\n"]
)
def test_text_in_blocks_at_the_end(scalar: str) -> None:
    before = f"{POD}  containers:\n  - name: a\n  hostname: {scalar}"
    after = injected(before)
    assert yaml.safe_load(after)["spec"]["hostname"] == yaml.safe_load(before)["spec"]["hostname"]


def test_document_marks() -> None:
    pod = f"{POD}  containers:\n  - name: a\n"
    assert injected(f"%YAML 1.1\n--- # one\n{pod}...\n# between\n---\n---\n{pod}...\n").count("headgate-init") == 2


@pytest.mark.parametrize("empty", ["", " ~", " null", " []", " [ ]", "   # none", " [] # none", "\n    []"])
def test_empty_parts(empty: str) -> None:
    injected(f"{POD}  volumes:{empty}\n  containers:\n  - name: a\n  initContainers:{empty}\n")


@pytest.mark.parametrize(
    "item", ["-\n    name: a", "- # c - d\n    name: a", "-   name: a", "- &a\n    name: a", "- {name: a}"]
)
def test_items(item: str) -> None:
    text = f"{POD}  containers:\n  {item}\n"
    injected(text)
    done = inject(read(text), ORDINARY, Surroundings()).text
    assert uninject(read(done)).text == text
    injected(f"{POD}  initContainers:\n  {item}\n  containers:\n  - name: b\n")


def test_words_that_yaml_1_1_takes_for_booleans_stay_words() -> None:
    text = f"{POD}  containers:\n  - name: 'on'\n    env: [{{name: A, value: 'yes'}}, {{name: B, value: \"0755\"}}]\n"
    assert "env: [{name: A, value: 'yes'}, {name: B, value: \"0755\"}]" in injected(text)


def test_long_lines_are_not_wrapped() -> None:
    long = " ".join(["word"] * 400)
    assert f"args: ['{long}']" in injected(f"{POD}  containers:\n  - name: a\n    args: ['{long}']\n")


def test_tabs_in_comments() -> None:
    injected(f"{POD}  # with\ttabs\n  containers:\t# here\n  - name: a\t# and here\n")


def test_anchors_beside_what_is_changed() -> None:
    injected(f"{POD}  containers:\n  - &c\n    name: a\n    env: &e [{{name: x, value: y}}]\n  - <<: *c\n    name: b\n")
    injected(f"x: &s\n  dnsPolicy: Default\n{POD}  <<: *s\n  containers:\n  - name: a\n")


def test_json_as_kubectl_prints_it() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, pod]}, indent=4)
    after = injected(text)
    assert len(json.loads(after)["items"][1]["spec"]["initContainers"]) == 2
    assert after == json.dumps(json.loads(after), indent=4)


def test_json_in_one_line_with_escapes_that_yaml_has_not() -> None:
    metadata = '"metadata":{"name":"a\\/b","labels":{"x":"\\ud83d\\ude00"}}'
    text = f'{{"apiVersion":"v1","kind":"Pod",{metadata},"spec":{{"containers":[{{"name":"a"}}]}}}}'
    assert json.loads(injected(text))["metadata"]["labels"] == {"x": "😀"}


def test_parts_in_a_row_are_put_in_the_right_one() -> None:
    """All of them end in the same line."""
    text = "spec:\n  volumes: ~\n  containers:\n  - name: a\napiVersion: v1\nkind: Pod\nmetadata:\n  name: x"
    for template in (NATIVE, ORDINARY):
        done = inject(read(text), template, Surroundings()).text
        assert uninject(read(done)).text == text


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n", "text", "- a\n- b\n", "{}", "kind: Pod\n"])
def test_nothing_in_it_makes_pods(text: str) -> None:
    done = inject(read(text), NATIVE, Surroundings())
    assert (done.text, done.reports) == (text, ())


@pytest.mark.parametrize("kind", ["Service", "Rollout", "PodTemplate"])
def test_other_kinds_pass_as_they_are(kind: str) -> None:
    text = (
        f"apiVersion: example.com/v1\nkind: {kind}\nspec:\n  template:\n    spec:\n      containers:\n      - name: a\n"
    )
    assert inject(read(text), NATIVE, Surroundings()).text == text


# ── Refused ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{POD}\tcontainers: []\n", "line 5: no YAML: found character"),
        (f"{POD}  containers: [\n", "no YAML"),
        (f"{POD}  containers: []\n  containers: []\n", "line 6: key containers is there twice"),
        (f"{POD}  containers: [{{name: a\0}}]\n", "line 5: character #x0000 is none that YAML has"),
        (f"{POD}  containers: [{{name: !x a}}]\n", "line 5: tag !x is not supported"),
        (f"{POD}  containers: *c\n", "line 5: "),
        ("[" * 100_000, "line 1: nested deeper than 64"),
        (f"a: &a {'[' * 60}{']' * 60}\nb: {'[' * 60}*a{']' * 60}\n", "line 2: nested deeper than 64"),
        ("a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
        ), "more than 2000000 values"),
        ("? [a]\n: b\n", "line 1: a key must be text"),
        ("a: &a {<<: *a}\n", "an alias without an anchor before it"),
        ("<<: [1]\n", "what is merged (<<) is no mapping"),
    ],
    ids=range(12),
)  # fmt: skip
def test_text_that_kubectl_would_not_take_either(text: str, said: str) -> None:
    began_s = time.monotonic()
    assert said in refused(text)
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("  containers: &c\n  - name: a\n  initContainers: *c\n", "line 7: initContainers stands here as an alias"),
        ("  <<: &s\n    containers:\n    - name: a\n", "(<<): write initContainers yourself"),
        ("  ? containers\n  : - name: a\n", "write it plainer"),
        ("  volumes: &v []\n  containers:\n  - name: a\n    volumeMounts: *v\n", "write it plainer"),
        ("  volumes: [ # none\n  ]\n  containers:\n  - name: a\n", "volumes is empty but for a comment"),
    ],
)  # fmt: skip
def test_text_that_cannot_be_changed_in_place(spec: str, said: str) -> None:
    assert said in refused(POD + spec)


def test_a_change_at_an_anchor_is_not_made_behind_its_aliases_back() -> None:
    shared = "metadata:\n  annotations: *a\n"
    template = "    metadata:\n      annotations: &a {x: y}\n    spec:\n      containers:\n      - name: a\n"
    text = f"apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n{template}{shared}"
    assert "document 1: is written so that it would not say what it should when changed" in refused(text)


def test_who_has_moved_ours_into_a_line_of_others_takes_them_out() -> None:
    after = injected(f"{POD}  containers:\n  - name: a\n").replace(
        "  volumes:\n  - name: headgate-run\n    emptyDir: {}\n", ""
    )
    moved = after + "  volumes: [{name: headgate-run, emptyDir: {}}]\n"
    assert uninject(read(moved)).text == f"{POD}  containers:\n  - name: a\n"


def test_a_pod_that_cannot_be_is_refused_with_document_line_and_name() -> None:
    good = f"{POD}  containers:\n  - name: a\n"
    bad = good.replace("{name: web}", "{name: web, annotations: {headgate.io/exclude-uids: x}}")
    said = refused(f"{good}---\n{bad}")
    assert said.startswith("document 2: line 8: Pod web: annotation headgate.io/exclude-uids: ")


# ── Namespaces ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_pod_security_of_a_namespace_in_the_same_file() -> None:
    text = (
        "apiVersion: v1\nkind: Namespace\n"
        "metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: baseline}}\n"
        f"---\n{POD.replace('{name: web}', '{name: web, namespace: shop}')}  containers:\n  - name: a\n"
    )
    manifests = read(text)
    assert levels_in(manifests) == {"shop": "baseline"}
    assert namespaces_in(manifests, "default") == {"shop"}
    (report,) = inject(manifests, NATIVE, Surroundings(levels=levels_in(manifests))).reports
    assert report.warnings[0].startswith("namespace shop enforces pod security baseline, which refuses NET_ADMIN")


def test_excluded_namespaces_are_left() -> None:
    done = inject(read(f"{POD}  containers:\n  - name: a\n"), NATIVE, Surroundings(namespace="kube-system"))
    assert [(report.outcome, report.why) for report in done.reports] == [
        (Outcome.SKIPPED, "namespace kube-system is excluded")
    ]

"""`headgate inject`: files in, one stream out, and nothing when anything is wrong."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from agent.cli import main

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\nspec:\n  containers:\n  - name: a\n"
JSON = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"j"},"spec":{"containers":[{"name":"a"}]}}'


def run(*words: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["inject", *map(str, words)], input=stdin)


def printed(*words: object, stdin: str | None = None) -> list[str]:
    """Names of the pods that have a sidecar."""
    done = run(*words, stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return [one["metadata"]["name"] for one in yaml.safe_load_all(done.stdout) if "initContainers" in one["spec"]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "b.yaml").write_text(POD.format("b").removesuffix("\n"))
    (tmp_path / "a.yml").write_text(POD.format("a"))
    (tmp_path / "c.json").write_text(JSON)
    (tmp_path / "README").write_text("{")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.yaml").write_text("\ufeff---\n" + POD.format("d"))
    return tmp_path


# ── In and out ─────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("words", [("-",), ("-f", "-"), ()])
def test_standard_input(words: tuple[str, ...]) -> None:
    done = run(*words, stdin=POD.format("a"))
    assert done.stderr == "-: Pod a: injected\n"
    back = run("--uninject", *words, stdin=done.stdout)
    assert (back.stdout, back.stderr) == (POD.format("a"), "-: Pod a: uninjected\n")


def test_several_files_are_one_stream(files: Path) -> None:
    assert printed("-f", files / "b.yaml", "-f", files / "c.json", files / "a.yml") == ["a", "b", "j"]


def test_a_directorys_files_by_name_and_with_those_below(files: Path) -> None:
    assert printed("-f", files) == ["a", "b", "j"]
    assert printed("-R", "-f", files) == ["a", "b", "j", "d"]


def test_what_is_there_already_is_printed_as_it_is() -> None:
    once = run("-", stdin=POD.format("a")).stdout
    again = run("-", stdin=once)
    assert (again.stdout, again.stderr) == (once, "-: Pod a: as it should be already\n")


def test_what_makes_no_pods_is_printed_as_it_is() -> None:
    done = run("-", stdin="a: 1 # one\n")
    assert (done.stdout, done.stderr) == ("a: 1 # one\n", "-: nothing in it makes pods\n")


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ("{generateName: x-}", 'Pod (generateName "x-")'),
        ("{namespace: shop, generateName: x-}", 'Pod in shop (generateName "x-")'),
        ("{name: a, generateName: x-}", "Pod a"),
        ("{}", "Pod without a name"),
        ("{namespace: shop}", "Pod in shop without a name"),
        ("null", "Pod without a name"),
        ('{name: "", generateName: "\\e[2J"}', 'Pod (generateName "\\x1b[2J")'),
    ],
)
def test_a_pod_without_a_name_is_told_by_what_it_has(metadata: str, told: str) -> None:
    done = run("-", stdin=f"apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec:\n  containers:\n  - name: a\n")
    assert done.stderr == f"-: {told}: injected\n"


@pytest.mark.parametrize("words", [(), ("--uninject",)])
@pytest.mark.parametrize(
    ("spec", "line", "field", "wanted"),
    [
        ("spec:\n  jobTemplate: null\n", 5, "spec.jobTemplate", "a mapping with spec.template in it"),
        ("spec:\n  jobTemplate:\n    spec: ~\n", 6, "spec.jobTemplate.spec", "a mapping with template in it"),
        (
            "spec: {jobTemplate: {spec: {template: []}}}\n",
            4,
            "spec.jobTemplate.spec.template",
            "a mapping with the pods'",
        ),
        ("spec: none\n", 4, "spec", "a mapping with jobTemplate.spec.template in it"),
        ("spec:\n", 4, "spec", "a mapping with jobTemplate.spec.template in it"),
    ],
)
def test_what_stands_where_a_template_should_is_named(
    words: tuple[str, ...], spec: str, line: int, field: str, wanted: str
) -> None:
    head = "---\n" + POD.format("a") + "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\n"
    done = run(*words, "-", stdin=f"{head}{spec}")
    assert (done.exit_code, done.stdout) == (1, "")
    at = head.count("\n") + line - 3
    assert f"-: document 2: line {at}: CronJob c: {field}: must be {wanted}" in done.stderr


def test_a_part_of_a_workload_that_says_nothing_of_its_pods_is_printed_as_it_is() -> None:
    """A patch, as kustomize merges it."""
    patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 2}\n"
    done = run("-", stdin=patch)
    assert (done.stdout, done.stderr) == (patch, "-: nothing in it makes pods\n")


def test_line_ends_are_the_files(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_bytes(POD.format("a").replace("\n", "\r\n").encode())
    done = subprocess.run(
        [sys.executable, "-m", "agent", "inject", str(path)], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.count(b"\n") == done.stdout.count(b"\r\n") > 50


@pytest.mark.parametrize(("version", "native"), [("1.28", False), ("v1.29.3", True), ("1.30+", True), ("2.0", True)])
def test_the_version_decides_whether_the_sidecar_is_native(version: str, native: bool) -> None:
    (pod,) = yaml.safe_load_all(run("--kubernetes-version", version, "-", stdin=POD.format("a")).stdout)
    assert (len(pod["spec"]["containers"]) == 1) is native


def test_warnings_are_told_once_and_stop_nothing() -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels:\n    {}: restricted\n"
    levels = namespace.format("pod-security.kubernetes.io/enforce")
    done = run("-", stdin=f"{POD.format('a')}---\n{POD.format('b')}---\n{levels}")
    assert done.exit_code == 0
    assert done.stderr.count("-: warning: namespace default enforces pod security restricted") == 1


# ── Nothing out ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [\n", "no YAML"),
        (b"a: \xff\n", "line 1: is no UTF-8"),
        (b"\xff\xfea\x00:\x00", "line 1: is no UTF-8"),
        (POD.format("x").replace("name: x", "name: x\n  annotations: {headgate.io/udp: maybe}").encode(),
         "document 1: line 1: Pod x: annotation headgate.io/udp: "),
    ],
)  # fmt: skip
def test_one_bad_file_and_nothing_is_printed(files: Path, content: bytes, said: str) -> None:
    bad = files / "z.yaml"
    bad.write_bytes(content)
    done = run("-f", files / "a.yml", "-f", bad)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {bad}: ")
    assert said in done.stderr
    assert "injected" not in done.stderr


def test_files_that_are_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    missing = run("-f", tmp_path / "no.yaml")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no.yaml: cannot be read: No such file or directory" in missing.stderr
    assert "the directory holds no .yaml, .yml or .json file; -R?" in run("-f", tmp_path).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-", "-f", "-"), "standard input (-) can be read once"),
        (("--kubernetes-version", "new", "-"), "new is no version: give one like 1.30"),
        (("--image", "headgate", "-"), "image headgate: names no version"),
        (("--config-map", "A_B", "-"), "config map A_B: is no name"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], said: str) -> None:
    done = run(*words, stdin=POD.format("a"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_nobody_waits_at_a_terminal() -> None:
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "inject"], stdin=follower, capture_output=True, text=True, timeout=60
        )
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 2
    assert "no input: give files, or - for standard input" in done.stderr


def test_an_output_that_is_full_is_told(files: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "agent", "inject", "-f", str(files)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert "Error: standard output: cannot be written: No space left on device; use none of it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_error_to_tell(files: Path) -> None:
    command = f"{sys.executable} -m agent inject -f {files} 2>{files}/said | true; cat {files}/said"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stdout
    assert "Pod a: injected" in done.stdout


def test_names_are_fit_for_a_terminal() -> None:
    done = run("-", stdin=POD.format('"a\\e[2J"'))
    assert "Pod a\\x1b[2J: injected" in done.stderr


def test_a_refusal_in_place_names_the_line() -> None:
    done = run("-", stdin="x: &s {containers: [{name: a}]}\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: *s\n")
    assert "-: document 1: line 5: spec stands here as an alias (*)" in done.stderr


# ── Anywhere ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_it_needs_nothing_that_only_linux_has() -> None:
    code = (
        "import sys, agent.cli.inject\n"
        "linux = {'fcntl', 'resource', 'pyroute2', 'nftables', 'bcc', 'pwd', 'grp', 'agent.kernel', 'asyncio'}\n"
        "print(sorted(linux & sys.modules.keys() - before))\n"
    )
    before = "import sys, click, yaml\nbefore = set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"

"""The plugin reads JSON as Python does, and whatever it is given it reads no byte beyond: gcc's sanitizers watch."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SPANS = Path(__file__).parent / "spans.c"
FLAGS = ("-std=c11", "-D_DEFAULT_SOURCE", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "cniVersion": st.sampled_from(["1.0.0", "0.4.0", "", '1"0']),
        "prevResult": values,
        "excludeNamespaces": st.lists(st.sampled_from(["kube-system", "kube", 'a"b', "x\\"]), max_size=3) | values,
        "other": values,
        "nested": st.fixed_dictionaries({"prevResult": values, "cniVersion": texts}),
    },
)


class Reader:
    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self, text: bytes) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"%d\n" % len(text) + text)
        process.stdin.flush()
        line = process.stdout.readline().decode().strip()
        assert line, f"it ended with {process.wait()} at {text!r}"
        return line

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    program = tmp_path_factory.mktemp("cni") / "spans"
    subprocess.run(["gcc", *FLAGS, "-o", str(program), str(SPANS)], check=True)
    made = Reader(program)
    yield made
    made.close()


def found(line: str, name: str, text: bytes) -> bytes | None:
    at, length = next(part for part in line.split() if part.startswith(name)).partition("=")[2].split(":")
    return None if at == "-1" else text[int(at) : int(at) + int(length)]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs, indent=st.sampled_from([None, 0, 3]), escapes=st.booleans())
def test_members_are_found_where_python_finds_them(
    reader: Reader, config: dict[str, Any], indent: int | None, escapes: bool
) -> None:
    text = json.dumps(config, indent=indent, ensure_ascii=escapes).encode("utf-8", "surrogatepass")
    line = reader.read(text)
    for name, key in (("version", "cniVersion"), ("previous", "prevResult")):
        span = found(line, name, text)
        assert (span is None) == (key not in config)
        assert span is None or json.loads(span.decode("utf-8", "surrogatepass")) == config[key]
    excluded = config.get("excludeNamespaces")
    assert ("excluded=1" in line) == (isinstance(excluded, list) and "kube-system" in excluded)


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs, at=st.integers(0, 10_000), junk=st.binary(max_size=6), cut=st.integers(0, 6))
def test_no_byte_beyond_is_read_however_it_is_damaged(
    reader: Reader, config: dict[str, Any], at: int, junk: bytes, cut: int
) -> None:
    text = json.dumps(config).encode()
    place = at % (len(text) + 1)
    damaged = text[:place] + junk + text[place + cut :]
    assert reader.read(damaged).startswith(("none", "config"))


@pytest.mark.parametrize("text", [b"", b"{", b'{"', b'{"a', b'{"a"', b'{"a":', b'{"a":"\\', b"[" * 500, b'{"a":' * 500])
def test_what_breaks_off_is_no_configuration(reader: Reader, text: bytes) -> None:
    assert reader.read(text) == "none"

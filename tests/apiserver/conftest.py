"""The server under the suite: the stand-in, or the program that HEADGATE_APISERVER names (`make test-apiserver`)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver.servers import Server, real, stand_in
from tests.kube.authority import authority

PROGRAM = os.environ.get("HEADGATE_APISERVER", "")

# What no stand-in decides: CEL, schemas.
collect_ignore = [] if PROGRAM else ["test_admission_policy.py", "test_duties_policy.py", "test_manifests.py"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("apiserver")
    own = authority(directory / "authority")
    if not PROGRAM:
        with stand_in(own) as there:
            yield there
        return
    with real(Path(PROGRAM).resolve(strict=True), directory, own) as there:
        yield there

"""The image, unpacked once."""

from pathlib import Path

import pytest

from tests.image.made import made


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made().unpack(tmp_path_factory.mktemp("image"))

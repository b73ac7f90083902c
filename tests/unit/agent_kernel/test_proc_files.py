"""Files of /proc, whole (issue 5: idle agent)."""

from pathlib import Path

import pytest

from agent.kernel import proc_files


def test_a_file_of_more_than_one_piece_is_read_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024
    (tmp_path / "long").write_bytes(content)
    assert proc_files.read_whole(str(tmp_path / "long")) == content


def test_a_process_that_has_gone_is_no_file() -> None:
    with pytest.raises(FileNotFoundError):
        proc_files.read_whole("/proc/4194305/stat")  # pid_max is 4194304 at the most


def test_what_the_kernel_tells_of_this_process_is_told() -> None:
    assert proc_files.read_whole("/proc/self/status").startswith(b"Name:\t")

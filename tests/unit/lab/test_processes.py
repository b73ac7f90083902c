"""Processes are ended by identity, never by number alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

from agent.lab import processes
from agent.lab.processes import ProcessId


def _sleeper(*, deaf: bool = False) -> subprocess.Popen[str]:
    code = "import signal, sys\n"
    code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    code += "print('up', flush=True)\nsys.stdin.read()\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_a_process_is_remembered_and_recognised(tmp_path: Path) -> None:
    me = processes.identify(os.getpid())
    assert me is not None and processes.alive(me)
    processes.remember(tmp_path / "me", me)
    assert processes.recall(tmp_path / "me") == me


def test_a_pid_file_cut_short_or_absent_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "cut").write_text("12")
    assert processes.recall(tmp_path / "cut") is None
    assert processes.recall(tmp_path / "absent") is None
    assert not processes.alive(None)


def test_a_recycled_pid_is_left_alone() -> None:
    with _sleeper() as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        earlier = ProcessId(process.pid, identity.start_ticks - 1)
        processes.end([earlier], grace_s=0.2)
        assert process.poll() is None and not processes.alive(earlier)
        processes.end([identity])
        assert process.wait() == -15


def test_one_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    with _sleeper(deaf=True) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        since = time.monotonic()
        processes.end([identity], grace_s=0.2)
        assert process.wait() == -9 and time.monotonic() - since >= 0.2


def test_a_command_with_spaces_and_brackets_is_read_rightly(tmp_path: Path) -> None:
    odd = tmp_path / ") R 1 (x"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as process:
        identity = processes.identify(process.pid)
        assert identity is not None and processes.alive(identity)
        assert identity.start_ticks > 1
        processes.end([identity])


def test_one_that_has_ended_and_was_not_reaped_is_not_alive() -> None:
    process = _sleeper()
    identity = processes.identify(process.pid)
    assert identity is not None
    processes.end([identity])
    assert not processes.alive(identity)
    process.communicate()

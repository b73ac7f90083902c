"""A directory of files that people, editors and kubelets change."""

import os
from pathlib import Path

import pytest

from proxy.config.compile import compile_policy
from proxy.config.directory import MAX_FILE_BYTES, ObjectDirectory, UnreadableDirectory
from proxy.config.text import render_rejection
from proxy.model.snapshot import PolicySnapshot
from tests.unit.proxy_config.samples import MESH, RATINGS, REVIEWS, VIP, shares, split


class Clock:
    """A wall clock that stands still."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000 * 10**9

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def directory(tmp_path: Path) -> ObjectDirectory:
    return ObjectDirectory(tmp_path, settle_s=0)


def replace_file(path: Path, text: str) -> None:
    """As careful writers do; two writes in one tick of the kernel's clock could otherwise look alike."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def policy_of(directory: ObjectDirectory) -> PolicySnapshot:
    return compile_policy(directory.read(), None)


def names(directory: ObjectDirectory) -> list[str]:
    return [str(key) for key in directory.read().admitted]


def problems(directory: ObjectDirectory) -> list[str]:
    return [render_rejection(problem) for problem in directory.read().problems]


def test_all_documents_of_all_yaml_files_are_read(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "mesh.yaml").write_text("---\n".join(MESH))
    (tmp_path / "split.yml").write_text(split(90, 10))
    (tmp_path / "notes.txt").write_text("{")
    (tmp_path / ".swap.yaml").write_text("{")
    (tmp_path / "more.yaml").mkdir()
    assert shares(policy_of(directory).services[VIP]) == [("v1", 90), ("v2", 10)]
    assert problems(directory) == []


def test_an_empty_directory_has_no_objects(directory: ObjectDirectory) -> None:
    assert directory.changed()
    assert names(directory) == []
    assert not directory.changed()


def test_nothing_changed_is_the_same_set(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "a.yaml").write_text(REVIEWS)
    first = directory.read()
    assert not directory.changed()
    assert directory.read() is first


def test_a_changed_file_is_noticed_and_read_again(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "mesh.yaml").write_text("---\n".join(MESH))
    (tmp_path / "split.yaml").write_text(split(90, 10))
    before = directory.read()
    replace_file(tmp_path / "split.yaml", split(50, 50))
    assert directory.changed()
    after = directory.read()
    assert not directory.changed()
    assert shares(compile_policy(after, None).services[VIP]) == [("v1", 50), ("v2", 50)]
    same = [key for key in before.admitted if before.admitted[key] is after.admitted[key]]
    assert len(same) == len(before.admitted) - 1


def test_a_file_that_was_only_touched_changes_no_object(tmp_path: Path, directory: ObjectDirectory) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(REVIEWS)
    before = directory.read()
    os.utime(path, ns=(1, 1))
    assert directory.changed()
    assert all(value is before.admitted[key] for key, value in directory.read().admitted.items())
    assert not directory.changed()


def test_files_that_appear_and_vanish(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "a.yaml").write_text(REVIEWS)
    directory.read()
    (tmp_path / "b.yaml").write_text(RATINGS)
    assert directory.changed()
    assert names(directory) == ["Service default/reviews", "Service default/ratings"]
    (tmp_path / "a.yaml").unlink()
    assert directory.changed()
    assert names(directory) == ["Service default/ratings"]


def test_a_config_map_s_swapped_symlink_is_a_change(tmp_path: Path, directory: ObjectDirectory) -> None:
    for version, text in (("..1", REVIEWS), ("..2", RATINGS)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(text)
        os.utime(tmp_path / version / "a.yaml", ns=(1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert names(directory) == ["Service default/reviews"]
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert directory.changed()
    assert names(directory) == ["Service default/ratings"]


def test_a_file_that_cannot_be_parsed_keeps_its_last_good_objects(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "mesh.yaml").write_text("---\n".join(MESH))
    (tmp_path / "split.yaml").write_text(split(90, 10))
    directory.read()
    (tmp_path / "split.yaml").write_text(split(50, 50) + "  }\n")
    assert shares(policy_of(directory).services[VIP]) == [("v1", 90), ("v2", 10)]
    assert problems(directory) == [
        "file split.yaml: line 12, column 3: did not find expected key; "
        "its last good version stays in force; correct the file"
    ]
    assert not directory.changed()
    (tmp_path / "split.yaml").write_text(split(50, 50))
    assert shares(policy_of(directory).services[VIP]) == [("v1", 50), ("v2", 50)]
    assert problems(directory) == []


def test_a_file_that_never_was_good_leaves_the_others(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "a.yaml").write_text("[")
    (tmp_path / "b.yaml").write_text(REVIEWS)
    assert names(directory) == ["Service default/reviews"]
    assert [problem.stale for problem in directory.read().problems] == [False]


def test_an_object_without_a_name_is_reported_with_its_line(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "a.yaml").write_text(f"{REVIEWS}\n---\napiVersion: v1\nkind: Pod\n")
    assert names(directory) == ["Service default/reviews"]
    assert problems(directory) == ["object at a.yaml:11: metadata: is missing; set metadata (a.yaml:11)"]


def test_the_first_file_by_name_wins(tmp_path: Path, directory: ObjectDirectory) -> None:
    for name, weight in (("b.yaml", 10), ("a.yaml", 90)):
        (tmp_path / name).write_text(split(weight, 100 - weight))
    (tmp_path / "mesh.yaml").write_text("---\n".join(MESH))
    assert shares(policy_of(directory).services[VIP]) == [("v1", 90), ("v2", 10)]
    assert problems(directory) == [
        "VirtualService default/reviews: metadata.name: is there already: a.yaml:1 defines it too, and counts; "
        "remove one (b.yaml:1)"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: \xff\n", "file a.yaml: byte 3: is not UTF-8; correct the file"),
        (b"#" * (MAX_FILE_BYTES + 1), "file a.yaml: cannot be read: is larger than 16777216 bytes; correct the file"),
    ],
)
def test_a_file_that_is_no_text_or_too_large_is_reported(
    tmp_path: Path, directory: ObjectDirectory, content: bytes, reason: str
) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    assert problems(directory) == [reason]
    assert not directory.changed()


def test_a_byte_order_mark_is_no_error(tmp_path: Path, directory: ObjectDirectory) -> None:
    (tmp_path / "a.yaml").write_text(REVIEWS, encoding="utf-8-sig")
    assert names(directory) == ["Service default/reviews"]


def test_a_fifo_or_a_dangling_link_holds_nobody_up(tmp_path: Path, directory: ObjectDirectory) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").symlink_to("nowhere")
    (tmp_path / "c.yaml").write_text(REVIEWS)
    assert names(directory) == ["Service default/reviews"]


def test_a_directory_that_never_was_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    directory = ObjectDirectory(tmp_path / "absent")
    assert directory.changed()
    with pytest.raises(UnreadableDirectory, match=r"cannot list .*/absent: No such file or directory"):
        directory.read()
    (tmp_path / "absent").mkdir()
    assert names(directory) == []


def test_a_directory_that_goes_away_leaves_its_objects_in_force_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.mkdir()
    (path / "a.yaml").write_text(REVIEWS)
    directory = ObjectDirectory(path, settle_s=0)
    directory.read()
    path.rename(tmp_path / "away")
    assert directory.changed()
    assert names(directory) == ["Service default/reviews"]
    assert [(p.reason, p.stale) for p in directory.read().problems] == [
        ("cannot be listed: No such file or directory", True)
    ]
    assert not directory.changed()
    (tmp_path / "away").rename(path)
    assert directory.changed()
    assert problems(directory) == []
    assert not directory.changed()


def test_a_file_that_is_being_written_in_place_is_taken_when_it_is_still(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.yaml", Clock()
    directory = ObjectDirectory(tmp_path, settle_s=0.1, wall_clock_ns=clock)
    path.write_text(REVIEWS)
    clock.now_ns = path.stat().st_ctime_ns
    assert names(directory) == ["Service default/reviews"], "a new file is taken at once"
    path.write_text("")
    clock.now_ns = path.stat().st_ctime_ns + 50_000_000
    assert not directory.changed()
    assert names(directory) == ["Service default/reviews"]
    path.write_text(RATINGS)
    clock.now_ns = path.stat().st_ctime_ns + 100_000_000
    assert directory.changed()
    assert names(directory) == ["Service default/ratings"]


def test_a_file_that_is_moved_into_place_is_taken_at_once_however_often(tmp_path: Path) -> None:
    """Twenty times a second it would never be still; and it is whole."""
    clock = Clock()
    directory = ObjectDirectory(tmp_path, settle_s=0.1, wall_clock_ns=clock)
    for weight in range(5):
        replace_file(tmp_path / "mesh.yaml", "---\n".join((*MESH, split(weight + 1, 10))))
        clock.now_ns = (tmp_path / "mesh.yaml").stat().st_ctime_ns
        assert shares(policy_of(directory).services[VIP]) == [("v1", weight + 1), ("v2", 10)]


def test_a_file_from_the_future_is_taken(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.yaml", Clock()
    directory = ObjectDirectory(tmp_path, settle_s=0.1, wall_clock_ns=clock)
    path.write_text(REVIEWS)
    directory.read()
    path.write_text(RATINGS)
    clock.now_ns = path.stat().st_ctime_ns - 10**9
    assert directory.changed()
    assert names(directory) == ["Service default/ratings"]

"""A local folder and its copy on an object store: changed files are copied while they grow, and continued by a later run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from upath import UPath

from vgs_ray.data import mirror
from vgs_ray.data.files import read_end
from vgs_ray.data.mirror import mirrored
from vgs_ray.data.storage import list_files


def test_files_are_copied_while_they_grow_and_continued(s3_root: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "COPY_S", 0.05)
    with mirrored(s3_root / "stage", ["log"]) as first:
        (first.folder / "log").write_text("one\n")
        (first.folder / "curves").mkdir()
        (first.folder / "curves/events").write_bytes(b"\0" * 1000)
        (first.folder / ".unfinished.tmp").write_text("half")
        deadline = time.monotonic() + 30
        while len(list_files(s3_root / "stage")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list_files(s3_root / "stage") == {"log": 4, "curves/events": 1000}
        with (first.folder / "log").open("a") as log:
            log.write("two\n")
        first.copy()
        assert read_end(s3_root / "stage/log") == b"one\ntwo\n"
    assert not first.folder.exists()
    with mirrored(s3_root / "stage", ["log", "missing"]) as second:
        assert [path.name for path in second.folder.iterdir()] == ["log"]
        with (second.folder / "log").open("a") as log:
            log.write("three\n")
    assert read_end(s3_root / "stage/log", 6) == b"three\n"
    assert read_end(s3_root / "stage/log", 1000) == b"one\ntwo\nthree\n"
    assert read_end(s3_root / "stage/none", 6) == b""


def test_files_are_copied_when_the_block_fails(s3_root: UPath) -> None:
    def fail() -> None:
        with mirrored(s3_root) as failing:
            (failing.folder / "log").write_text("one\n")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert (s3_root / "log").read_text() == "one\n"


def test_a_folder_on_a_disk_is_its_own_mirror(tmp_path: Path) -> None:
    with mirrored(tmp_path) as same:
        assert same.folder == tmp_path
        same.copy()

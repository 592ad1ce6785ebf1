"""Files and folders that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgs_ray.data.files import atomic_file, atomic_folder, remove_temporary, write_atomically


def test_failed_write_keeps_the_previous_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", "old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a.json") as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "model") as temporary:
            (temporary / name).write_text(name)
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "model") as temporary:
        (temporary / "third").write_text(f"half {1 / 0}")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/second"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for name in ("store/.a.arrow.0123.tmp", "b.tmp", ".c.0123.tmp"):
        (tmp_path / name).write_text("half")
    remove_temporary(tmp_path, "c")
    assert not (tmp_path / ".c.0123.tmp").exists()
    remove_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.tmp", "store"]

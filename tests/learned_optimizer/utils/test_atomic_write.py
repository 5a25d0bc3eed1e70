"""Files and folders that are whole or not there."""

import os

import pytest

from learned_optimizer.utils import atomic_write as files


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an older one"])
def test_a_folder_takes_the_place_of_what_is_there(there, tmp_path):
    path, aside = tmp_path / "run", tmp_path / "aside"
    if there != "nothing":
        path.mkdir()
    if there == "an older one":
        (path / "old").write_text("old")
    aside.mkdir()
    (aside / "new").write_text("new")
    files.replace_folder(aside, path)
    assert [file.name for file in tmp_path.rglob("*")] == ["run", "new"]


@pytest.mark.parametrize("name", [".run.{}", ".run.{}.old"])
def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(
    name, tmp_path
):
    left = tmp_path / name.format(os.getpid())
    left.mkdir()
    (left / "content").write_text("left")
    path, aside = tmp_path / "run", tmp_path / "aside"
    for folder in (path, aside):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    files.replace_folder(aside, path)
    files.atomic_write(tmp_path / "run" / "file", b"content")
    assert (path / "name").read_text() == "aside"
    assert (path / "file").read_bytes() == b"content"
    assert (left / "content").read_text() == "left"


def test_files_that_belong_together_are_both_written_or_both_left(
    tmp_path, monkeypatch
):
    paths = [tmp_path / "one", tmp_path / "two"]
    files.atomic_write_all(dict.fromkeys(paths, b"old"))
    synced = []

    def full_at_the_second(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        files.atomic_write_all(dict.fromkeys(paths, b"new"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "one": b"old",
        "two": b"old",
    }


def test_a_folder_that_cannot_come_leaves_the_old_one(tmp_path, monkeypatch):
    path, aside = tmp_path / "run", tmp_path / "aside"
    for folder in (path, aside):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    renamed = os.replace

    def refuse(source, target):
        if source == aside:
            raise OSError("no room")
        renamed(source, target)

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match="no room"):
        files.replace_folder(aside, path)
    assert (path / "name").read_text() == "run"
    assert (aside / "name").read_text() == "aside"

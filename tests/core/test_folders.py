"""Folders and files are written atomically."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankopt.core.folders import new_file, new_folder


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """Neither the folder nor its draft remains."""
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "a" / "out") as draft:
        (draft / "no such folder" / "half.txt").write_text("half")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("place", ["there", "new/..", "file/out", "file"])
def test_what_cannot_be_made(place: str, tmp_path: Path) -> None:
    """An existing folder, also under another name, and a folder below a file are refused; nothing is created."""
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"--out (must|.*is a file)"), new_folder(tmp_path / place):
        raise AssertionError("the block must not run")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "file"}


def test_a_long_name(tmp_path: Path) -> None:
    """The draft needs no longer name than the folder."""
    with new_folder(tmp_path / ("y" * 250)):
        pass
    assert (tmp_path / ("y" * 250)).is_dir()


def test_an_earlier_file_outlives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file and no draft; the error names the file."""
    path = tmp_path / "page.html"
    new_file(path, "old")

    def full(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device.*page\.html"):
        new_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_above_a_link(tmp_path: Path) -> None:
    """The parent of a link is the parent of its target; a dangling link is refused."""
    (tmp_path / "far" / "target").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "target")
    with new_folder(tmp_path / "link" / ".." / "out"):
        pass
    assert (tmp_path / "far" / "out").is_dir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="--out must not exist"), new_folder(tmp_path / "dangling"):
        raise AssertionError("the block must not run")

"""Adapters are read from folders and the hub, and nothing outside of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.source import locate

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def test_links_out_of_the_folder_are_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The hub cache's own links to its blobs are accepted."""
    folder = adapter_of("plain")
    secret = tmp_path / "secret"
    (folder / WEIGHTS).rename(secret)
    (folder / WEIGHTS).symlink_to(secret)
    with pytest.raises(ValueError, match="must be inside its folder, got a link to"):
        read_adapter(folder)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, file in ((CONFIG, folder / CONFIG), (WEIGHTS, secret)):
        file.rename(blobs / name)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    assert read_adapter(snapshot).parameters


def test_special_files_are_refused(adapter_of: Callable[..., Path]) -> None:
    folder = adapter_of("plain")
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(ValueError, match="must be an ordinary file"):
        read_adapter(folder)


@pytest.mark.parametrize("source", ["", "a", "../b", "a/b/c", "/etc/passwd/x", "a/..", "a/b\n", "https://hub/a/b"])
def test_neither_folder_nor_hub_id(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is never asked."""
    monkeypatch.chdir(tmp_path)
    if source == "":
        source = "nothing"
    with pytest.raises(ValueError, match="an adapter must be an existing folder or a hub id"):
        locate(source)


def test_a_file_is_refused(adapter_of: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="an adapter must be a folder, got the file"):
        locate(adapter_of("plain") / WEIGHTS)


def test_three_files_are_downloaded_from_the_hub(
    adapter_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub id goes to the hub's own client, which is asked for three files and no code."""
    import huggingface_hub

    folder, asked = adapter_of("plain"), []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert read_adapter("user/repo").folder == folder
    assert asked == [("user/repo", [CONFIG, WEIGHTS, "config.json"])]


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("a\nlong\nstory")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(OSError, match="there is no folder 'user/repo', and the hub cannot be reached") as caught:
        locate("user/repo")
    assert len(str(caught.value).splitlines()) == 1

"""Artifact stores: folders, and buckets by URL."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from rankopt.study.artifact_stores import PrefixedStore, artifact_store


class Bucket:
    """An object store in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return io.BytesIO(self.objects[artifact_id])

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self.objects[artifact_id] = content_body.read()

    def remove(self, artifact_id: str) -> None:
        del self.objects[artifact_id]


def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    store = artifact_store(str(tmp_path / "a" / "b"))
    store.write("one", io.BytesIO(b"1"))
    assert (tmp_path / "a" / "b" / "one").read_bytes() == b"1"


def test_a_prefix_separates_studies() -> None:
    """Names in the bucket start with the prefix; callers do not see it."""
    bucket = Bucket()
    one, other = PrefixedStore(bucket, "one/"), PrefixedStore(bucket, "other/")
    for store, content in ((one, b"1"), (other, b"2")):
        store.write("name", io.BytesIO(content))
    assert set(bucket.objects) == {"one/name", "other/name"}
    assert one.open_reader("name").read() == b"1"
    one.remove("name")
    assert set(bucket.objects) == {"other/name"}


@pytest.mark.parametrize("location", ["http://host/x", "s3://", "s4://bucket"])
def test_an_invalid_address(location: str) -> None:
    with pytest.raises(ValueError, match="--artifacts must be a folder, s3://bucket/prefix or gs://bucket/prefix"):
        artifact_store(location)


@pytest.mark.parametrize(("location", "driver"), [("s3://b/p", "boto3"), ("gs://b/p", "google-cloud-storage")])
def test_a_missing_driver_is_one_line(location: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package to install."""

    def missing(*_: Any) -> Any:
        raise ImportError("no such module")

    monkeypatch.setattr("rankopt.study.artifact_stores.Boto3ArtifactStore", missing)
    monkeypatch.setattr("rankopt.study.artifact_stores.GCSArtifactStore", missing)
    with pytest.raises(ValueError, match=f"pip install {driver}$"):
        artifact_store(location)

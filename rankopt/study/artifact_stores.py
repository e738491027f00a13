"""The store of trials' files: a folder or a bucket, through Optuna's artifact stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore, GCSArtifactStore

DRIVERS = {"s3": "boto3", "gs": "google-cloud-storage"}


class WholeFiles(FileSystemArtifactStore):
    """An artifact store in a folder. A file is whole or absent, even if its writer crashes."""

    def __init__(self, folder: str) -> None:
        super().__init__(base_path=folder)
        self.folder = Path(folder)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        super().write(f"{artifact_id}.draft", content_body)
        (self.folder / f"{artifact_id}.draft").replace(self.folder / artifact_id)

    def remove(self, artifact_id: str) -> None:
        (self.folder / f"{artifact_id}.draft").unlink(missing_ok=True)
        super().remove(artifact_id)


class PrefixedStore:
    """An artifact store that puts a prefix before every name, so that studies can share a bucket.

    Args:
        store: the store of the whole bucket.
        prefix: for example `team/rankopt/`.
    """

    def __init__(self, store: Any, prefix: str) -> None:
        self.store, self.prefix = store, prefix

    def open_reader(self, artifact_id: str) -> BinaryIO:
        found: BinaryIO = self.store.open_reader(self.prefix + artifact_id)
        return found

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self.store.write(self.prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        self.store.remove(self.prefix + artifact_id)


def artifact_store(location: str) -> Any:
    """The artifact store at a location.

    Args:
        location: a folder (created if missing), `s3://bucket/prefix` or `gs://bucket/prefix`.
    Raises:
        ValueError: another kind of address, or a missing driver.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        Path(location).mkdir(parents=True, exist_ok=True)
        return WholeFiles(location)
    bucket, _, prefix = rest.partition("/")
    if scheme not in DRIVERS or not bucket:
        raise ValueError(f"--artifacts must be a folder, s3://bucket/prefix or gs://bucket/prefix, got {location!r}")
    try:
        store = Boto3ArtifactStore(bucket) if scheme == "s3" else GCSArtifactStore(bucket)
    except ImportError:
        raise ValueError(f"--artifacts {location} needs a driver: pip install {DRIVERS[scheme]}") from None
    return PrefixedStore(store, f"{prefix.rstrip('/')}/" if prefix else "")

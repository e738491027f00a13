"""The files of a study's trials: adapters and predictions, as artifacts of its attempts."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from zipfile import is_zipfile

import optuna
from optuna.artifacts import download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from rankopt.study.artifact_stores import artifact_store
from rankopt.study.attempts import Group, attempt_state

RECORD = "artifacts:"
"""Start of the system attributes in which Optuna records the artifacts of a trial."""


class Artifacts:
    """The artifacts of one study. The storage records their names, a folder or a bucket has their bytes.

    Args:
        storage: where the attempts are recorded.
        location: where the bytes are, see `artifact_stores.artifact_store`.
    """

    def __init__(self, storage: BaseStorage, location: str) -> None:
        self.storage, self.location = storage, location
        self.store = artifact_store(location)

    def upload(self, trial: optuna.Trial, path: Path, key: str) -> None:
        """Store a file, or a folder as a zip, as an artifact of an attempt, named after the key of its training."""
        if path.is_dir():
            path = Path(shutil.make_archive(str(path), "zip", path))
        path = path.rename(path.with_name(f"{key}-{path.name}"))
        upload_artifact(artifact_store=self.store, file_path=str(path), study_or_trial=trial, storage=self.storage)

    def download(self, attempts: Iterable[FrozenTrial], name: str, path: Path) -> None:
        """Fetch an artifact by its file name from the newest attempt that stored it, a complete one first.

        Optuna records an artifact before it writes the bytes, so a crash may leave a record without a whole file.

        Raises:
            ValueError: no attempt recorded it, or its bytes are missing.
        """
        found = self._artifacts_of(attempts).get(name, [])
        for artifact in found:
            if self._fetch(artifact, name, path):
                return
        again = "remove the trial (rankopt delete) and run the study again"
        if found:
            raise ValueError(f"artifact {name!r} is missing or incomplete in {self.location}; {again}")
        raise ValueError(
            f"artifact {name!r} was not stored here: a result that was imported has none. Use the machine that trained "
            f"it, or {again}"
        )

    def read(self, attempts: Iterable[FrozenTrial], name: str) -> bytes | None:
        """The bytes of an artifact, of the attempt that `download` prefers; None if they are missing."""
        for artifact in self._artifacts_of(attempts).get(name, []):
            with suppress(ArtifactNotFound), self.store.open_reader(artifact) as file:
                return bytes(file.read())
        return None

    def remove_superseded(self, attempts: Group) -> None:
        """Remove the artifacts that attempts at a finished trial stored beside those that are used."""
        store = self.store
        with tempfile.TemporaryDirectory() as folder:
            for name, found in self._artifacts_of(attempts).items():
                used = next((one for one in found if self._fetch(one, name, Path(folder, name))), None)
                for artifact in found if used else []:
                    with suppress(ArtifactNotFound):
                        store.remove(artifact) if artifact != used else None

    def remove(self, attempts: Group) -> int:
        """Remove all artifacts of some attempts; returns how many were there."""
        store, removed = self.store, 0
        for artifact in itertools.chain(*self._artifacts_of(attempts).values()):
            with suppress(ArtifactNotFound):
                store.remove(artifact)
                removed += 1
        return removed

    def _artifacts_of(self, attempts: Iterable[FrozenTrial]) -> dict[str, list[str]]:
        """File name -> ids of the artifacts of that name, those of the newest complete attempt first."""
        found: dict[str, list[str]] = {}
        for attempt in sorted(attempts, key=lambda t: (attempt_state(t) == "complete", t.number), reverse=True):
            # as `get_all_artifact_meta`, which would query the storage for every attempt
            for meta in (json.loads(text) for name, text in attempt.system_attrs.items() if name.startswith(RECORD)):
                found.setdefault(meta["filename"], []).append(meta["artifact_id"])
        return found

    def _fetch(self, artifact: str, name: str, path: Path) -> bool:
        """Download one artifact; whether its bytes are there, and whole as far as a zip tells."""
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, suppress(ArtifactNotFound):
            draft = Path(folder, name)
            download_artifact(artifact_store=self.store, file_path=str(draft), artifact_id=artifact)
            if draft.suffix != ".zip" or is_zipfile(draft):
                draft.replace(path)
                return True
        return False

"""The files of trials in a study's storage: the newest whole one is found, and only that one is kept."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from stored_study import created

from rankopt.study.queue import enqueue, requeue, take
from rankopt.study.storage import StudyStore

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[..., StudyStore]
Study = Callable[..., Any]


def test_artifacts(open_store: Open, study_of: Study, tmp_path: Path) -> None:
    """A file and a folder come back as they were, the folder as a zip; a missing one is a line."""

    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    enqueue(store, trials)
    trial = take(store)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"abc")
    (tmp_path / "predictions.npz").write_bytes(b"xyz")
    for name in ("adapter", "predictions.npz"):
        store.artifacts.upload(trial, tmp_path / name, "key")
    frozen = store.trials()[0]
    store.artifacts.download([frozen], "key-predictions.npz", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"xyz"
    store.artifacts.download([frozen], "key-adapter.zip", tmp_path / "back.zip")
    assert zipfile.ZipFile(tmp_path / "back.zip").read("weights") == b"abc"
    with pytest.raises(ValueError, match="artifact 'nothing' was not stored here"):
        store.artifacts.download([frozen], "nothing", tmp_path / "x")


def test_an_earlier_attempts_artifact_is_found(open_store: Open, study_of: Study, tmp_path: Path) -> None:
    """A worker that died after storing the adapter left it with its attempt; the trial's later attempt finds it."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    enqueue(store, trials)
    (tmp_path / "predictions.npz").write_bytes(b"xyz")
    store.artifacts.upload(take(store), tmp_path / "predictions.npz", "key")
    requeue(store, store.trials()[0])
    store.artifacts.download(reversed(store.trials()), "key-predictions.npz", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"xyz"


def test_an_artifact_that_was_cut_off_is_not_taken(open_store: Open, study_of: Study, tmp_path: Path) -> None:
    """A crash during an upload leaves a record without bytes, or half a file. The complete attempt's artifact is taken,
    and is the only one left after the run."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    enqueue(store, trials)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"abc")
    for state in ("lost without bytes", "lost with half a file", "complete"):
        trial = take(store)
        before = {path.name for path in (tmp_path / "artifacts").glob("*")}
        store.artifacts.upload(trial, tmp_path / "adapter", "key")
        (stored,) = (path for path in (tmp_path / "artifacts").iterdir() if path.name not in before)
        if state == "complete":
            store.study.tell(trial, [0.5, 24])
        else:
            stored.unlink() if "without" in state else stored.write_bytes(stored.read_bytes()[:20])
            store.study.tell(trial, state=TrialState.FAIL)
            requeue(store, store.frozen(trial))
    attempts = store.trials()
    store.artifacts.download(attempts, "key-adapter.zip", tmp_path / "back.zip")
    assert zipfile.ZipFile(tmp_path / "back.zip").read("weights") == b"abc"
    store.artifacts.remove_superseded(attempts)
    assert len(list((tmp_path / "artifacts").iterdir())) == 1
    (artifact,) = (tmp_path / "artifacts").iterdir()
    artifact.unlink()
    with pytest.raises(ValueError, match=r"artifact 'key-adapter.zip' is missing or incomplete in"):
        store.artifacts.download(attempts, "key-adapter.zip", tmp_path / "back.zip")

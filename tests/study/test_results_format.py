"""The records of a results file: paths of a machine stay out, and predictions are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from results_data import BASE, entries, study

from rankopt.core.local_files import without_folders
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.study.results_file import read_line, results_text
from rankopt.study.results_format import AnyRecord, StudyRecord, TrialRecord
from rankopt.study.results_merge import merge

Result = Callable[..., TrialResult]


def test_local_folders_are_reduced_to_their_names() -> None:
    """If their content is hashed, in trials and studies: no path of a machine is in the file or its identity."""

    def located(folder: str) -> StudySpec:
        base = BASE | {"task": {"name": "rte", "data_dir": f"{folder}/glue"}, "model": {"name": f"{folder}/tiny"}}
        hashes = {"data": {f"{folder}/glue/rte": "11"}, "model": {f"{folder}/tiny": "22"}}
        return StudySpec.model_validate({"name": "s", "base": base, "space": {"seed": [0]}, "contents": hashes})

    here, there = located("/home/ada"), located("C:\\data\\bob")
    assert StudyRecord.of(here) == StudyRecord.of(located("/mnt/bob"))
    assert "ada" not in results_text([StudyRecord.of(here)])
    assert "bob" not in results_text([StudyRecord.of(there)])
    trial = here.trial({"seed": 0})
    assert StudyRecord.of(here).value.trial({"seed": 0}).key == trial.key
    assert "ada" not in str(without_folders(trial.plain))
    unhashed = {"task": {"name": "rte", "data_dir": "/home/ada/glue"}}
    assert without_folders(unhashed) == unhashed  # the path is part of such a trial's key


def test_a_study_file_gets_the_hashes_of_the_files() -> None:
    """So that its trials have the keys of the files' trials, though its folders have other paths."""

    def located(folder: str, **contents: Any) -> StudySpec:
        base = BASE | {"task": {"name": "rte", "data_dir": f"{folder}/glue"}, "model": {"name": f"{folder}/tiny"}}
        return StudySpec.model_validate({"name": "s", "base": base, "space": {"seed": [0]}} | contents)

    hashes = {"data": {"/home/ada/glue/rte": "11"}, "model": {"/home/ada/tiny": "22"}}
    made, written = located("/home/ada", contents=hashes), located("/mnt/bob")
    merged = merge(entries([StudyRecord.of(made)]))
    found = written.model_copy(update={"contents": merged.contents([written.trial({"seed": 0})])})
    assert found.trial({"seed": 0}).key == made.trial({"seed": 0}).key != written.trial({"seed": 0}).key


def test_predictions_are_checked(records: list[AnyRecord], result: Result) -> None:
    spec = study().trial({"seed": 0})
    record = TrialRecord.of("0" * 12, result(spec), predictions=b"PK some bytes")
    text = results_text([record])
    again = read_line(text.encode())
    assert isinstance(again, TrialRecord)
    assert again.predictions is not None
    assert again.predictions.data == b"PK some bytes"
    with pytest.raises(ValueError, match=r"predictions must have the SHA-256|npz must have the SHA-256"):
        read_line(text.replace('"npz": "UE', '"npz": "VE').encode())

"""Stored records: one that cannot be read is one line, and hides no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from stored_study import created, record

from rankopt.core.result import LossEvent
from rankopt.study.attempts import KEY, RESULT, SPEC
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore
from rankopt.study.stored_records import read_result, record_of, shown

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[..., StudyStore]
Study = Callable[..., Any]


def broken(data: dict[str, Any], fault: str) -> Any:
    point = data["points"][0]
    match fault:
        case "unknown field":
            return data | {"colour": "red"}
        case "missing field":
            return {name: value for name, value in data.items() if name != "status"}
        case "no points":
            return data | {"points": []}
        case "NaN score":
            return data | {"points": [point | {"search": {"accuracy": "NaN"}}]}
        case "missing score":
            return data | {"points": [point | {"report": {"validation": {}}}]}
        case "cut losses":
            return data | {"losses": '[{"step": 1, "lo'}
        case _:
            return "a text"


FAULTS = ["unknown field", "missing field", "no points", "NaN score", "missing score", "cut losses", "another type"]


def test_losses_are_stored_as_a_text(study_of: Study, result: Any) -> None:
    """They come back unchanged, also from a record of an earlier version, whose losses are a list."""
    made = result(study_of({"seed": [0]})[1][0][1])
    made = made.model_copy(update={"losses": (LossEvent(step=1, loss=0.1 + 0.2, penalty=0.0, lr=1e-3),)})
    record, plain = record_of(made), made.model_dump(mode="json")
    assert isinstance(record["losses"], str)
    assert read_result(0, record) == read_result(0, plain) == made
    for stored in (record, plain):
        assert read_result(0, stored, losses=False) == made.model_copy(update={"losses": ()})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_result_hides_no_other(fault: str, open_store: Open, study_of: Study, result: Any) -> None:
    """It is left out and reported once, in one line that names the attempt; its trial still counts as it ended."""
    lines: list[str] = []
    study, trials = study_of({"seed": [0, 1]})
    store = open_store(say=lines.append)
    store.create(study)
    enqueue(store, trials)
    good = record(store, result)
    data = broken(result(trials[1][1]).model_dump(mode="json"), fault)
    attrs = {KEY: trials[1][1].key, SPEC: trials[1][1].plain, RESULT: data}
    store.study.add_trial(create_trial(state=TrialState.COMPLETE, values=[0.5, 24.0], user_attrs=attrs))
    for _ in range(2):
        assert [one.key for one in store.results()] == [good]
    (line,) = lines
    assert line.startswith("the result of attempt 2 in the storage cannot be read and is left out (")
    assert "\n" not in line
    assert len(line) < 400
    assert "rankopt delete" in line
    assert store.counts()["complete"] == 2


@pytest.mark.parametrize("damaged", ["{", "[" * 5000 + "]" * 5000])
def test_broken_json_hides_no_other(damaged: str, open_store: Open, study_of: Study, result: Any) -> None:
    """A damaged row of the database, which Optuna itself cannot read."""
    lines: list[str] = []
    study, trials = study_of({"seed": [0, 1]})
    store = created(open_store, study)
    enqueue(store, trials)
    keys = [record(store, result) for _ in trials]
    with store.storage.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE trial_user_attributes SET value_json = '{damaged}' WHERE trial_id = 1 AND key = 'result'"
        )
    other = open_store(say=lines.append)
    other.open()
    assert [one.key for one in other.results()] == keys[1:]
    (line,) = lines
    assert line.startswith("attempt 0 in the storage is damaged and left out (")
    assert line.endswith("; run again to repeat it")
    assert enqueue(other, trials) == 1, "what `run` does first"


def test_a_newer_spec_is_one_line(open_store: Open, study_of: Study) -> None:
    """A field that this version does not know."""
    store = created(open_store, study_of()[0])
    store.study.set_user_attr(SPEC, store.study.user_attrs[SPEC] | {"colour": "red"})
    with pytest.raises(ValueError, match="the spec of study 'tiny' in the storage cannot be read") as caught:
        open_store().open()
    assert "colour" in str(caught.value)
    assert "another version of rankopt wrote it" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_programs_study_is_not_adopted(open_store: Open, study_of: Study) -> None:
    """A study of the same name with trials of its own, whose objectives happen to be the same."""
    store = open_store("tiny")
    foreign = optuna.create_study(storage=store.storage, study_name="tiny", directions=["maximize", "minimize"])
    foreign.add_trial(create_trial(state=TrialState.COMPLETE, values=[1.0, 2.0]))
    with pytest.raises(ValueError, match=r"'tiny' .* belongs to another program; choose another name"):
        store.create(study_of()[0])
    assert SPEC not in foreign.user_attrs


def test_a_failed_result_needs_no_points(result: Any, study_of: Study) -> None:
    failed = result(study_of()[1][0][1], status="failed", points=(), reason="?").model_dump(mode="json")
    assert read_result(0, failed).reason == "?"


def test_shown() -> None:
    assert shown({"name": "ramp", "ratio": 2}) == "ramp(ratio=2)"
    assert shown([1, 2]) == "[1, 2]"
    assert shown(0.5) == 0.5

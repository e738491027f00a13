"""No path of a machine is in what travels."""

from __future__ import annotations

from rankopt.core.local_files import without_folders


def test_folders_of_one_name_stay_apart() -> None:
    contents = {"data": {"/a/glue/rte": "11", "/b/glue/rte": "22"}}
    found = without_folders({"space": {"task.data_dir": ["/a/glue", "/b/glue"]}, "contents": contents})
    assert len(set(found["space"]["task.data_dir"])) == 2
    assert sorted(found["contents"]["data"]) == sorted(f"{each}/rte" for each in found["space"]["task.data_dir"])


def test_files_of_own_data() -> None:
    task = {"name": "own", "data": {"train": "/home/ada/train.csv", "report": "/home/ada/parts/dev-*.csv"}}
    trial = without_folders({"task": task, "contents": {"data": "11"}})
    assert trial["task"]["data"] == {"train": "train.csv", "report": "dev-*.csv"}
    contents = {"files": {"/home/ada/train.csv": "11", "/home/ada/parts/dev-*.csv": "22"}}
    study = without_folders({"base": {"task": task}, "contents": contents})
    assert study["base"]["task"]["data"] == {"train": "train.csv", "report": "dev-*.csv"}
    assert study["contents"] == {"files": {"train.csv": "11", "dev-*.csv": "22"}}


def test_a_hub_data_set_keeps_its_name() -> None:
    task = {"task": {"name": "own", "data": {"hub": "org/name", "train": "train"}}}
    assert without_folders(task) == task

"""Several studies as one: labels, the control, and what counts once."""

from __future__ import annotations

import pytest
from synthetic_results import grid, make, trials

from rankopt.analysis.search import SearchRecord
from rankopt.report.evidence import Evidence
from rankopt.report.joint import joint_evidence


def part(name: str, *allocators: str, **space: object) -> Evidence:
    study = grid(
        name=name, space={"task.name": ["mini-rte"], "allocator": [{"name": one} for one in allocators], **space}
    )
    return Evidence.of(study, make(trials(study)), {}, SearchRecord(predictions=lambda key: name.encode()))


def test_labels_name_the_other_study() -> None:
    joint = joint_evidence([part("one", "uniform", "random"), part("two", "adalora")])
    assert set(joint.points["allocator"]) == {"uniform", "random", "adalora [two]"}
    assert set(joint.comparison.arms["allocator"]) == {"random", "adalora [two]"}
    assert (joint.comparison.arms["n"] == 3).all()


def test_a_trial_of_both_counts_once() -> None:
    """For the first study, with its predictions."""
    first, second = part("one", "uniform"), part("two", "uniform", seed=[0, 1, 2, 3])
    joint = joint_evidence([first, second])
    assert len(joint.results) == 8
    assert joint.points["allocator"].value_counts().to_dict() == {"uniform": 6, "uniform [two]": 2}
    assert joint.search.predictions(first.results[0].key) == b"one"


def test_words_are_those_of_the_trial_s_own_study() -> None:
    lr = part("two", "adalora", **{"training.lr": [1e-3, 2e-3]})
    joint = joint_evidence([part("one", "uniform"), lr])
    words = {row["allocator"]: joint.words(row) for _, row in joint.chosen.iterrows()}
    assert words["uniform"] == ""
    assert words["adalora [two]"].startswith("lr 0.00")


def test_two_names_are_needed() -> None:
    one = part("one", "uniform")
    with pytest.raises(ValueError, match="needs at least two studies, got 1"):
        joint_evidence([one])
    with pytest.raises(ValueError, match="must have different names, got 'one' twice"):
        joint_evidence([one, one])

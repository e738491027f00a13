"""Several studies on one page: the answer, the table of studies, and what is not paired."""

from __future__ import annotations

from synthetic_results import grid, make, trials

from rankopt.report.evidence import Evidence
from rankopt.report.joint import joint_evidence
from rankopt.report.sections.studies import Studies


def part(name: str, allocator: str, base: dict | None = None, **environment: str) -> Evidence:
    study = grid(name=name, space={"task.name": ["mini-rte"], "allocator": [{"name": allocator}]})
    study = study.model_copy(update={"base": study.base | (base or {})})
    results = [one.model_copy(update={"environment": environment}) for one in make(trials(study))]
    return Evidence.of(study, results, {})


def test_paired_studies_have_an_answer() -> None:
    block = Studies().block(joint_evidence([part("one", "uniform"), part("two", "adalora")]))
    assert block is not None
    assert block.facts[0][1].startswith("Best: adalora [two], accuracy ")
    assert list(block.tables[0].frame["study"]) == ["one", "two"]
    assert list(block.tables[0].frame["trials"]) == [6, 6]
    assert not any("paired" in warning for warning in block.warnings)


def test_other_data_are_not_paired() -> None:
    joint = joint_evidence([part("one", "uniform", data="aaa"), part("two", "adalora", data="bbb")])
    block = Studies().block(joint)
    assert block is not None
    assert joint.comparison.arms.empty
    assert "two and one are not paired on mini-rte: data and splits is bbb and aaa." in block.warnings
    assert block.facts[0][1] == "No trial can be paired with a trial of uniform in one."


def test_other_training_is_told() -> None:
    joint = joint_evidence([part("one", "uniform"), part("two", "adalora", {"training": {"steps": 77}})])
    (warning,) = (text for text in Studies().block(joint).warnings if "are paired although" in text)
    assert "steps: 77 and" in warning


def test_one_study_has_none() -> None:
    assert Studies().block(part("one", "uniform")) is None

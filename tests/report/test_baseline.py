"""Arms that score no better than the prediction that needs no model: the answer says so first."""

from __future__ import annotations

import pytest
from synthetic_results import grid, make, trials

from rankopt.core.result import Baseline, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.baseline import below, none_above, some_below
from rankopt.report.evidence import Evidence
from rankopt.report.headline import headline
from rankopt.report.sections.answer import Answer


def with_baseline(score: float | None) -> tuple[StudySpec, list[TrialResult]]:
    """The synthetic comparison, whose constant prediction has a score; None as in results of earlier versions."""
    study = grid()
    found = make(trials(study))
    if score is None:
        return study, found
    known = [
        Baseline(
            name="predicting the most frequent class",
            search=dict.fromkeys(one.metrics, score),
            report={split: dict.fromkeys(one.metrics, score) for split in one.own.report},
        )
        for one in found
    ]
    return study, [one.model_copy(update={"baseline": base}) for one, base in zip(found, known, strict=True)]


def evidence(score: float | None) -> Evidence:
    return Evidence.of(*with_baseline(score), {})


def test_nothing_is_said_above_it() -> None:
    for score in (-1.0, None):
        assert none_above(evidence(score)) == ()
        assert some_below(evidence(score)) == ()


def test_no_arm_is_above_it() -> None:
    """It comes first, in the report and in the terminal."""
    settings = evidence(2.0).settings
    sentences = none_above(evidence(2.0))
    assert len(sentences) == len(settings)
    best = max(evidence(2.0).chosen.query("setting == @settings[0]")["score"])
    assert "o arm beats predicting the most frequent class (2.000); the best scores" in sentences[0].brief
    assert f"the best scores {best:.3f}." in sentences[0].brief
    assert headline(*with_baseline(2.0), 200)[0] == sentences[0].brief
    assert Answer().block(evidence(2.0)).facts[1] == ("How sure", sentences[0].text)
    assert some_below(evidence(2.0)) == ()


def test_nothing_is_recommended_where_no_model_learned() -> None:
    assert "What to use" in dict(Answer().block(evidence(-1.0)).facts)
    assert "What to use" not in dict(Answer().block(evidence(2.0)).facts)
    assert not any(line.startswith("Use ") for line in headline(*with_baseline(2.0), 200))


def test_some_arms_are_above_it() -> None:
    """The others are named in a remark, each with its score."""
    scores = sorted(evidence(None).chosen["score"])
    middle = scores[len(scores) // 2]
    found = evidence(middle)
    assert none_above(found) == ()
    named = sum(len(below(found, setting)) for setting in found.settings)
    assert 0 < named < len(scores)
    remarks = some_below(found)
    assert sum(remark.count("(") - 1 for remark in remarks) == named
    assert f"not better than predicting the most frequent class ({middle:.3f}): " in remarks[0]


@pytest.mark.parametrize("score", [-2.0])
def test_lower_may_be_better(score: float) -> None:
    """The sign of the metric decides."""
    study, results = with_baseline(score)
    turned = [one.model_copy(update={"minimised": one.metrics[:1]}) for one in results]
    assert len(none_above(Evidence.of(study, turned, {}))) == len(Evidence.of(study, turned, {}).settings)

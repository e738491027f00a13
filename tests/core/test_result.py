"""Results survive JSON, NaN included, and answer the questions that reports ask."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Cost, LossEvent, Parameters, Point, RankEvent, TrialResult, defect
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec

SPEC = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2}}


def result(score: float = 0.5, **changes: object) -> TrialResult:
    point = Point(
        label="budget",
        pattern=RankPattern({"q": 2, "v": 0}),
        kept=16,
        search={"accuracy": score, "f1": 0.1},
        report={"validation": {"accuracy": 0.7, "f1": 0.2}, "mismatched": {"accuracy": 0.3, "f1": 0.3}},
    )
    fields: dict[str, object] = {
        "key": "0123456789ab",
        "spec": SPEC,
        "status": "complete",
        "metrics": ("accuracy", "f1"),
        "layers": {"q": Shape(4, 4), "v": Shape(4, 16)},
        "points": (point, point.model_copy(update={"label": "half", "pattern": RankPattern({"q": 1, "v": 0})})),
        "ranks": (RankEvent(step=0, amount=4, ranks=(3, 1)), RankEvent(step=7, amount=2, ranks=(2, 0))),
        "losses": (LossEvent(step=1, loss=score, penalty=0.0, lr=1e-4),),
        "parameters": Parameters(base=100, head=10, trained=32, kept=16),
        "cost": Cost(train_seconds=1.5, evaluate_seconds=0.5, steps=7, tokens=100, padded_tokens=120),
        "notes": ("capped",),
        "environment": {"torch": "2"},
    }
    return TrialResult(**(fields | changes))  # type: ignore[arg-type]


@given(st.floats())
def test_json_round_trip(score: float) -> None:
    """Everything comes back, of the same types; a NaN or infinite number too, in JSON that any reader accepts."""
    before = result(score)
    text = before.model_dump_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    after = TrialResult.model_validate_json(text)
    assert after.model_dump_json() == text
    assert isinstance(after.layers["v"], Shape)
    assert after.layers["v"].cost == 20
    assert isinstance(after.own.pattern, RankPattern)
    assert math.isnan(score) or after == before


def test_the_stored_spec_decodes_to_the_same_key() -> None:
    spec = decode(TrialSpec, SPEC)
    stored = TrialResult.model_validate_json(result(spec=spec.model_dump(mode="json")).model_dump_json())
    assert decode(TrialSpec, stored.spec).key == spec.key


def test_scores() -> None:
    """The primary metric on the search split or the first report split, of the own point unless another is given."""
    found = result()
    assert found.own.label == "budget"
    assert (found.score(), found.score("search"), found.score("report", found.points[1])) == (0.7, 0.5, 0.7)


def test_a_failed_trial_says_why() -> None:
    failed = result(status="failed", reason="the loss is not finite", points=())
    with pytest.raises(ValueError, match="trial 0123456789ab has no points: the loss is not finite"):
        failed.score()


@pytest.mark.parametrize(
    "damage", [{"status": "pruned"}, {"extra": 1}, {"metrics": 3}, {"layers": {"q": [1]}}, {"points": [{"label": "x"}]}]
)
def test_damage_is_refused(damage: dict[str, object]) -> None:
    data = json.loads(result().model_dump_json()) | damage
    with pytest.raises(ValidationError):
        TrialResult.model_validate_json(json.dumps(data))


DEFECTS: dict[str, tuple[dict[str, object], str]] = {
    "an invalid spec": ({"spec": SPEC | {"tusk": 1}}, "spec.tusk is not a known field"),
    "a missing field of the spec": ({"spec": {}}, "spec.task is required"),
    "no metrics": ({"metrics": ()}, "metrics must not be empty in a complete result"),
    "no points": ({"points": ()}, "points must not be empty in a complete result"),
    "no layers": ({"layers": {}}, "layers must not be empty in a complete result"),
    "other layers": ({"layers": {"q": Shape(4, 4)}}, "points must have a rank for every layer, which point 'budget'"),
    "another metric": ({"metrics": ("bleu",)}, "points must have a finite 'bleu' on split 'search', got {'accuracy'"),
}


@pytest.mark.parametrize("case", DEFECTS)
def test_a_defect_is_one_line(case: str) -> None:
    changes, message = DEFECTS[case]
    found = defect(result(**changes))
    assert found.startswith(message)
    assert "\n" not in found
    assert defect(result(status="failed", reason="?", **changes)) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["search", "validation", "mismatched", "report"])
def test_scores_must_be_finite(field: str, value: float) -> None:
    """On every split; at least one report split must be there."""
    own = result().own
    scores = {"accuracy": value}
    report = {} if field == "report" else own.report | ({field: scores} if field in own.report else {})
    point = own.model_copy(update={"report": report} | ({"search": scores} if field == "search" else {}))
    assert defect(result(points=(own, point))).startswith("points must have ")
    assert defect(result()) == ""


def test_long_values_are_cut() -> None:
    own = result().own.model_copy(update={"label": "x" * 5000, "search": {"accuracy": math.nan, "y" * 5000: 1.0}})
    assert len(defect(result(points=(own,)))) < 500


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        result().key = "x"  # type: ignore[misc]


def test_results_stored_with_the_origin_in_the_label() -> None:
    """Older results say how a pattern was found in the point's label alone; other labels mean nothing more."""
    pattern = RankPattern({"a": 1})
    stored = {"pattern": pattern, "kept": 2, "search": {}, "report": {}}
    found = [Point.model_validate({"label": label, **stored}) for label in ("evolved 2", "mean rank 2", "budget")]
    assert [(point.source, point.level) for point in found] == [("evolved", 2.0), ("", None), ("", None)]
    assert Point.model_validate({"label": "evolved 2", "source": "", **stored}).level is None

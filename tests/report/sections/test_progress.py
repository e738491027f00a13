"""The course of a search: hypervolume or best score, proposal by proposal."""

from __future__ import annotations

import pytest
from synthetic_results import ONE_SHOT, PATTERNS, blocks, one_shot_evidence, searched, series

from rankopt.analysis.pareto import hypervolume
from rankopt.analysis.search import Proposal, SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.sections.progress import Progress


def test_hypervolume(study: StudySpec) -> None:
    """It never falls and ends at that of all trials; proposals that failed, were pruned or repeat one add nothing."""
    spec, results = searched(study)
    fates = [Proposal([result.key], "complete") for result in results]
    fates[3:3] = [Proposal(["x"], "failed"), Proposal(["y"], "pruned"), fates[0]]
    block = blocks(spec, results, SearchRecord(fates))["search"]
    assert block.bullets[0] == "15 proposals: 13 complete, 1 failed, 1 pruned."
    assert block.bullets[1].startswith("1 of them repeated")
    (line,) = series(block.charts[0], "step")
    assert list(line.y) == sorted(line.y)
    assert len(line.x) == 15
    assert line.y[3] == line.y[4] == line.y[2]
    kept, scores = [r.own.kept for r in results], [r.score("search") for r in results]
    full = spec.trial({"budget.mean_rank": 1.0, "training.lr": 1e-3}).model.max_rank
    most = full * sum(shape.cost for shape in results[0].layers.values())
    assert line.y[-1] == pytest.approx(hypervolume(kept, scores, (most, 0.0)) / most)


def test_one_objective_shows_the_best_score_so_far(study: StudySpec) -> None:
    """Among trials within the constraint; the others, of which the first is one, are crosses and on no front."""
    spec, results = searched(study, objectives={"score": "maximize"})
    results = sorted(results, key=lambda result: -result.own.kept)
    most = results[6].own.kept
    assert results[0].own.kept > most
    spec = spec.model_copy(update={"constraints": {"parameters": most}})
    found = blocks(spec, results, SearchRecord([Proposal([r.key], "complete") for r in results]))
    block = found["search"]
    assert f"at most {most:,} parameters kept" in block.text[0]
    (line,) = series(block.charts[0], "step")
    assert line.y[-1] == max(r.score("search") for r in results if r.own.kept <= most)
    assert line.x[0] == 1 + sum(r.own.kept > most for r in results)
    clouds = {one.label: len(one.x) for one in series(block.charts[0], "cloud")}
    assert clouds == {"trials": 12 - (line.x[0] - 1), "trials beyond the constraint": line.x[0] - 1}
    assert block.charts[0].panels[0].y.label == "Matthews correlation, search set"
    assert f"within {most:,} parameters on the search split is" in found["answer"].facts[1][1]
    assert max(found["scores"].tables[0].frame["parameters kept"]) <= most
    (ringed,) = series(found["trade-off"].charts[0], "front")
    assert max(ringed.x) <= most


def test_patterns_of_super_networks(one_shot: list[TrialResult]) -> None:
    """One line per super-network over the patterns that it evaluated."""
    looks = tuple((8 * (a + b), ONE_SHOT[label]) for label, (a, b) in PATTERNS.items() if label != "budget")
    results = [result.model_copy(update={"looks": looks}) for result in one_shot[:2]] + one_shot[2:]
    block = Progress().block(one_shot_evidence(results))
    assert block
    lines = series(block.charts[0], "step")
    assert [line.label for line in lines] == ["super-network, seed 0", "super-network, seed 1"]
    most = 16 * 16  # rank 16 of two layers of cost 8
    kept, scores = zip(*looks, strict=True)
    assert lines[0].y[-1] == pytest.approx(hypervolume(kept, scores, (most, 0.0)) / most)
    assert list(lines[0].y) == sorted(lines[0].y)

"""The one-shot section: scores in a super-network beside scores from scratch, as computed by hand."""

from __future__ import annotations

import re

from scipy import stats
from synthetic_results import one_shot_evidence

from rankopt.analysis.oneshot import agreement, oneshot
from rankopt.core.result import TrialResult
from rankopt.report.sections.oneshot import OneShot


def test_numbers(one_shot: list[TrialResult]) -> None:
    """Cost, tau and differences; means and errors over seeds; uniform ranks of twice the cost beside a pattern."""
    block = OneShot().block(one_shot_evidence(one_shot))
    assert block is not None
    text = " ".join(block.bullets)
    assert "2 super-networks; 40 patterns evaluated, 0.2 s each." in text
    # 10 steps of 10 s and evaluations of 4 s, beside 10 steps of 8 s
    assert "cost as much as 1.40 trainings from scratch, counted in steps with evaluations by their share" in text
    assert "(1.75 by wall-clock time). Training each of the 20 evaluated patterns" in text
    assert "One evaluation cost 1/40 of a training." in text
    tau, pairs = agreement(oneshot(one_shot))
    assert (round(tau, 3), pairs) == (0.333, 6)  # of the three patterns of rank 2, two pairs agree and one does not
    # both super-networks have the same patterns, so every bootstrap sample has the same tau
    assert f"equal cost: {tau:.2f} (95% bootstrap interval over super-networks 0.33 to 0.33)" in text
    # the curve is the evolved pattern at rank 2; report scores are 0.05 lower; seed 1 has 0.02 more from scratch
    assert re.search(
        r"from scratch, of the same cost: \+0.020 \([^)]*\) at rank 2, \+0.010 \([^)]*\) at rank 4\.", text
    )
    # the p-value of a t-test of 0.03 -+ 0.01 over two super-networks, after Holm's correction for three differences
    adjusted = min(1, 3 * stats.ttest_1samp([-0.02, -0.04], 0).pvalue)
    assert re.search(rf"excluding uniform patterns: -0.030 \([^)]*, p = {adjusted:.2g}\) at rank 2\.", text)
    rows = block.tables[0].frame.set_index(["rank", "pattern"])
    assert rows.loc[(2, "evolved"), "one-shot"] == "0.510 ± 0.000"
    assert rows.loc[(2, "evolved"), "from scratch"] == "0.530 ± 0.010"
    assert rows.loc[(2, "evolved"), "uniform of twice the cost, from scratch"] == "0.540 ± 0.010"
    assert rows.loc[(1, "uniform"), "from scratch"] == ""
    assert {series.label for series in block.charts[0].panels[0].series} == {
        *(f"{source}, {how}" for source in ("uniform", "evolved") for how in ("one-shot", "from scratch")),
        "Pareto front, one-shot",
    }


def test_seeds_of_one_source_are_repetitions(one_shot: list[TrialResult]) -> None:
    """Patterns found by evolution differ between seeds, and still are one configuration."""
    averages = one_shot_evidence(one_shot).averages
    evolved = averages[averages["allocator"] == "found: evolved"]
    assert evolved["n"].tolist() == [2]


def test_without_trainings_from_scratch(one_shot: list[TrialResult]) -> None:
    """The accuracy is unknown; without super-networks there is no section."""
    block = OneShot().block(one_shot_evidence(one_shot[:2]))
    assert block is not None
    assert "the accuracy of the curve is unknown" in " ".join(block.bullets)
    assert OneShot().block(one_shot_evidence(one_shot[2:])) is None


def test_full_rank_from_before_the_recovery(one_shot: list[TrialResult]) -> None:
    """The report says where smaller patterns are cut from another adapter than the full-rank one."""
    recovered = [
        point.model_copy(update={"adapter": "recovered"} if index else {})
        for index, point in enumerate(one_shot[0].points)
    ]
    kept = one_shot[0].model_copy(update={"points": tuple(recovered)})
    texts = [OneShot().block(one_shot_evidence([first, *one_shot[1:]])) for first in (one_shot[0], kept)]
    assert ["before the recovery" in block.text[0].split("Scores")[1] for block in texts if block] == [False, True]


def test_the_front(one_shot: list[TrialResult]) -> None:
    """Chosen by search score among all patterns."""
    block = OneShot().block(one_shot_evidence(one_shot))
    assert block
    front = block.tables[0].frame
    front = front[front["on the front"] == "yes"]
    assert set(zip(front["rank"], front["pattern"], strict=True)) == {(1, "uniform"), (2, "evolved"), (4, "uniform")}

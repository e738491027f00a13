"""The table of what was tuned."""

from __future__ import annotations

from synthetic_results import blocks, grid, make, trials

from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec


def tuned_study() -> StudySpec:
    return grid(space={"task.name": ["mini-cola"]}, tune={"training.lr": [1e-3, 2e-3]})


def final(study: StudySpec) -> list[TrialSpec]:
    """Every configuration at its first tuned value and all seeds."""
    return [
        spec.model_copy(update={"seed": seed})
        for spec in trials(study)[:: len(study.tunings())]
        for seed in study.seeds
    ]


def test_the_report_shows_what_was_tried_and_chosen_and_counts_it_nowhere_else() -> None:
    study = tuned_study()
    found = blocks(study, make([*trials(study), *final(study)]))
    (table,) = found["tuning"].tables
    assert list(table.frame.columns) == ["task", "method", "budget", "lr 0.001", "lr 0.002", "chosen"]
    assert len(table.frame) == 5 * 2
    best = table.frame[["lr 0.001", "lr 0.002"]].idxmax(axis=1)
    assert (best == table.frame["chosen"]).all()
    assert found["cost"].tables[0].frame["trials"].sum() == len(final(study))


def test_a_value_at_the_edge_of_what_was_tried_is_told() -> None:
    """Of two values each is at an edge, and nothing is said."""
    study = grid(space={"task.name": ["mini-cola"]}, tune={"training.lr": [1e-3, 2e-3, 4e-3]})
    best = dict.fromkeys((0.001, 0.002), 0.1) | {4e-3: 0.9}
    results = []
    for result in make(trials(study)):
        search = dict.fromkeys(result.metrics, best[result.spec["training"]["lr"]])
        results.append(result.model_copy(update={"points": (result.own.model_copy(update={"search": search}),)}))
    (text,) = blocks(study, [*results, *make(final(study))])["tuning"].text
    assert text.endswith(" For 10 of 10 the largest lr was best, so a better one may lie beyond it.")
    (plain,) = blocks(tuned_study(), make([*trials(tuned_study()), *final(tuned_study())]))["tuning"].text
    assert plain.endswith("used at all seeds.")


def test_a_study_without_tuning_has_no_such_table() -> None:
    study = grid(space={"task.name": ["mini-cola"]})
    assert "tuning" not in blocks(study, make(trials(study)))

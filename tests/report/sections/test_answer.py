"""The answer: a sentence per setting and budget, what a search found, and warnings."""

from __future__ import annotations

from synthetic_results import blocks, make, searched, trials

from rankopt.analysis.search import Proposal, SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.evidence import Evidence
from rankopt.report.sections.answer import Answer


def test_the_answer_is_computed(study: StudySpec, results: list[TrialResult]) -> None:
    """The conclusion in sentences, then every allocator's verdict, the best first."""
    evidence = Evidence.of(study, results, {})
    answer = Answer().block(evidence)
    facts = dict(answer.facts)
    assert list(facts) == ["Asked", "Result", "What to use", "Limits", "Scores"]
    assert facts["Asked"].startswith("Is adalora, dylora, random or salora better than uniform (the same rank in")
    assert "mini-cola and mini-rte at mean ranks 2 and 4, with the model mini and 3 seeds" in facts["Asked"]
    assert facts["Result"].startswith("Best: ")
    (table,) = answer.tables
    assert set(table.frame["allocator"]) == set(evidence.comparison.arms["allocator"])
    assert table.frame["difference to uniform"].is_monotonic_decreasing


def test_scores_name_their_split(study: StudySpec, results: list[TrialResult]) -> None:
    """Metric and report split of every task are in the last paragraph."""
    text = blocks(study, results)["answer"].facts[-1][1]
    assert "Matthews correlation, validation set (mini-cola)" in text
    assert "accuracy, validation set (mini-rte)" in text


def test_a_limited_report_split_is_stated(study: StudySpec) -> None:
    """Scores on a subset of the official validation set are marked; others are not."""
    base = {**study.base, "task": {"name": "mini-rte", "report_examples": 50}}
    short = StudySpec(name="short", base=base, space={"seed": [0, 1]})
    words = "Report scores use 50 examples of each report split (task.report_examples)."
    assert words in blocks(short, make(trials(short)))["answer"].warnings
    assert "task.report_examples" not in " ".join(blocks(study, make(trials(study)))["answer"].warnings)


def test_an_incomplete_study_says_so(study: StudySpec) -> None:
    """Also where the missing trials are those that the others would be compared with."""
    specs = [spec for spec in trials(study) if spec.method.name == "uniform"]
    answer = blocks(study, make(specs))["answer"]
    left = len(trials(study)) - len(specs)
    assert f"Incomplete: {left} of {len(trials(study))} planned trials have no complete result." in answer.warnings
    assert "no other allocator is complete yet" in dict(answer.facts)["Result"]
    assert "Incomplete" not in " ".join(blocks(study, make(trials(study)))["answer"].warnings)


def test_rows_kept_apart_are_unused_unless_they_repeat_training_rows(study: StudySpec) -> None:
    """Report rows with the texts of training rows are counted in place of a claim that is then false."""
    task = {"name": "own", "problem": "classification", "data": {"train": "x.csv"}, "text": "body", "label": "kind"}
    own = StudySpec(name="own", base={**study.base, "task": task}, space={"seed": [0, 1]})
    made = make(trials(own))
    start = "own has no report split of its own: report scores use a stratified 20% of its training rows"
    assert f"{start}, which no training and no choice used." in blocks(own, made)["answer"].warnings
    note = (
        "6 of the 60 report rows of own have the texts of a training row: remove duplicates before you split the rows"
    )
    other = note.replace("report", "search")
    told = [result.model_copy(update={"notes": (other, note)}) for result in made]
    assert f"{start}. {note}." in blocks(own, told)["answer"].warnings
    told = [result.model_copy(update={"notes": (other,)}) for result in made]
    assert f"{start}, which no training and no choice used." in blocks(own, told)["answer"].warnings


def test_every_dimension_is_named(study: StudySpec) -> None:
    """Without anything to compare, a grid over steps says which number is best, and how many were compared."""
    space = {"allocator": [{"name": "uniform"}], "training.steps": [100, 200, 400], "seed": [0, 1]}
    grid = StudySpec(name="steps", base=study.base, space=space)
    made = make(trials(grid))
    _, (_, sentence), _ = blocks(grid, made)["answer"].facts
    evidence = Evidence.of(grid, made, {})
    ((_, row),) = evidence.chosen.iterrows()
    steps = evidence.by_key[row["key"]].spec["training"]["steps"]
    assert f"uniform (steps {steps}) {row['score']:.3f}" in sentence
    assert "is the best of 3 on the search split" in sentence


def test_only_failures(study: StudySpec, results: list[TrialResult]) -> None:
    """Nothing is left but the reasons."""
    failed = [result for result in results if result.status == "failed"]
    found = blocks(study, failed)
    assert list(found) == ["answer", "failures", "provenance"]
    assert "No trial is complete" in found["answer"].warnings[0]
    assert list(found["failures"].tables[0].frame["key"]) == [failed[0].key]


def test_trials_without_a_budget(study: StudySpec) -> None:
    base = {"task": {"name": "rte"}, "allocator": {"name": "static", "ranks": {"*": 3}}}
    static = StudySpec(name="static", base=base, space={"seed": [0, 1]})
    found = blocks(static, make(trials(static)))
    assert "no uniform trial at the same budget" in found["answer"].facts[1][1]
    assert found["ranks"].charts
    assert "budget" not in found


def test_paper_protocol_is_a_warning(study: StudySpec) -> None:
    paper = StudySpec(name="paper", base=study.base | {"task": {"name": "rte", "protocol": "paper"}})
    found = blocks(paper, make(trials(paper)))
    assert "optimistic" in found["answer"].warnings[0]
    assert "paper" in found["provenance"].warnings[0]


def test_a_part_kept_apart_is_a_warning(study: StudySpec) -> None:
    task = {"name": "own", "problem": "classification", "data": {"train": "a.csv"}, "text": "b", "label": "c"}
    own = StudySpec(name="own", base=study.base | {"task": task}, space={"seed": [0, 1]})
    warnings = blocks(own, make(trials(own)))["answer"].warnings
    assert any("report scores use a stratified 20% of its training rows" in text for text in warnings)


def test_what_a_search_found(study: StudySpec) -> None:
    """The best and the cheapest of the Pareto front with their values, however many budgets there are."""
    space = {"budget.mean_rank": {"float": [1.0, 8.0]}, "training.lr": {"float": [1e-3, 1e-2]}}
    search = {"name": "random", "trials": 14}
    spec = StudySpec.model_validate({"name": "search", "base": study.base, "space": space, "search": search})
    made = [spec.trial({"budget.mean_rank": 1 + k / 2, "training.lr": 1e-3 * (1 + k % 5)}) for k in range(14)]
    record = SearchRecord([Proposal([trial.key], "complete") for trial in made])
    evidence = Evidence.of(spec, make(made), {}, record)
    found = blocks(spec, make(made), record)
    front = evidence.front("mini-cola")
    assert len(front) > 1
    (_, question), (_, sentence), _ = found["answer"].facts
    assert question.endswith("The search random looked for it over mean_rank and lr.")
    assert "the best of 14 configurations on the search split is uniform (lr" in sentence
    assert f"{front.iloc[-1]['kept']:,.0f} parameters" in sentence
    assert f"the Pareto front has {len(front)} configurations, the cheapest of which is uniform (lr" in sentence
    rates = {f"lr {trial.training.lr:.3g}" for trial in made if trial.key in set(front["key"])}
    assert set(found["scores"].tables[0].frame["configuration"]) == rates
    (chart,) = found["ranks"].charts
    assert len(chart.panels) == min(6, len(front))
    assert chart.panels[0].title.startswith("uniform, ")
    assert found["dimension-importance"].text[0].startswith("Not computed")


def test_a_constraint_that_nothing_meets(study: StudySpec) -> None:
    spec, made = searched(study, objectives={"score": "maximize"}, constraints={"parameters": 1})
    record = SearchRecord([Proposal([result.key], "complete") for result in made])
    assert "none of 12 configurations meets the constraint" in blocks(spec, made, record)["answer"].facts[1][1]

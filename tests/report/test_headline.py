"""The answer in a few lines: at most three, no wider than the terminal, with the numbers of the report's answer."""

from __future__ import annotations

import re

import pytest
from synthetic_results import failure, grid, make, searched, trials

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.evidence import Evidence
from rankopt.report.headline import headline
from rankopt.report.sections.answer import Answer

NUMBER = r"\d+(?:[.,]\d+)*"


def studies() -> dict[str, tuple[StudySpec, list[TrialResult]]]:
    two, one = grid(), grid(space={"seed": [0]})
    alone = grid(space={"allocator": [{"name": "uniform"}]})
    return {
        "a comparison": (two, make(trials(two))),
        "one seed": (one, make(trials(one))),
        "nothing to compare": (alone, make(trials(alone))),
        "a search": searched(two),
    }


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("case", studies())
def test_it_is_the_reports_answer(case: str, width: int) -> None:
    """Every number is in the answer of the page; no word is broken."""
    study, results = studies()[case]
    lines = headline(study, results, width)
    assert 1 <= len(lines) <= 3
    assert max(map(len, lines)) <= width
    block = Answer().block(Evidence.of(study, results, {}))
    text = " ".join(text for _, text in block.facts)
    numbers = re.findall(NUMBER, " ".join(lines))
    assert numbers
    assert set(numbers) <= set(re.findall(NUMBER, text))


def test_a_comparison_names_best_and_worst() -> None:
    study, results = studies()["a comparison"]
    first, *others = headline(study, results, 200)
    assert first.startswith("Best: adalora, validation score 0.0")
    assert "Worst: random, 0.0" in first
    assert others[0].startswith("Use ")


def test_the_lack_of_seeds_comes_first() -> None:
    assert headline(*studies()["one seed"])[0].startswith("No difference can be significant with one seed")


def test_nothing_without_a_complete_result() -> None:
    study = grid()
    assert headline(study, [failure(spec) for spec in trials(study)]) == []

"""Validation without data: every problem of a study is one line with its line number in the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.core.errors import InvalidSpecError
from rankopt.core.study_file import StudyFile
from rankopt.study.plan import validated_trials

Make = Callable[..., Path]

OWN: dict[str, Any] = {
    "name": "own", "problem": "classification", "data": {"train": "train.csv"}, "text": "body", "label": "queue",
}  # fmt: skip
PROBLEMS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is wrong: the change, the dotted path, part of the message
    "an unknown task": (
        {"task__name": "sst3"},
        "base.task.name",
        "must be a known task, got 'sst3'; did you mean 'sst2'?",
    ),
    "an unknown allocator": (
        {"allocator": {"name": "adalroa"}},
        "base.allocator.name",
        "must be a known allocator, got 'adalroa'; did you mean 'adalora'?",
    ),
    "an unknown option": (
        {"allocator": {"name": "adalora", "warmpu": 3}},
        "base.allocator.warmpu",
        "is not a known field; did you mean 'warmup'?",
    ),
    "a wrong option": (
        {"allocator": {"name": "dylora", "draw": "nework"}},
        "base.allocator.draw",
        "must be one of network, layer, got 'nework'; did you mean 'network'?",
    ),
    "own data under a registered name": (
        {"task": OWN | {"name": "rte"}},
        "base.task.name",
        "must not be a registered task where task.data is given, got 'rte'; choose another name",
    ),
    "an unknown metric": (
        {"task": OWN | {"metrics": ["macrof1"]}},
        "base.task.metrics[0]",
        "must be a metric of classification, got 'macrof1'; did you mean 'macro_f1'?",
    ),
    "a metric of another problem": (
        {"task": OWN | {"metrics": ["accuracy", "mse"]}},
        "base.task.metrics[1]",
        "must be a metric of classification, got 'mse'",
    ),
    "classes of a regression": (
        {"task": OWN | {"problem": "regression", "labels": ["a", "b"]}},
        "base.task.labels",
        "is for a classification, and task.problem is regression: remove it",
    ),
    "a class listed twice": (
        {"task": OWN | {"labels": ["a", "a"]}},
        "base.task.labels[1]",
        "must list distinct values, got 'a' twice",
    ),
    "no budget": ({"budget": None}, "base.budget", "must be given for the allocator 'uniform'"),
    "a scale policy that changes the function": (
        {"allocator": {"name": "spectral"}, "model__scale": "active"},
        "base.model.scale",
        "must be one of published, init, rs, unit for the allocator 'spectral', got 'active'",
    ),
}


def problem_lines(path: Path) -> list[str]:
    file = StudyFile(path)
    with pytest.raises(InvalidSpecError) as caught:
        validated_trials(file)
    return caught.value.lines


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_one_line_with_its_location(case: str, tiny_study: Make) -> None:
    """File, line number of the value, dotted path, rule and value; once, although two trials have the problem."""
    changes, dotted, message = PROBLEMS[case]
    path = tiny_study(space={"seed": [0, 1]}, **changes)
    lines = problem_lines(path)
    assert len(lines) == 1, lines
    found = re.match(rf"{re.escape(str(path))}:(\d+): (\S+) ", lines[0])
    assert found, lines[0]
    assert message in lines[0]
    assert found[2] == dotted
    key = dotted.split(".")[-1]
    assert key in path.read_text().splitlines()[int(found[1]) - 1] or key == "budget" or "[" in key


def test_a_problem_in_the_space_names_its_index(tiny_study: Make) -> None:
    """An invalid value of a dimension is reported with its index, at its own line."""
    path = tiny_study(space={"allocator": [{"name": "uniform"}, {"name": "adalora", "beta1": 3.0}], "seed": [0, 1]})
    (line,) = problem_lines(path)
    assert "space.allocator[1].beta1 must be less than 1, got 3.0" in line
    number = int(line.removeprefix(f"{path}:").split(":")[0])
    assert path.read_text().splitlines()[number - 1].strip() == "beta1: 3.0"


def test_all_problems_are_reported_at_once(tiny_study: Make) -> None:
    """One line per problem."""
    space = {"allocator": [{"name": "nobody"}, {"name": "uniform"}, {"name": "ramp", "ratio": 0.5}]}
    lines = problem_lines(tiny_study(space=space))
    assert len(lines) == 2
    assert "space.allocator[0].name" in lines[0]
    assert "space.allocator[2].ratio" in lines[1]


def test_an_unknown_search(tiny_study: Make, tmp_path: Path) -> None:
    """The message names the field and the nearest valid name."""
    path = tiny_study()
    path.write_text(path.read_text() + "search: {name: gird}\n")
    with pytest.raises(InvalidSpecError, match=r"search\.name must be a known search, got 'gird'; did you mean 'grid'"):
        validated_trials(StudyFile(path))


def test_a_range_under_the_grid(tiny_study: Make) -> None:
    """A space that the search cannot use is reported at the dimension's line."""
    path = tiny_study(space={"training.lr": {"float": [1e-4, 1e-3]}})
    with pytest.raises(InvalidSpecError, match=rf"{re.escape(str(path))}:\d+: space\.training\.lr must be a list"):
        validated_trials(StudyFile(path))


def test_one_shot_needs_a_super_network(tiny_study: Make) -> None:
    """The error names the allocators that train one, and the value in the space that does not."""
    path = tiny_study(space={"allocator": [{"name": "nested"}, {"name": "uniform"}]}, model__scale="unit")
    path.write_text(path.read_text() + "search: {name: oneshot}\n")
    words = r"space\.allocator\[1\]\.name must be an allocator that trains a super-network \(nested\) .* got 'uniform'"
    with pytest.raises(InvalidSpecError, match=words):
        validated_trials(StudyFile(path))


REPEAT = """
repeat:
  seed: [0, 1, 2]
  task.name:
    - sst2
    - {}
search: {{name: random, trials: 2, pruner: {{name: wilcoxon}}}}
objectives: {{score: maximize}}
"""


def repeated(tiny_study: Make, task: str = "cola") -> Path:
    """Write a study that repeats its proposals over seeds and tasks."""
    path = tiny_study(space={"training.lr": {"float": [1e-4, 1e-3]}}, allocator__name="adalora")
    path.write_text(path.read_text() + REPEAT.format(task))
    return path


def test_repeats_are_checked_with_the_space(tiny_study: Make) -> None:
    """Both ends of a range are checked at each repeat. A racing pruner accepts allocators that change their pattern."""
    trials = [spec for _, spec in validated_trials(StudyFile(repeated(tiny_study)))]
    assert {(t.training.lr, t.seed, t.task.name) for t in trials} == {
        (lr, seed, task) for lr in (1e-4, 1e-3) for seed in range(3) for task in ("sst2", "cola")
    }


def test_a_wrong_repeat_is_reported_at_its_line(tiny_study: Make) -> None:
    """Unknown values, fields that may not repeat, and dimensions of the space."""
    path = repeated(tiny_study, "coal")
    with pytest.raises(InvalidSpecError) as caught:
        validated_trials(StudyFile(path))
    assert len(caught.value.lines) == 1
    found = re.match(
        rf"{re.escape(str(path))}:(\d+): repeat\.task\.name\[1\] .*'coal'; did you mean", caught.value.lines[0]
    )
    assert found
    assert path.read_text().splitlines()[int(found[1]) - 1].strip() == "- coal"
    for override, words in (
        (
            "repeat.model.alpha=[1.0]",
            r"repeat\.model\.alpha must not be .*: repeat may only vary seed, task, training",
        ),
        ("repeat.training.lr=[1.0e-3]", r"repeat dimensions must not overlap"),
        ("repeat.seed=[0, 1, 0]", r"repeat\.seed must list distinct values, got 0 twice"),
        ("repeat.seed=3", r"repeat\.seed must be a list of values, got 3"),
        ("objectives={parameters: maximize}", r"objectives\.parameters must be 'minimize', got 'maximize'"),
        ("repeat.seed={int: [0, 3]}", r"repeat\.seed must be a list of values, got"),
        ("repeat.seed=[]", r"must not be an empty list"),
    ):
        with pytest.raises(InvalidSpecError, match=words) as caught:
            StudyFile(repeated(tiny_study), [override])
        assert len(caught.value.lines) == 1


def test_a_fixed_value_replaces_a_repeat(tiny_study: Make) -> None:
    """`--set` with a value removes the repeat, with a list it replaces the repeated values."""
    study = StudyFile(repeated(tiny_study), ["seed=7", "task.name=[sst2, cola, rte]"]).study
    assert study.repeat == {"task.name": ["sst2", "cola", "rte"]}
    assert study.base["seed"] == 7


def test_a_grid_repeats_nothing(tiny_study: Make) -> None:
    """In a grid, a seed is a dimension."""
    path = tiny_study()
    path.write_text(path.read_text() + "repeat: {task.name: [sst2, cola]}\n")
    with pytest.raises(InvalidSpecError, match="repeat must be left out under the search 'grid'"):
        validated_trials(StudyFile(path))


def test_defaults_do_not_change_the_key(tiny_study: Make) -> None:
    """An option given at its default makes the same trial as an absent option, and is planned once."""
    allocators = [{"name": "adalora"}, {"name": "adalora", "beta1": 0.85}, {"name": "adalora", "beta1": 0.9}]
    trials = validated_trials(StudyFile(tiny_study(space={"allocator": allocators})))
    assert [spec.allocator.options for _, spec in trials] == [{}, {"beta1": 0.9}]


SEARCH_OPTIONS: dict[str, tuple[str, str]] = {
    # what is wrong: the search, part of the message
    "a pruner without its form": (
        "{name: tpe, trials: 9, pruner: hyperband}",
        "search.pruner must be a mapping, for example {name: hyperband}, got 'hyperband'",
    ),
    "a pruner that is no name": ("{name: tpe, trials: 9, pruner: 3}", "search.pruner must be a mapping, got 3"),
    "constraints inside it": (
        "{name: tpe, trials: 9, constraints: {parameters: 100}}",
        "search.constraints is not an option of search: move it one level up, beside search",
    ),
    "objectives inside it": (
        "{name: tpe, trials: 9, objectives: {score: maximize}}",
        "search.objectives is not an option of search: move it one level up, beside search",
    ),
    "too many trials": ("{name: tpe, trials: 1000000000}", "search.trials must be"),
    "too many candidates": ("{name: tpe, trials: 9, candidates: 1000000000}", "search.candidates must be"),
    "too large a population": ("{name: nsga2, trials: 9, population: 1000000000}", "search.population must be"),
    "too large a seed": ("{name: qmc, trials: 9, seed: 4294967296}", "search.seed must be"),
    "an infinite level": ("{name: oneshot, levels: [.inf]}", "search.levels[0] must be"),
}


@pytest.mark.parametrize("case", SEARCH_OPTIONS)
def test_wrong_options_of_a_search(tiny_study: Make, case: str) -> None:
    """One line at the option's line of the file, with what to do instead."""
    search, words = SEARCH_OPTIONS[case]
    path = tiny_study(space={"training.lr": [1e-4, 1e-3]})
    path.write_text(path.read_text() + f"search: {search}\n")
    (line,) = problem_lines(path)
    number = len(path.read_text().splitlines())
    assert line.startswith(f"{path}:{number}: ")
    assert words in line


def test_a_name_without_its_mapping(tiny_study: Make) -> None:
    """`search: tpe` and the like show the form that they need."""
    path = tiny_study()
    path.write_text(path.read_text() + "search: tpe\n")
    with pytest.raises(InvalidSpecError, match=r"search must be a mapping, for example \{name: tpe\}, got 'tpe'"):
        StudyFile(path)


def test_a_level_without_a_pattern(tiny_study: Make) -> None:
    """`search.levels` must be levels of the allocator; one line, whatever the number of trials."""
    path = tiny_study(allocator={"name": "nested", "curve": [1.0, 3.0]}, budget=None, model__scale="unit")
    path.write_text(path.read_text() + "search: {name: oneshot, levels: [2.0]}\n")
    (line,) = problem_lines(path)
    assert line.endswith("search.levels must be ranks at which allocator 'nested' finds patterns (1, 3, 4), got 2")


@pytest.mark.parametrize("search", ["grid", "oneshot"])
def test_a_value_listed_twice(tiny_study: Make, search: str) -> None:
    """A grid would count a seed twice."""
    path = tiny_study(space={"seed": [0, 1, 0]})
    path.write_text(path.read_text() + f"search: {{name: {search}}}\n")
    (line,) = problem_lines(path)
    assert "space.seed must list distinct values, got 0 twice" in line


def test_an_option_of_the_trial_inside_an_allocator(tiny_study: Make) -> None:
    (line,) = problem_lines(tiny_study(allocator={"name": "uniform", "budget": {"mean_rank": 2}}))
    assert "allocator.budget is not an option of allocator: move it one level up, beside allocator" in line

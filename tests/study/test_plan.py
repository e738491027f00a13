"""Checked before anything runs: what is wrong with a study is one line each, with its place in the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.core.problems import InvalidSpecError
from rankopt.core.study_file import StudyFile
from rankopt.study.plan import checked_trials, preflight, seconds_per_flop
from rankopt.training.trial import run_trial

Make = Callable[..., Path]

PROBLEMS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is wrong: the change, the dotted path, what the line says after it
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
        "is no known field; did you mean 'warmup'?",
    ),
    "a wrong option": (
        {"allocator": {"name": "dylora", "draw": "nework"}},
        "base.allocator.draw",
        "must be one of network, layer, got 'nework'; did you mean 'network'?",
    ),
    "no budget": ({"budget": None}, "base.budget", "must be given for the allocator 'uniform'"),
    "a scale policy that changes the function": (
        {"allocator": {"name": "spectral"}, "model__scale": "active"},
        "base.model.scale",
        "must be published or one of init, rs, unit for the allocator 'spectral', got 'active'",
    ),
    "a missing data folder": (
        {"task__data_dir": "/no/such/folder"},
        "base.task.data_dir",
        "/no/such/folder must exist",
    ),
    "a data folder without the task": ({"task__name": "rte"}, "base.task.data_dir", "rte must exist"),
    "a missing model": ({"model__name": "/no/model"}, "base.model.name", "must be a local folder"),
    "a target that matches nothing": (
        {"model__target_modules": ["qeury"]},
        "base.model.target_modules",
        "'qeury' matches no linear map; did you mean 'query'?",
    ),
    "a regular expression that is none": ({"model__target_modules": "query("}, "base.model.target_modules", "'query('"),
    "a budget beyond the layers": (
        {"budget": {"ranks": 49}},
        "base.budget",
        "must be at most 48 ranks for 12 layers of model.max_rank 4, got 49",
    ),
    "a static pattern over its budget": (
        {"allocator": {"name": "static", "ranks": {"*": 3}}},
        "base.allocator.ranks",
        "must fit 24 ranks, the budget or else model.max_rank everywhere, got 36",
    ),
    "a glob that matches nothing": (
        {"allocator": {"name": "static", "ranks": {"*.qery": 3}}},
        "base.allocator",
        "the glob '*.qery' matches no adapted layer",
    ),
    "phases longer than the training": (
        {"allocator": {"name": "adalora", "warmup": 5, "final": 7}},
        "base.allocator.warmup",
        "must be fewer than the trial's 12 steps, got 5 + 7",
    ),
    "recovery as long as the training": (
        {"allocator": {"name": "spectral", "recovery": 12}},
        "base.allocator.recovery",
        "must be fewer than the trial's 12 steps, got 12",
    ),
    "more search examples than rows": (
        {"task__search_examples": 104},
        "base.task.search_examples",
        "got 104",
    ),
    "a budget that pays for no component": (
        {"budget": {"parameters": 10}},
        "base.budget",
        "must pay for at least one component (64 parameters), got 10 which pays for none; 0 trains the head alone",
    ),
    "a mean rank that rounds to none": ({"budget": {"mean_rank": 0.01}}, "base.budget", "must pay for at least one"),
    "no room for text": ({"task__max_length": 4, "task__name": "stsb"}, "base.task.max_length", "must be at least 5"),
}


def problem_lines(path: Path) -> list[str]:
    file = StudyFile(path)
    with pytest.raises(InvalidSpecError) as caught:
        preflight(file, checked_trials(file))
    return caught.value.lines


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_one_line_with_its_place(case: str, tiny_study: Make) -> None:
    """One line: file, line number of the value, dotted path, rule, value. One, although two trials have it."""
    changes, dotted, message = PROBLEMS[case]
    path = tiny_study(space={"seed": [0, 1]}, **changes)
    lines = problem_lines(path)
    assert len(lines) == 1, lines
    found = re.match(rf"{re.escape(str(path))}:(\d+): (\S+) ", lines[0])
    assert found, lines[0]
    assert message in lines[0]
    assert found[2] == dotted
    key = dotted.split(".")[-1]
    assert key in path.read_text().splitlines()[int(found[1]) - 1] or key == "budget"


def test_a_problem_in_the_space_is_placed_there(tiny_study: Make) -> None:
    """A wrong value of a dimension is named with its index, on its own line; good values beside it are not."""
    path = tiny_study(space={"allocator": [{"name": "uniform"}, {"name": "adalora", "final": 30}], "seed": [0, 1]})
    (line,) = problem_lines(path)
    assert "space.allocator[1].warmup + allocator.final must be fewer than the trial's 12 steps, got 2 + 30" in line
    number = int(line.removeprefix(f"{path}:").split(":")[0])
    assert path.read_text().splitlines()[number - 1].strip() in ("final: 30", "- name: adalora")


def test_several_problems_are_several_lines(tiny_study: Make) -> None:
    """All problems of a study come at once."""
    space = {"allocator": [{"name": "nobody"}, {"name": "uniform"}, {"name": "ramp", "ratio": 0.5}]}
    lines = problem_lines(tiny_study(space=space))
    assert len(lines) == 2
    assert "space.allocator[0].name" in lines[0]
    assert "space.allocator[2].ratio" in lines[1]


def test_an_unknown_search(tiny_study: Make, tmp_path: Path) -> None:
    """Named with the nearest, in the place where it stands."""
    path = tiny_study()
    path.write_text(path.read_text() + "search: {name: gird}\n")
    with pytest.raises(InvalidSpecError, match=r"search\.name must be a known search, got 'gird'; did you mean 'grid'"):
        checked_trials(StudyFile(path))


def test_a_range_under_the_grid(tiny_study: Make) -> None:
    """A search that cannot use the space says so with the dimension's line."""
    path = tiny_study(space={"training.lr": {"float": [1e-4, 1e-3]}})
    with pytest.raises(InvalidSpecError, match=rf"{re.escape(str(path))}:\d+: space\.training\.lr must be a list"):
        checked_trials(StudyFile(path))


def test_one_shot_needs_a_super_network(tiny_study: Make) -> None:
    """The error names the allocators that train one, and the value in the space that does not."""
    path = tiny_study(space={"allocator": [{"name": "nested"}, {"name": "uniform"}]}, model__scale="unit")
    path.write_text(path.read_text() + "search: {name: oneshot}\n")
    words = r"space\.allocator\[1\]\.name must be an allocator that trains a super-network \(nested\) .* got 'uniform'"
    with pytest.raises(InvalidSpecError, match=words):
        checked_trials(StudyFile(path))


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
    """A study that repeats its proposals over seeds and tasks."""
    path = tiny_study(space={"training.lr": {"float": [1e-4, 1e-3]}}, allocator__name="adalora")
    path.write_text(path.read_text() + REPEAT.format(task))
    return path


def test_repeats_are_checked_with_the_space(tiny_study: Make) -> None:
    """Each end of a range at each repeat is a trial; a race serves allocators that change their pattern too."""
    trials = [spec for _, spec in checked_trials(StudyFile(repeated(tiny_study)))]
    assert {(t.training.lr, t.seed, t.task.name) for t in trials} == {
        (lr, seed, task) for lr in (1e-4, 1e-3) for seed in range(3) for task in ("sst2", "cola")
    }


def test_a_wrong_repeat_is_placed_there(tiny_study: Make) -> None:
    """On its own line, whether the value is unknown or the field is no repetition or a dimension."""
    path = repeated(tiny_study, "coal")
    with pytest.raises(InvalidSpecError) as caught:
        checked_trials(StudyFile(path))
    assert len(caught.value.lines) == 1
    found = re.match(
        rf"{re.escape(str(path))}:(\d+): repeat\.task\.name\[1\] .*'coal'; did you mean", caught.value.lines[0]
    )
    assert found
    assert path.read_text().splitlines()[int(found[1]) - 1].strip() == "- coal"
    for override, words in (
        ("repeat.model.alpha=[1.0]", r"repeat is not valid: 'model\.alpha' must be a field of seed, task, training"),
        ("repeat.training.lr=[1.0e-3]", r"repeat dimensions must not overlap"),
        ("repeat.seed=[0, 1, 0]", r"repeat is not valid: 'seed' must list different values"),
        ("repeat.seed=3", r"repeat is not valid: dimension 'seed' must be a list of values, got 3"),
        ("objectives={score: minimize}", r"objectives is not valid: 'score' must be to maximize"),
        ("repeat.seed={int: [0, 3]}", r"repeat is not valid: dimension 'seed' must be a list of values, got"),
        ("repeat.seed=[]", r"must not be an empty list"),
    ):
        with pytest.raises(InvalidSpecError, match=words) as caught:
            StudyFile(repeated(tiny_study), [override])
        assert len(caught.value.lines) == 1


def test_a_fixed_value_takes_a_repeat_away(tiny_study: Make) -> None:
    """`--set` of a field that the study repeats fixes it, as with a dimension; a list replaces the list."""
    study = StudyFile(repeated(tiny_study), ["seed=7", "task.name=[sst2, cola, rte]"]).study
    assert study.repeat == {"task.name": ["sst2", "cola", "rte"]}
    assert study.base["seed"] == 7


def test_a_grid_repeats_nothing(tiny_study: Make) -> None:
    """There a seed is a dimension."""
    path = tiny_study()
    path.write_text(path.read_text() + "repeat: {task.name: [sst2, cola]}\n")
    with pytest.raises(InvalidSpecError, match="repeat must be left out under the search 'grid'"):
        checked_trials(StudyFile(path))


def test_defaults_make_no_other_trial(tiny_study: Make) -> None:
    """An option spelled out at its default is the same trial as one left out, and is planned once."""
    allocators = [{"name": "adalora"}, {"name": "adalora", "beta1": 0.85}, {"name": "adalora", "beta1": 0.9}]
    trials = checked_trials(StudyFile(tiny_study(space={"allocator": allocators})))
    assert [spec.allocator.options for _, spec in trials] == [{}, {"beta1": 0.9}]


def test_the_plan_tells_the_cost(tiny_study: Make, tmp_path: Path) -> None:
    """Steps and tokens of the plan are those that the trial then reports; twice the epochs are twice the operations."""
    file = StudyFile(tiny_study(space={"training.epochs": [1.0, 2.0]}, training={"batch_size": 16, "accumulation": 2}))
    (one, two), _ = preflight(file, checked_trials(file))
    result = run_trial(one.spec, tmp_path / "trial")
    assert result.cost is not None
    assert result.cost.steps == one.steps == 3
    assert two.steps == 6
    # padding depends on the seed's batches, the tokens in them do not
    assert one.tokens == pytest.approx(result.cost.padded_tokens, rel=0.15)
    assert two.flops == pytest.approx(2 * one.flops, rel=0.15)
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    assert one.flops >= 4 * weights * result.cost.tokens


def test_a_pace_is_plausible() -> None:
    """Some machine's flop takes between 1e-15 and 1e-7 seconds."""
    assert 1e-15 < seconds_per_flop("fp32", 0.05) < 1e-7


def test_nothing_is_loaded(tiny_study: Make, tiny_model: Path, monkeypatch: Any) -> None:
    """A preflight reads configs, tokenizers and data, never weights, however many trials there are."""
    from transformers import PreTrainedModel

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    space = {"allocator": [{"name": "uniform"}, {"name": "adalora"}, {"name": "spectral"}], "seed": list(range(20))}
    file = StudyFile(tiny_study(space=space))
    assert len(preflight(file, checked_trials(file))[0]) == 60


def test_texts_longer_than_the_models_positions(tiny_study: Make, tiny_model: Path, tmp_path: Path) -> None:
    """A model with fewer positions than the longest text is refused before it would fail in training."""
    import shutil

    from transformers import AutoConfig, BertModel

    short = tmp_path / "short"
    shutil.copytree(tiny_model, short)
    BertModel(AutoConfig.from_pretrained(short, max_position_embeddings=4)).save_pretrained(short)
    (line,) = problem_lines(tiny_study(model__name=str(short)))
    assert "base.task.max_length must be at most 4 for" in line

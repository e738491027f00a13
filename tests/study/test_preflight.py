"""Preflight: unusable data, models and budgets are one line each; costs are estimated; no weights are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.core.errors import InvalidSpecError
from rankopt.core.study_file import StudyFile
from rankopt.study.plan import validated_trials
from rankopt.study.preflight import directed, preflight, seconds_per_flop
from rankopt.training.trial import run_trial

Make = Callable[..., Path]

PROBLEMS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is wrong: the change, the dotted path, part of the message
    "a missing data folder": (
        {"task__data_dir": "/no/such/folder"},
        "base.task.data_dir",
        "but /no/such/folder is not a folder",
    ),
    "a data folder without the task": ({"task__name": "rte"}, "base.task.data_dir", "rte is not a folder"),
    "a missing model": ({"model__name": "/no/model"}, "base.model.name", "must be a local folder"),
    "a target that matches nothing": (
        {"model__target_modules": ["qeury"]},
        "base.model.target_modules",
        "'qeury' matches no linear map; did you mean 'query'?",
    ),
    "a regular expression that is none": ({"model__target_modules": "query("}, "base.model.target_modules", "'query('"),
    "a rank that no layer can have": (
        {"model__max_rank": 500},
        "base.model.max_rank",
        "must be at most 32, the highest rank that an adapted layer of",
    ),
    "a number format that needs a GPU": (
        {"model__dtype": "float16", "training__precision": "fp16"},
        "base.model.dtype",
        "must be 'float32' or 'bfloat16' on a CPU, got 'float16'",
    ),
    "an attention that is not installed": (
        {"model__attention": "flash_attention_2"},
        "base.model.attention",
        "must be one that",
    ),
    "material of other classes": (
        {"retain": {"name": "mini-cola"}},
        "base.retain",
        "must have the outputs of task 'sst2', because the same model predicts both",
    ),
    "a prompt beyond the positions": (
        {"tuner": {"name": "prompt", "tokens": 30}, "task__max_length": 38},
        "base.task.max_length",
        "must be at most 10, the number of positions of",
    ),
    "targets that PEFT does not find": (
        {"tuner": {"name": "peft", "config": {"peft_type": "IA3", "target_modules": ["qeury"]}}},
        "base.tuner.config",
        "cannot be used on this model",
    ),
    "a budget beyond the layers": (
        {"budget": {"ranks": 49}},
        "base.budget",
        "must be at most 48 ranks for 12 layers of model.max_rank 4, got 49",
    ),
    "a static pattern over its budget": (
        {"allocator": {"name": "static", "ranks": {"*": 3}}},
        "base.allocator.ranks",
        "must cost at most 24 ranks (the budget, or else model.max_rank everywhere), got 36",
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
        "must be 0 (train the head only) or at least 64 parameters, the cost of one component, got 10",
    ),
    "a mean rank that rounds to none": (
        {"budget": {"mean_rank": 0.01}},
        "base.budget",
        "must be 0 (train the head only) or at least 1 ranks",
    ),
    "no room for text": ({"task__max_length": 4, "task__name": "stsb"}, "base.task.max_length", "must be at least 5"),
}


def problem_lines(path: Path) -> list[str]:
    file = StudyFile(path)
    with pytest.raises(InvalidSpecError) as caught:
        preflight(file, validated_trials(file))
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
    assert key in path.read_text().splitlines()[int(found[1]) - 1] or key == "budget"


def test_a_problem_in_the_space_names_its_index(tiny_study: Make) -> None:
    """An unusable value of a dimension is reported with its index, at its own line."""
    path = tiny_study(space={"allocator": [{"name": "uniform"}, {"name": "adalora", "final": 30}], "seed": [0, 1]})
    (line,) = problem_lines(path)
    assert "space.allocator[1].warmup + allocator.final must be fewer than the trial's 12 steps, got 2 + 30" in line
    number = int(line.removeprefix(f"{path}:").split(":")[0])
    assert path.read_text().splitlines()[number - 1].strip() in ("final: 30", "- name: adalora")


def test_estimated_costs(tiny_study: Make, tmp_path: Path) -> None:
    """Planned steps and tokens match those that the trial reports; twice the epochs cost twice the operations."""
    file = StudyFile(tiny_study(space={"training.epochs": [1.0, 2.0]}, training={"batch_size": 16, "accumulation": 2}))
    one, two = preflight(file, validated_trials(file)).planned
    result = run_trial(one.spec, tmp_path / "trial")
    assert result.cost is not None
    assert result.cost.steps == one.steps == 3
    assert two.steps == 6
    # padding depends on the batches and therefore on the seed
    assert one.tokens == pytest.approx(result.cost.padded_tokens, rel=0.15)
    assert two.flops == pytest.approx(2 * one.flops, rel=0.15)
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    assert one.flops >= 4 * weights * result.cost.tokens


def test_seconds_per_flop_is_plausible() -> None:
    """Between 1e-15 and 1e-7 seconds."""
    assert 1e-15 < seconds_per_flop("fp32", "cpu", 0.05) < 1e-7


def test_no_weights_are_read(tiny_study: Make, tiny_model: Path, monkeypatch: Any) -> None:
    """A preflight reads configs, tokenizers and data, but no weights."""
    from transformers import PreTrainedModel

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    space = {"allocator": [{"name": "uniform"}, {"name": "adalora"}, {"name": "spectral"}], "seed": list(range(20))}
    file = StudyFile(tiny_study(space=space))
    assert len(preflight(file, validated_trials(file)).planned) == 60


def test_texts_longer_than_the_models_positions(tiny_study: Make, tiny_model: Path, tmp_path: Path) -> None:
    """A model with fewer positions than the longest text is refused before training."""
    import shutil

    from transformers import AutoConfig, BertModel

    short = tmp_path / "short"
    shutil.copytree(tiny_model, short)
    BertModel(AutoConfig.from_pretrained(short, max_position_embeddings=4)).save_pretrained(short)
    (line,) = problem_lines(tiny_study(model__name=str(short)))
    assert "base.task.max_length must be at most 4, the number of positions of" in line


def test_the_direction_of_the_score_follows_the_metric(tiny_study: Make) -> None:
    """Perplexity is minimised without being told; a file that says otherwise, or a search over both, is refused."""
    changes = {"model__name": "mini-decoder", "task": {"name": "mini-text", "train_examples": 20}}
    file = StudyFile(tiny_study(**changes))
    trials = validated_trials(file)
    assert directed(file, [spec for _, spec in trials]) == {"score": "minimize", "parameters": "minimize"}
    told = StudyFile(tiny_study(**changes), ["objectives={score: maximize}"])
    with pytest.raises(InvalidSpecError, match=r"objectives.score must be 'minimize' for the metric 'perplexity'"):
        directed(told, [spec for _, spec in validated_trials(told)])
    tasks = ["search={name: random, trials: 4}", "space.task.name=[mini-text, mini-e2e]"]
    both = StudyFile(tiny_study(**changes), tasks)
    with pytest.raises(InvalidSpecError, match="cannot compare metrics of both directions, got bleu and perplexity"):
        directed(both, [spec for _, spec in validated_trials(both)])

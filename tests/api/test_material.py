"""The examples that adapters are scored on, and what an adapter's folder says about its outputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rankopt.analysis.resamples import resamples
from rankopt.api.material import _scores_one_by_one, head_of_adapter, is_language_model, read_material, resampled
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.described import Head
from rankopt.tasks.problems.classification import Classification
from rankopt.training.trial import run_trial


@pytest.fixture(scope="module")
def adapter(tiny_spec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    run_trial(tiny_spec(training__steps=4), folder)
    return folder / "adapter"


def test_the_head_of_an_adapter(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Labels from the config that rankopt writes; without it the number of outputs; none of a language model."""
    assert head_of_adapter(adapter, str(tiny_model)) == Head(outputs=2, labels=("negative", "positive"))
    bare = tmp_path / "bare"
    shutil.copytree(adapter, bare, ignore=shutil.ignore_patterns("config.json"))
    assert head_of_adapter(bare, str(tiny_model)) == Head(outputs=2)
    config = json.loads((bare / "adapter_config.json").read_text())
    (bare / "adapter_config.json").write_text(json.dumps(config | {"task_type": "CAUSAL_LM"}))
    assert head_of_adapter(bare, str(tiny_model)) == Head(language=True)
    (bare / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="must be an adapter that PEFT saved"):
        head_of_adapter(bare, str(tiny_model))


def test_scores_of_some_rows(adapter: Path, tiny_model: Path, tiny_glue: Path) -> None:
    """Scores and resamples of a part use its rows alone, and one seed draws the same examples."""
    material = read_material(str(tiny_model), TaskSpec(name="sst2", data_dir=str(tiny_glue)))
    answers = material.answers(adapter)["validation"]
    right = answers["logits"].argmax(1) == material.splits["validation"].labels
    rows = np.flatnonzero(right)
    assert material.scores("validation", answers, rows) == {"accuracy": 1.0}
    assert set(material.resampled("validation", answers, 5, 0, rows)) == {1.0}
    whole = material.resampled("validation", answers, 400, 0)
    np.testing.assert_array_equal(whole, material.resampled("validation", answers, 400, 0))
    assert whole.mean() == pytest.approx(right.mean(), abs=0.02)
    with pytest.raises(ValueError, match="sst2 cannot be scored without an adapter"):
        material.answers(None)


def test_language_models(tiny_model: Path, tmp_path: Path) -> None:
    """By the architecture that the config names."""
    from tiny_models import tiny_language_model

    assert not is_language_model(str(tiny_model))
    for family in ("llama", "gpt2", "t5"):
        tiny_language_model(family).save_pretrained(tmp_path / family)
        assert is_language_model(str(tmp_path / family))


def test_resamples_of_texts_are_those_of_every_other_metric() -> None:
    """What has no form as a function of sums is scored on the same resamples, one by one."""
    task: Any = SimpleNamespace(metrics=("accuracy",), problem=Classification(("a", "b")))
    draw = np.random.default_rng(0)
    answers, labels = {"logits": draw.normal(size=(30, 2))}, draw.integers(2, size=30)
    (counts,) = resamples(30, 20, seed=5)
    np.testing.assert_allclose(
        _scores_one_by_one(task, answers, labels, counts), resampled(task, answers, labels, 20, seed=5)
    )

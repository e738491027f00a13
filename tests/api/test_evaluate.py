"""Adapters scored on held-out examples: the trial's own score, paired differences, other PEFT types."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankopt.api.evaluate import evaluate
from rankopt.core.task_spec import TaskSpec
from rankopt.training.trial import run_trial


@pytest.fixture(scope="module")
def trials(tiny_spec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Folder of an adapter -> the result of its trial."""
    found = {}
    for steps in (12, 1):
        folder = tmp_path_factory.mktemp("trial")
        found[str(folder / "adapter")] = run_trial(tiny_spec(training__steps=steps, training__lr=2e-2), folder)
    return found


def test_the_trials_own_scores(trials: dict[str, Any], tiny_model: Path, tiny_glue: Path) -> None:
    """Scores are those that the trials reported, inside their intervals; the second adapter has a paired difference."""
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue))
    frame = evaluate(list(trials), str(tiny_model), task, resamples=200)
    assert list(frame["adapter"]) == list(trials)
    for row in frame.itertuples():
        result = trials[row.adapter]
        assert row.score == pytest.approx(result.score("report"))
        assert row.low <= row.score <= row.high
        assert (row.examples, row.metric, row.split) == (24, "accuracy", "validation")
        assert (row.baseline, row.baseline_name) == (0.5, "predicting the most frequent class")
    assert np.isnan(frame["difference"][0])
    assert frame["difference"][1] == pytest.approx(frame["score"][1] - frame["score"][0])
    assert frame["difference_low"][1] <= frame["difference"][1] <= frame["difference_high"][1]
    same = evaluate([next(iter(trials))] * 2, str(tiny_model), task, resamples=50)
    assert tuple(same.loc[1, ["difference", "difference_low", "difference_high"]]) == (0, 0, 0)


def test_own_rows(trials: dict[str, Any], tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """Rows of a file have the score of the same rows of a task, whether it names labels or counts them."""
    import pandas as pd

    rows = pd.read_parquet(tiny_glue / "sst2" / "validation.parquet")
    expected = trials[next(iter(trials))].score("report")
    rows.to_csv(tmp_path / "numbers.csv", index=False)
    rows["label"] = rows["label"].map({0: "negative", 1: "positive"})
    rows.rename(columns={"label": "mood"}).to_csv(tmp_path / "words.csv", index=False)
    for name in ("numbers.csv", "words.csv"):
        frame = evaluate([next(iter(trials))], str(tiny_model), tmp_path / name, resamples=5)
        assert frame["score"].item() == pytest.approx(expected)
        assert frame["examples"].item() == len(rows)
        assert any("classes in the order" in note for note in frame.attrs["notes"])


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A folder with a small language model, `base`, and an adapter of it, `adapter`."""
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_language_model

    from rankopt.tasks.mini_decoder import build_tokenizer

    tokenizer = build_tokenizer()
    net = tiny_language_model("llama", vocab_size=len(tokenizer))
    for folder in ("base", "adapter"):
        (tmp_path / folder).mkdir()
    net.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(net, config).save_pretrained(tmp_path / "adapter")
    return tmp_path


def test_forgetting(decoder: Path) -> None:
    """A language model's other material is scored without the adapter, then with it; differences are to the first."""
    for name in ("new", "old"):
        lines = (json.dumps({"text": f"{name} the quick word {i}"}) for i in range(6))
        (decoder / f"{name}.jsonl").write_text("\n".join(lines))
    frame = evaluate(
        [decoder / "adapter"] * 2, str(decoder / "base"), decoder / "new.jsonl", retain=decoder / "old.jsonl",
        resamples=20,
    )  # fmt: skip
    assert list(frame["task"]) == ["new"] * 2 + ["old"] * 3
    assert frame["metric"].unique().tolist() == ["perplexity"]
    assert list(frame["difference"].isna()) == [True, False, True, False, False]
    before, after = frame["score"][2], frame["score"][3]
    assert "(no adapter)" in frame["adapter"][2]
    assert frame["difference"][3] == pytest.approx(after - before)
    assert before != pytest.approx(after)


def test_named_columns(decoder: Path) -> None:
    """Prompts and completions under other names are scored as under the usual ones."""
    pairs = [(f"the quick word {i}", f"a bright film {i}") for i in range(6)]
    for first, second in (("prompt", "completion"), ("facts", "sentence")):
        lines = (json.dumps({first: prompt, second: completion}) for prompt, completion in pairs)
        (decoder / f"{first}.jsonl").write_text("\n".join(lines))
    given = [decoder / "adapter"], str(decoder / "base")
    usual = evaluate(*given, decoder / "prompt.jsonl", resamples=10)
    named = evaluate(*given, decoder / "facts.jsonl", prompt="facts", completion="sentence", resamples=10)
    spaced = evaluate(*given, decoder / "facts.jsonl", prompt="{facts} is", completion="sentence", resamples=10)
    assert named["score"].item() == usual["score"].item() != spaced["score"].item()
    with pytest.raises(ValueError, match="got facts, sentence: name its columns with --prompt and --completion"):
        evaluate(*given, decoder / "facts.jsonl")


def test_another_kind_of_adapter(tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """A prompt is scored as PEFT computes it."""
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    net = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    get_peft_model(net, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)).save_pretrained(tmp_path)
    frame = evaluate([tmp_path], str(tiny_model), TaskSpec(name="sst2", data_dir=str(tiny_glue)), resamples=10)
    assert 0 <= frame["score"].item() <= 1


def test_refused(trials: dict[str, Any], tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """No adapter, a folder that is none, and an adapter without a head."""
    import shutil

    from safetensors.torch import load_file, save_file

    task = TaskSpec(name="sst2", data_dir=str(tiny_glue))
    with pytest.raises(ValueError, match="at least one adapter"):
        evaluate([], str(tiny_model), task)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="PEFT cannot load the adapter"):
        evaluate([tmp_path / "empty"], str(tiny_model), task)
    shutil.copytree(next(iter(trials)), tmp_path / "headless")
    file = tmp_path / "headless" / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "lora" in key}, file)
    with pytest.raises(ValueError, match="neither the model nor the adapter has weights for classifier"):
        evaluate([tmp_path / "headless"], str(tiny_model), task)

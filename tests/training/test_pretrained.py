"""Reading a checkpoint: head, fingerprint, tokenizer, and one line when it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModel

from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks.glue import GLUE
from rankopt.training.evaluate import predict
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.pretrained import load_tokenizer
from rankopt.training.skeleton import skeleton_of


def load(folder: Path, **more: Any) -> Adapted:
    return load_adapted(ModelSpec(name=str(folder), max_rank=2, **more), "unit", GLUE["mnli"], 0)


def test_a_pooler_that_the_checkpoint_lacks_is_head(checkpoint: Callable[..., Path]) -> None:
    """A newly initialised pooler is trained; one that was loaded stays frozen."""
    bare = AutoModel.from_config(tiny_config("bert"), add_pooling_layer=False)
    assert load(checkpoint("bert", bare)).head == ("classifier", "bert.pooler.dense")


def test_weights_that_contradict_their_config(checkpoint: Callable[..., Path]) -> None:
    """A backbone of another size than in its config is refused, not replaced by random weights."""
    folder = checkpoint("bert")
    config = tiny_config("bert")
    config.intermediate_size = 20
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"model\.name must be .*has shape \(24,\), its config says \(20,\)"):
        load(folder)


def test_the_fingerprint_is_of_the_frozen_weights(checkpoint: Callable[..., Path], tiny_model: Path) -> None:
    """It ignores seed, head and adapters, and changes with one weight."""
    model = AutoModel.from_config(tiny_config("bert"))
    folder = checkpoint("bert", model)
    prints = {load(folder).fingerprint, load(folder, target_modules=("query",)).fingerprint}
    prints.add(load_adapted(ModelSpec(name=str(folder)), "init", GLUE["sst2"], 5).fingerprint)
    assert len(prints) == 1
    with torch.no_grad():
        weight = model.encoder.layer[1].output.dense.bias
        weight[3] = torch.nextafter(weight[3], torch.tensor(1.0))
    elsewhere = folder.rename(folder.with_name("changed"))  # a process reads a checkpoint once
    model.save_pretrained(elsewhere)
    assert load(elsewhere).fingerprint not in prints


def test_gpt2_pads_with_its_end_of_text(tmp_path: Path, tiny_tokenizer: Any, tiny_spec: Any) -> None:
    """A tokenizer without a pad token pads with its end-of-text token; logits do not depend on the batch."""
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("gpt2")).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = ModelSpec(name=str(tmp_path), max_rank=2)
    assert load_tokenizer(spec.name).pad_token == "[SEP]"
    adapted = load_adapted(spec, "unit", GLUE["sst2"], 0)
    assert adapted.net.config.pad_token_id == 3  # type: ignore[union-attr]
    from datasets import Dataset

    rows = Dataset.from_dict({"sentence": ["warm", "dull cold road song film", "flat coat"], "label": [1, 0, 0]})
    data = GLUE["sst2"].tokenise(rows, adapted.tokenizer, 16)
    together, alone = (predict(adapted, GLUE["sst2"], data, size, "fp32")["logits"] for size in (8, 1))
    assert abs(together - alone).max() < 1e-5


UNREADABLE = ["missing", "empty", "garbled config", "wrong config", "no weights", "cut weights", "no tokenizer"]


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_model_that_cannot_be_read_is_one_line(case: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever is wrong with the folder, the error is one line with the field, the value and the rule."""
    folder = tmp_path / "absent" if case == "missing" else checkpoint("bert")
    match case:
        case "empty":
            for file in folder.iterdir():
                file.unlink()
        case "garbled config":
            (folder / "config.json").write_text("{")
        case "wrong config":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "big"}))
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "cut weights":
            weights = folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:1000])
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
    with pytest.raises(ValueError, match=r"model\.name must be a local folder") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert repr(str(folder)) in str(caught.value)
    if case not in ("no weights", "cut weights"):
        spec = ModelSpec(name=str(folder), max_rank=2)
        with pytest.raises(ValueError, match=r"model\.name must be a local folder"):
            load_tokenizer(spec.name) if case == "no tokenizer" else skeleton_of(spec, "unit", GLUE["sst2"].problem)


def test_a_tokenizer_that_cannot_pad(checkpoint: Callable[..., Path]) -> None:
    """Without a pad token and an end-of-text token the error names the file to edit."""
    folder = checkpoint("gpt2")
    path = folder / "tokenizer_config.json"
    fields = {key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"}
    path.write_text(json.dumps(fields))
    core = folder / "tokenizer.json"  # another test may have padded with this tokenizer, which it remembers
    core.write_text(json.dumps(json.loads(core.read_text()) | {"padding": None}))
    with pytest.raises(ValueError, match=r'model\.name .* add a "pad_token" to its tokenizer_config\.json') as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)

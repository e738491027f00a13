"""Updates are added to the weights as PEFT does, and models that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.add_updates import add_updates
from rankopt.adapters.merge_into_base import merge_into_base


def test_same_weights_as_peft(case: str, tmp_path: Path, stock: Any) -> None:
    """Every tensor equals that of PEFT's merged model, up to rounding."""
    family, _ = stock.make(case, tmp_path / "a")
    model = stock.build(family)
    assert not add_updates(read_adapter(tmp_path / "a"), model)
    expected = stock.load(family, tmp_path / "a").merge_and_unload().state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)


UNFIT: dict[str, tuple[Callable[[Any], None], str]] = {
    "a missing module": (
        lambda model: delattr(model.roberta.encoder.layer[1].attention.self, "query"),
        r"has a module 'roberta\.encoder\.layer\.1\.attention\.self\.query' that this model lacks; did you mean",
    ),
    "another shape": (
        lambda model: setattr(model.roberta.encoder.layer[1].attention.self, "query", nn.Linear(16, 8)),
        r"query of the adapter is \(16, 16\), in this model \(8, 16\)",
    ),
    "another kind": (
        lambda model: setattr(model.roberta.encoder.layer[1].attention.self, "query", nn.ReLU()),
        "must be an ungrouped linear map, got ReLU",
    ),
    "another head": (
        lambda model: setattr(model.classifier, "out_proj", nn.Linear(16, 7)),
        r"has a tensor 'classifier\.out_proj\.\w+' of shape .*, this model has it as",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_that_does_not_fit(case: str, adapter_of: Callable[..., Path], stock: Any) -> None:
    """One line, and the model is unchanged."""
    change, message = UNFIT[case]
    model = stock.build("roberta")
    change(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        add_updates(read_adapter(adapter_of("plain")), model)
    assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_resized_vocabulary(tmp_path: Path, stock: Any) -> None:
    """The message says how to resize the base model."""
    from peft import LoraConfig, get_peft_model

    base = stock.build("llama")
    base.save_pretrained(tmp_path / "base")
    base.resize_token_embeddings(53, mean_resizing=False)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    model.save_pretrained(str(tmp_path / "a"), save_embedding_layers=True)
    with pytest.raises(ValueError, match=r"model\.resize_token_embeddings\(53\), save that model") as caught:
        merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert len(str(caught.value).splitlines()) == 1
    stock.build("llama").resize_token_embeddings(53, mean_resizing=False)
    resized = stock.build("llama")
    resized.resize_token_embeddings(53, mean_resizing=False)
    resized.save_pretrained(tmp_path / "resized")
    merge_into_base(tmp_path / "a", str(tmp_path / "resized"), tmp_path / "merged")

"""PEFT's configurations: which of them run, and what is wrong with the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import ValidationError

from rankopt.core.errors import violations
from rankopt.core.spec import decode
from rankopt.tuners.base import head_modules
from rankopt.tuners.peft import Peft
from rankopt.tuners.saved import load

QUERY = ["query", "value"]
TINY: dict[str, dict[str, Any]] = {
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "P_TUNING": {"num_virtual_tokens": 3},
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "CARTRIDGE": {"num_virtual_tokens": 3},
    "ADALORA": {"tinit": 2, "tfinal": 4, "deltaT": 1, "init_r": 4, "target_r": 2},
    "VBLORA": {"vector_length": 4, "num_vectors": 16, "topk": 2},
    "MISS": {"r": 4},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 2},
    "C3A": {"block_size": 4},
    "WAVEFT": {"n_frequency": 20},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6], "target_modules": ["word_embeddings"]},
    "FOURIERFT": {"n_frequency": 20},
    "BOFT": {"boft_block_size": 4},
    "OFT": {"oft_block_size": 4, "r": 0},
    "PSOFT": {"r": 8},
    "OSF": {"target_modules": QUERY, "effective_rank": 8},
}
"""Sizes that fit 16 hidden units, where PEFT's own do not."""

LEFT_OUT = {
    "MULTITASK_PROMPT_TUNING": "needs the number of a task with every example",
    "POLY": "needs the number of a task with every example",
    "ADAPTION_PROMPT": "is for decoders of a few families",
    "CPT": "is for causal language models",
    "XLORA": "mixes adapters that must exist",
    "SHADOW": "needs a list of decoder layers",
}
"""What does not accept a tiny encoder, and why."""


def fields(name: str, **more: Any) -> dict[str, Any]:
    return {"peft_type": name, **TINY.get(name, {}), **more}


TYPES = sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING)


@pytest.mark.parametrize("name", [name for name in TYPES if name not in LEFT_OUT])
def test_every_type_that_accepts_an_encoder_trains_and_is_read_back(
    name: str, host: Callable[..., Any], classifier: Callable[..., Any], logits: Callable[[Any], Any],
    batch: dict[str, torch.Tensor], tmp_path: Path,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    where = host()
    attached = Peft(config=fields(name)).attach(where)
    head = [p for module in head_modules(attached.net, where.head).values() for p in module.parameters()]
    optimizer = torch.optim.AdamW([*attached.parameters.values(), *head], lr=0.01)
    attached.net.train()
    for step in (1, 2):
        loss = where.loss(attached.net, batch)
        if (penalty := attached.penalty()) is not None:
            loss = loss + penalty
        loss.backward()
        optimizer.step()
        attached.after_step(step)
        optimizer.zero_grad()
    own = logits(attached.net)
    attached.save(tmp_path)
    torch.testing.assert_close(logits(load(classifier(), tmp_path)), own, atol=1e-4, rtol=1e-3)
    assert attached.stored() > 0


@pytest.mark.parametrize("name", LEFT_OUT)
def test_the_others_are_refused_in_one_line(name: str, host: Callable[..., Any], batch: dict[str, Any]) -> None:
    where = host()
    config = fields(name, **({"num_virtual_tokens": 3} if "PROMPT" in name else {}))
    with pytest.raises((ValueError, AttributeError, TypeError)):
        where.loss(decode(Peft, {"config": config}).attach(where).net, batch)


@pytest.mark.parametrize("start", ["pissa", "olora", "eva", "lora_ga", "orthogonal"])
def test_starts_of_lora_leave_other_trials_weights_alone(
    start: str, host: Callable[..., Any], logits: Callable[[Any], Any], classifier: Callable[..., Any]
) -> None:
    where = host()
    shared = dict(where.net.named_parameters())
    before = {name: p.detach().clone() for name, p in shared.items()}
    config = {"peft_type": "LORA", "r": 2, "init_lora_weights": start, "target_modules": QUERY}
    attached = Peft(config=config).attach(where)
    assert all(torch.equal(before[name], p) for name, p in shared.items())
    torch.testing.assert_close(logits(attached.net), logits(classifier()), atol=1e-4, rtol=1e-3)
    assert attached.stored() >= 2 * 2 * 2 * (16 + 16) - (16 + 16) * 4  # EVA may move ranks between layers


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "VERA", "r": 8, "task_type": "CAUSAL_LM", "revision": None}))
    inline = decode(Peft, {"config": {"peft_type": "VERA", "r": 8}})
    assert decode(Peft, {"config": str(path)}) == decode(Peft, {"config": str(tmp_path)}) == inline


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "VEERA"}, "config.peft_type must be a type of the installed PEFT, got 'VEERA'; did you mean"),
        ({"r": 8}, "config.peft_type must be a type of the installed PEFT, got None"),
        ({"peft_type": "VERA", "rr": 8}, "config.rr is not a field of VeraConfig; did you mean 'r'"),
        ({"peft_type": "ADALORA", "total_step": -1}, "config is not valid for PEFT: "),
        ("nowhere.json", "config must be a mapping or the path of a JSON file, got 'nowhere.json'"),
    ],
)
def test_a_wrong_configuration_is_located(config: Any, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        decode(Peft, {"config": config})
    (problem,) = violations(error.value, Peft)
    assert str(problem).startswith(message)

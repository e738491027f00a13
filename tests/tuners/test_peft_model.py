"""PEFT's model: AdaLoRA's hooks against a plain script, and its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model

from rankopt.tuners.base import head_modules
from rankopt.tuners.peft import Peft

ADALORA: dict[str, Any] = {
    "init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 4, "deltaT": 1, "target_modules": ["query", "value"],
}  # fmt: skip
STEPS = 20


def attached_to(where: Any) -> Any:
    torch.manual_seed(7)
    return Peft(config={"peft_type": "ADALORA", **ADALORA}).attach(where)


def train(attached: Any, where: Any, batch: dict[str, Any], steps: range) -> Any:
    head = [p for module in head_modules(attached.net, where.head).values() for p in module.parameters()]
    optimizer = torch.optim.SGD([*attached.parameters.values(), *head], lr=0.05)
    for step in steps:
        loss = where.loss(attached.net, batch) + attached.penalty()
        loss.backward()
        optimizer.step()
        attached.after_step(step)
        optimizer.zero_grad()


def test_adalora_equals_peft_used_as_it_documents(
    host: Callable[..., Any], classifier: Callable[..., Any], batch: dict[str, Any], logits: Callable[[Any], Any]
) -> None:
    where = host()
    attached = attached_to(where)
    attached.net.train()
    train(attached, where, batch, range(1, STEPS + 1))
    torch.manual_seed(7)
    config = AdaLoraConfig(task_type="SEQ_CLS", total_step=STEPS, **ADALORA)
    plain = get_peft_model(classifier(), config).train()
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=0.05)
    for step in range(1, STEPS + 1):
        plain(**batch).loss.backward()
        optimizer.step()
        plain.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    torch.testing.assert_close(logits(attached.net), logits(plain), atol=1e-5, rtol=1e-4)
    assert attached.stored() < sum(p.numel() for p in attached.parameters.values())


@pytest.mark.parametrize("cut", [5, 17])
def test_adalora_continues_from_its_state(
    cut: int, host: Callable[..., Any], batch: dict[str, Any], logits: Callable[[Any], Any]
) -> None:
    """Stopped and restored in the middle, as if never stopped."""
    whole_host, first_host, second_host = host(), host(), host()
    whole, first, second = (attached_to(one) for one in (whole_host, first_host, second_host))
    train(whole, whole_host, batch, range(1, STEPS + 1))
    train(first, first_host, batch, range(1, cut + 1))
    with torch.no_grad():
        for name, parameter in second.parameters.items():
            parameter.copy_(first.parameters[name])
        for mine, theirs in zip(*(head_modules(a.net, ("classifier",)).values() for a in (second, first)), strict=True):
            mine.load_state_dict(theirs.state_dict())
    second.restore(first.state())
    train(second, second_host, batch, range(cut + 1, STEPS + 1))
    torch.testing.assert_close(logits(second.net), logits(whole.net))

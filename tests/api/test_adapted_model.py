"""An adapted model in a hand-written loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_training import CASES, arguments, classified, encoder, same_by_peft, stacked, train
from transformers import Trainer

from rankopt.api.adapt import adapt

SHORT = {"warmup": 0.1, "final": 0.3}


def loop(adapted: Any, rows: Any, steps: int = 12, accumulation: int = 1, optimizer: Any = None) -> None:
    """Eight rows per micro-batch, in order."""
    optimizer = optimizer or torch.optim.AdamW(adapted.parameter_groups(lr=5e-3))
    adapted.model.train()
    number = 0
    for _ in range(steps):
        adapted.before_step()
        for _ in range(accumulation):
            start = 8 * (number % (len(rows) // 8))
            loss = adapted.model(**stacked(rows[start:])).loss
            ((loss + adapted.penalty()) / accumulation).backward()
            number += 1
        optimizer.step()
        adapted.after_step(optimizer)
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("allocator", ["adalora", "dylora", "eva", "gora", "uniform"])
def test_loop(kind: str, allocator: str, tmp_path: Path) -> None:
    """It ends within the budget, and its adapter is what PEFT loads."""
    make, data = CASES[kind]
    adapted = adapt(make(), allocator, mean_rank=2, max_rank=4, steps=6)
    if adapted.training.needs_batches:
        adapted.prepare([stacked(data())])
    loop(adapted, data(), steps=6)
    assert adapted.pattern.total <= 2 * len(adapted.layers)
    assert adapted.save(tmp_path / "adapter") == adapted.pattern
    assert same_by_peft(make(), tmp_path / "adapter", adapted, stacked(data())) < 1e-5


@pytest.mark.parametrize("accumulation", [1, 2])
def test_loop_and_trainer_agree(accumulation: int, tmp_path: Path) -> None:
    """A loop over the Trainer's batches, with its schedule and clipping off, ends at the Trainer's weights. Both use
    SGD, because Adam turns rounding errors of gradients near zero into whole steps."""
    byhand = adapt(encoder(), "sora", mean_rank=2, max_rank=4, steps=6, l1=0.1)
    made = torch.optim.SGD(byhand.parameter_groups(lr=0.01))
    loop(byhand, classified(), steps=6, accumulation=accumulation, optimizer=made)
    byhand.finish()

    class Ordered(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(train_dataset)

    def mean(outputs: Any, labels: Any, num_items_in_batch: Any) -> Any:
        # BERT's own loss ignores the number of items, so that the Trainer would add the means of micro-batches
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    adapted = adapt(encoder(), "sora", mean_rank=2, max_rank=4, l1=0.1)
    optimizer = torch.optim.SGD(adapted.parameter_groups(lr=0.01))
    how: dict[str, Any] = {"lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    Ordered(
        model=adapted.model, train_dataset=classified(), callbacks=[adapted.callback()], optimizers=(optimizer, None),
        compute_loss_func=mean, args=arguments(tmp_path, steps=6, gradient_accumulation_steps=accumulation, **how),
    ).train()  # fmt: skip
    assert byhand.pattern == adapted.pattern
    assert byhand.ranks_over_time == adapted.ranks_over_time
    for key, value in adapted.model.state_dict().items():
        assert torch.allclose(byhand.model.state_dict()[key].float(), value.float(), atol=1e-5), key


def test_accelerate(tmp_path: Path) -> None:
    """In accelerate's loop nothing differs but `accelerator.backward`; bf16 autocast works."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # earlier Trainers of this process set it
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=1)
    adapted = adapt(encoder(), mean_rank=2, max_rank=4, steps=6, **SHORT)
    rows = classified()
    loader = torch.utils.data.DataLoader(rows, batch_size=8)  # type: ignore[arg-type]
    made = torch.optim.AdamW(adapted.parameter_groups(lr=5e-3))
    model, optimizer, loader = accelerator.prepare(adapted.model, made, loader)
    for batch in loader:
        adapted.before_step()
        accelerator.backward(model(**batch).loss + adapted.penalty())
        optimizer.step()
        adapted.after_step(optimizer)
        optimizer.zero_grad()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert adapted.training.done == 6
    assert adapted.save(tmp_path / "adapter").total == 24


def test_the_model_may_move_before_training() -> None:
    """The allocator's state is made at the first step, so it follows a change of dtype or device."""
    adapted = adapt(encoder(), mean_rank=2, max_rank=4, steps=6, **SHORT)
    adapted.model.double()
    loop(adapted, classified(), steps=6)
    assert adapted.training.hooks.state["mean"]["16 x 16"]["A"].dtype == torch.float64


def misuses() -> dict[str, tuple[Callable[[Any, Any], object], type[Exception], str]]:
    def no_penalty(adapted: Any, optimizer: Any) -> None:
        adapted.before_step()
        adapted.model(**stacked(classified())).loss.backward()
        optimizer.step()
        adapted.after_step(optimizer)

    def zeroed(adapted: Any, optimizer: Any) -> None:
        adapted.before_step()
        (adapted.model(**stacked(classified())).loss + adapted.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        adapted.after_step(optimizer)

    def foreign_optimizer(adapted: Any, optimizer: Any) -> None:
        adapted.before_step()
        adapted.penalty()
        adapted.after_step(torch.optim.AdamW(adapted.model.classifier.parameters()))

    def twice(adapted: Any, optimizer: Any) -> None:
        adapted.before_step()
        adapted.before_step()

    def too_many(adapted: Any, optimizer: Any) -> None:
        loop(adapted, classified(), steps=7, optimizer=optimizer)

    def too_few(adapted: Any, optimizer: Any) -> None:
        loop(adapted, classified(), steps=5, optimizer=optimizer)
        adapted.save("nowhere")

    def not_begun(adapted: Any, optimizer: Any) -> None:
        adapted.penalty()
        adapted.after_step(optimizer)

    return {
        "no penalty": (
            no_penalty,
            RuntimeError,
            r"adapted.penalty\(\) was not called in this step: add it to the loss",
        ),
        "gradients zeroed": (zeroed, RuntimeError, "before gradients are zeroed"),
        "another optimiser": (foreign_optimizer, ValueError, "does not hold 36 of the adapter's parameters"),
        "a step within a step": (twice, RuntimeError, "after_step was not called after the one before"),
        "too many steps": (too_many, RuntimeError, "step 7 begins, but the training was to have 6 optimiser steps"),
        "too few steps": (too_few, RuntimeError, "has run 5 of 6 steps"),
        "a step that did not begin": (not_begun, RuntimeError, "a step ended that had not begun"),
    }


@pytest.mark.parametrize("case", misuses())
def test_a_loop_with_a_mistake(case: str) -> None:
    """Each mistake is one error that says what to do."""
    misuse, kind, message = misuses()[case]
    adapted = adapt(encoder(), mean_rank=2, max_rank=4, steps=6, **SHORT)
    with pytest.raises(kind, match=message) as caught:
        misuse(adapted, torch.optim.AdamW(adapted.parameter_groups(lr=5e-3)))
    assert "\n" not in str(caught.value)


def test_a_loop_without_steps_or_batches() -> None:
    """A loop must tell its steps, and an allocator that looks at data must be given batches with a loss."""
    with pytest.raises(ValueError, match=r"adapt\(steps=...\) must give the number of optimiser steps"):
        adapt(encoder(), mean_rank=2, max_rank=4).before_step()
    with pytest.raises(ValueError, match="GoRA looks at training batches before step 1"):
        adapt(encoder(), "gora", mean_rank=2, max_rank=4, steps=6).before_step()
    adapted = adapt(encoder(), "gora", mean_rank=2, max_rank=4, steps=6)
    adapted.prepare([{"input_ids": stacked(classified())["input_ids"]}])
    with pytest.raises(ValueError, match="the model returns no loss for these batches"):
        adapted.before_step()


def test_ending_early(tmp_path: Path) -> None:
    """After `finish`, an unfinished training can be saved, at the final budget."""
    adapted = adapt(encoder(), mean_rank=2, max_rank=4, steps=6, **SHORT)
    loop(adapted, classified(), steps=3)
    adapted.finish()
    assert adapted.save(tmp_path).total == 24
    with pytest.raises(RuntimeError, match="step 4 begins"):
        adapted.before_step()


def test_uniform_needs_no_hooks(tmp_path: Path) -> None:
    """An allocator that only starts is plain LoRA: it can be trained without any of this."""
    adapted = adapt(encoder(), "uniform", mean_rank=2)
    start = repr(adapted)
    assert start.startswith("AdaptedModel(BertForSequenceClassification, Uniform, ")
    cost = sum(2 * layer.shape.cost for layer in adapted.layers.values())
    assert f"{len(adapted.layers)} layers, mean rank 2, {cost:,} parameters" in start
    assert not start.endswith(", finished)")
    train(adapted, classified(), tmp_path, callbacks=[])
    assert set(adapted.save(tmp_path / "adapter").values()) == {2}
    assert repr(adapted).endswith(", finished)")


def test_a_merged_model_is_saved_whole(tmp_path: Path) -> None:
    """After `merge`, `save_pretrained` writes every weight under its original name."""
    from transformers import BertForSequenceClassification

    adapted = adapt(encoder(), mean_rank=2, max_rank=4, steps=6, **SHORT)
    loop(adapted, classified(), steps=6)
    merged: Any = adapted.merge()
    merged.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    batch = stacked(classified())
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, merged.eval()(**batch).logits)

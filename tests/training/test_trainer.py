"""The loss, the parameter groups and the schedule of a training, held against a plain loop of twenty lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import TrainerCallback

from rankopt.lowrank.layers import apply_pattern, pattern_of
from rankopt.tasks.encode import collate

Prepare = Callable[[Any], Any]


def first_batch(training: Any, count: int) -> dict[str, Tensor]:
    """The first `count` examples of the trial's order, padded."""
    rows = training.callback.order.indices(0)[:count]
    return collate([training.train[int(i)] for i in rows], training.adapted.tokenizer)


def task_loss(net: Any, batch: dict[str, Tensor]) -> Tensor:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits, labels = net(**inputs).logits, batch["labels"]
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels)
    return functional.cross_entropy(logits, labels)


def trained(net: Any) -> dict[str, Tensor]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("allocator", ["uniform", "adalora", "sora"])
def test_groups(allocator: str, prepare: Prepare, tiny_spec: Any) -> None:
    """Every trained parameter is in exactly one group; factors and the head's matrices decay, biases do not, gates do
    where the allocator says so; the head has its own learning rate; nothing frozen is in a group."""
    spec = tiny_spec(allocator__name=allocator, training__lr=1e-3, training__head_lr=2e-4, training__weight_decay=0.1)
    training = prepare(spec)
    optimizer = training.trainer.create_optimizer()
    got = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    names = trained(training.adapted.net)
    assert len(got) == sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    for name, parameter in names.items():
        lr = 2e-4 if name.startswith("classifier") else 1e-3
        undecayed = ("bias",) if allocator == "adalora" else (".g", "bias")  # the authors decay lora_E
        decay = 0.0 if name.endswith(undecayed) else 0.1
        assert got[id(parameter)] == (lr, decay), name
    assert any(name.endswith(".g") for name in names) == (allocator != "uniform")
    assert training.trainer.create_optimizer() is optimizer


def test_the_heads_rate_is_the_adapters_when_absent(prepare: Prepare, tiny_spec: Any) -> None:
    """One rate for all unless a head's is given."""
    optimizer = prepare(tiny_spec(training__lr=3e-3)).trainer.create_optimizer()
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}


def record_gradients(training: Any) -> dict[str, Tensor]:
    """Runs one optimiser step and returns the gradients it used."""
    gradients: dict[str, Tensor] = {}

    class Spy(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **_: Any) -> None:
            gradients.update(
                {n: p.grad.clone() for n, p in trained(training.adapted.net).items() if p.grad is not None}
            )

    training.trainer.add_callback(Spy())
    training.trainer.train()
    return gradients


@pytest.mark.parametrize("task", ["sst2", "stsb"])
@pytest.mark.parametrize("allocator", ["uniform", "adalora"])
def test_accumulation_is_the_big_batch(task: str, allocator: str, prepare: Prepare, tiny_spec: Any) -> None:
    """Four micro-batches of 5 give the loss and the gradient of one batch of 20, and both equal plain autograd on the
    mean loss plus the penalty; all to 1e-6."""
    options = {"warmup": 0.0, "final": 0.0, "orthogonality": 0.3} if allocator == "adalora" else {}
    common: dict[str, Any] = {
        "task__name": task,
        "allocator": {"name": allocator, **options},
        "training__steps": 1,
        "training__clip": 0.0,
        "training__group_by_length": False,
    }
    runs = []
    for batch, accumulation in ((20, 1), (5, 4)):
        training = prepare(tiny_spec(**common, training__batch_size=batch, training__accumulation=accumulation))
        runs.append((record_gradients(training), training.callback.losses))
    (big, big_loss), (small, small_loss) = runs
    plain = prepare(tiny_spec(**common, training__batch_size=20))
    loss = task_loss(plain.adapted.net.train(), first_batch(plain, 20))
    penalty = plain.callback.hooks.allocator.penalty(plain.callback.hooks.state, plain.adapted.layers)
    (loss if penalty is None else loss + penalty).backward()
    for name, parameter in trained(plain.adapted.net).items():
        if parameter.grad is not None:
            assert torch.allclose(big[name], parameter.grad, atol=1e-6, rtol=1e-5), name
            assert torch.allclose(small[name], parameter.grad, atol=1e-6, rtol=1e-5), name
    assert any(value.abs().max() > 1e-3 for value in big.values())
    for event in (big_loss[0], small_loss[0]):
        assert event["loss"] == pytest.approx(loss.item(), abs=1e-6)
        assert event["penalty"] == pytest.approx(0.0 if penalty is None else penalty.item(), abs=1e-6)


def test_a_short_last_step_weighs_its_examples(prepare: Prepare, tiny_spec: Any) -> None:
    """80 examples in batches of 32, two per step: the second step has 16 examples, and its gradient is their mean, not
    half of it."""
    spec = tiny_spec(
        training__steps=2, training__batch_size=32, training__accumulation=2, training__clip=0.0, training__lr=1e-12
    )
    training = prepare(spec)
    assert len(training.train) == 80
    gradients = record_gradients(training)  # of the last step; the rate is too small to move a weight
    plain = prepare(spec)
    rows = plain.callback.order.indices(0)[64:]
    batch = collate([plain.train[int(i)] for i in rows], plain.adapted.tokenizer)
    task_loss(plain.adapted.net.train(), batch).backward()
    name = "classifier.weight"
    assert torch.allclose(gradients[name], trained(plain.adapted.net)[name].grad, atol=1e-6)  # type: ignore[arg-type]


def test_clipping(prepare: Prepare, tiny_spec: Any) -> None:
    """The norm over all trained parameters is cut to `clip`, the direction kept; 0 leaves the gradient alone."""
    norms = {}
    for clip in (0.0, 0.01):
        gradients = record_gradients(prepare(tiny_spec(training__steps=1, training__clip=clip)))
        norms[clip] = torch.cat([value.ravel() for _, value in sorted(gradients.items())])
    assert norms[0.01].norm() == pytest.approx(0.01, rel=1e-3)
    assert norms[0.0].norm() > 0.1
    assert functional.cosine_similarity(norms[0.0], norms[0.01], dim=0) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.2, 5.0, 0.0])
def test_learning_rates(schedule: str, warmup: float, prepare: Prepare, tiny_spec: Any) -> None:
    """The rate of every step equals the textbook formula: linear warm-up over a fraction or a number of steps, then
    linear to zero, half a cosine, or constant; both learning rates follow it."""
    steps, lr = 20, 1e-3
    how = {"steps": steps, "batch_size": 8, "lr": lr, "head_lr": 2 * lr, "schedule": schedule, "warmup": warmup}
    training = prepare(tiny_spec(training=how))
    used: list[tuple[float, float]] = []
    optimizer = training.trainer.create_optimizer()
    step = optimizer.step
    optimizer.step = lambda *a, **k: (
        used.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[-1]["lr"])), step(*a, **k)
    )[1]  # fmt: skip
    training.trainer.train()
    ramp = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    for index, rates in enumerate(used):
        share = index / ramp if index < ramp else 1.0
        if index >= ramp and schedule != "constant":
            way = (index - ramp) / (steps - ramp)
            share = 1 - way if schedule == "linear" else (1 + math.cos(math.pi * way)) / 2
        assert rates == pytest.approx((lr * share, 2 * lr * share), abs=1e-12), index
    assert len(used) == steps


def test_adamw_step_by_step(prepare: Prepare, tiny_spec: Any) -> None:
    """Six steps of the Trainer end at the weights of a plain loop: order, loss, clipping, decay, schedule."""
    spec = tiny_spec(training__steps=6, training__weight_decay=0.05, training__clip=0.5, training__warmup=0.0)
    training, plain = prepare(spec), prepare(spec)
    training.trainer.train()
    net = plain.adapted.net.train()
    decayed = [p for n, p in trained(net).items() if not n.endswith("bias")]
    biases = [p for n, p in trained(net).items() if n.endswith("bias")]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": biases, "weight_decay": 0.0}], lr=spec.training.lr
    )
    batches = [plain.callback.order.indices(epoch)[i : i + 16] for epoch in (0, 1) for i in range(0, 80, 16)]
    for index, rows in enumerate(batches[:6]):
        for group in optimizer.param_groups:
            group["lr"] = spec.training.lr * (1 - index / 6)
        task_loss(net, collate([plain.train[int(i)] for i in rows], plain.adapted.tokenizer)).backward()
        torch.nn.utils.clip_grad_norm_([*decayed, *biases], 0.5)
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in trained(net).items():
        assert torch.allclose(trained(training.adapted.net)[name], parameter, atol=1e-5), name


def test_bf16_is_autocast(prepare: Prepare, tiny_spec: Any, tmp_path: Any) -> None:
    """Parameters, gates and moments stay float32 and finite, the loss falls, and it is not the float32 run."""
    losses = {}
    for precision in ("fp32", "bf16"):
        training = prepare(tiny_spec(training__precision=precision, training__steps=20, allocator__name="adalora"))
        training.trainer.train()
        losses[precision] = [event["loss"] for event in training.callback.losses]
        assert {p.dtype for p in training.adapted.net.parameters()} == {torch.float32}
        moments = [v for state in training.trainer.optimizer.state.values() for v in state.values() if v.ndim]
        assert {moment.dtype for moment in moments} == {torch.float32}
    assert losses["fp32"] != losses["bf16"]
    assert sum(losses["bf16"][-5:]) < sum(losses["bf16"][:5])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.2)


def test_dropout_is_on_in_training_only(prepare: Prepare, tiny_spec: Any) -> None:
    """With adapter dropout two passes differ in training mode once B is not zero, and agree in evaluation."""
    training = prepare(tiny_spec(model__dropout=0.5, training__steps=2))
    training.trainer.train()
    net, batch = training.adapted.net, first_batch(training, 8)
    with torch.no_grad():
        assert task_loss(net.train(), batch) != task_loss(net, batch)
        assert task_loss(net.eval(), batch) == task_loss(net, batch)


def test_dropout_does_not_move_the_order(prepare: Prepare, tiny_spec: Any) -> None:
    """The stream of dropout and that of the data are apart: the same examples with and without."""
    orders = []
    for dropout in (0.0, 0.5):
        training = prepare(tiny_spec(model__dropout=dropout, training__steps=7))
        seen: list[list[int]] = []
        collator = training.trainer.data_collator
        training.trainer.data_collator = lambda items, c=collator, s=seen: (
            s.append([int(i["input_ids"].sum()) for i in items]), c(items)
        )[1]  # fmt: skip
        training.trainer.train()
        orders.append(seen)
    assert orders[0] == orders[1]
    assert len(orders[0]) >= 7


def test_the_schedule_begins_again_where_the_allocator_asks(prepare: Prepare, tiny_spec: Any) -> None:
    """Twelve steps, cut at eight: two whole schedules in a row, the second at its share of the peak."""
    spec = tiny_spec(
        allocator={"name": "nested", "recovery": 4, "recovery_lr": 0.25}, budget=None, training__steps=12,
        training__lr=0.01, training__warmup=0.25,
    )  # fmt: skip
    training = prepare(spec)
    training.trainer.create_optimizer()
    schedule = training.trainer.create_scheduler(12)
    rates = []
    for _ in range(12):
        rates.append(schedule.get_last_lr()[0] / 0.01)
        training.trainer.optimizer.step()
        schedule.step()
    first = [min(step / 2, (8 - step) / 6) for step in range(8)]
    second = [0.25 * min(step / 1, (4 - step) / 3) for step in range(4)]
    assert rates == pytest.approx(first + second)
    assert training.trainer.create_scheduler(12) is schedule


@pytest.mark.parametrize("distill", [False, True])
def test_further_passes_are_averaged_and_leave_the_masks(distill: bool, prepare: Prepare, tiny_spec: Any) -> None:
    """The loss is the mean over the whole network and its cuts; a taught cut is drawn to the whole's own answers."""
    nested = {"name": "nested", "recipe": "scratch", "draw": "log", "sandwich": 2, "distill": distill}
    training = prepare(tiny_spec(allocator=nested, budget=None))
    net, callback, trainer = training.adapted.net.eval(), training.callback, training.trainer
    for layer in training.adapted.layers.values():
        torch.nn.init.normal_(layer.B, std=0.3)
    batch = first_batch(training, 4)
    callback.hooks.allocator.before_step(callback.hooks.state, callback.hooks.layers, 1)
    whole = pattern_of(callback.hooks.layers)
    found = trainer.compute_loss(net, dict(batch), num_items_in_batch=4)
    assert pattern_of(callback.hooks.layers) == whole
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    teacher = net(**inputs).logits.detach()
    losses = [functional.cross_entropy(net(**inputs).logits, batch["labels"])]
    for one in callback.hooks.allocator.passes(callback.hooks.state, callback.hooks.layers):
        apply_pattern(callback.hooks.layers, one.pattern)
        logits = net(**inputs).logits
        if distill:
            target = teacher.softmax(-1)
            losses.append(functional.cross_entropy(logits, target) - functional.cross_entropy(teacher, target))
        else:
            losses.append(functional.cross_entropy(logits, batch["labels"]))
    apply_pattern(callback.hooks.layers, whole)
    assert len(losses) == 4
    torch.testing.assert_close(found, torch.stack(losses).mean())
    found.backward()
    got = {name: p.grad.clone() for name, p in trained(net).items() if p.grad is not None}
    net.zero_grad()
    torch.stack(losses).mean().backward()
    for name, parameter in trained(net).items():
        if parameter.grad is not None:
            torch.testing.assert_close(got[name], parameter.grad, atol=1e-6, rtol=1e-4)

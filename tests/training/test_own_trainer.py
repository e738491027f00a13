"""A user's own Trainer with an allocator's callback: the same numbers as a study, and exact resume."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_training import CASES, arguments, classified, encoder, same_by_peft, stacked, train
from transformers import Trainer, TrainerCallback

from rankopt.allocators import ALLOCATORS
from rankopt.api.adapt import adapt
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import pattern_of
from rankopt.tasks.encode import collate
from rankopt.training.own_trainer import first_batches
from rankopt.training.prepare import prepare
from rankopt.training.trainer import training_arguments
from rankopt.training.trial import run_trial

SHORT = {"warmup": 0.1, "final": 0.3}


def weights(adapted: Any) -> dict[str, Any]:
    return {key: value.clone() for key, value in adapted.model.state_dict().items()}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize(
    "allocator", sorted(name for name in ALLOCATORS if not ALLOCATORS[name].trains_super_network())
)
def test_every_allocator(kind: str, allocator: str, tmp_path: Path) -> None:
    """The final pattern is within the budget, the hooks ran, the saved adapter is what PEFT loads, and merging keeps
    the function."""
    make, data = CASES[kind]
    options = {"ranks": {"*": 2}} if allocator == "static" else {}
    adapted = adapt(make(), allocator, mean_rank=2, max_rank=4, **options)
    train(adapted, data(), tmp_path)
    assert adapted.pattern.total <= 2 * len(adapted.layers)
    assert adapted.pattern == pattern_of(adapted.layers) == adapted.save(tmp_path / "adapter")
    assert not list(tmp_path.glob("checkpoint-*")), "the callback asks for no checkpoint"
    batch = stacked(data())
    assert same_by_peft(make(), tmp_path / "adapter", adapted, batch) < 1e-5
    with torch.no_grad():
        before = adapted.model(**batch).logits
        merged = adapted.merge()
        assert type(merged.get_submodule(next(iter(adapted.layers)))).__name__ in ("Linear", "Conv1D")
        assert torch.allclose(merged(**batch).logits, before, atol=1e-5)


@pytest.mark.parametrize(
    ("allocator", "options"),
    [("adalora", SHORT), ("dylora", {}), ("increlora", {"final": 0.3}), ("eva", {"batches": 2}), ("sora", SHORT)],
)
def test_numbers_of_a_study(allocator: str, options: dict[str, Any], tiny_spec: Any, tmp_path: Path) -> None:
    """With a study's loss, optimiser, schedule and order of examples, a plain Trainer ends at the study's weights, bit
    for bit."""
    spec = tiny_spec(allocator={"name": allocator, **options}, training__weight_decay=0.01, training__accumulation=2)
    expected = prepare(spec)
    found = adapt(
        copy.deepcopy(_base(expected)), allocator, mean_rank=2, max_rank=4, alpha=4.0, seed=spec.seed, **options
    )
    assert found.head == expected.adapted.head

    class Ordered(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return expected.order

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any) -> Any:
        return expected.task.problem.loss(outputs.logits, labels) / float(num_items_in_batch)

    class Epochs(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            expected.order.epoch = state.global_step // 3

    args = training_arguments(spec.training, expected.steps, spec.seed, tmp_path, "cpu")
    optimizer = torch.optim.AdamW(found.parameter_groups(spec.training.lr, weight_decay=0.01), fused=True)
    trainer = Ordered(
        model=found.model, args=args, train_dataset=expected.data.train, optimizers=(optimizer, None),
        data_collator=lambda items: collate(items, expected.adapted.tokenizer),
        compute_loss_func=loss, callbacks=[found.callback(), Epochs()],
    )  # fmt: skip
    trainer.train()
    result = run_trial(spec, tmp_path / "trial")
    assert found.pattern == result.own.pattern
    names = list(result.layers)
    assert found.ranks_over_time == {
        event.step: RankPattern(dict(zip(names, event.ranks, strict=True))) for event in result.ranks
    }
    found.save(tmp_path / "adapter")
    from safetensors.torch import load_file

    ours, theirs = (load_file(tmp_path / at / "adapter_model.safetensors") for at in ("adapter", "trial/adapter"))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def _base(prepared: Any) -> Any:
    """The model of a prepared trial before it was adapted."""
    model = copy.deepcopy(prepared.adapted.net)
    for name in prepared.adapted.layers:
        model.set_submodule(name, model.get_submodule(name).base)
    return model


@pytest.mark.parametrize("allocator", ["adalora", "dylora", "increlora", "prilora", "sora", "l0", "spectral"])
def test_resume_is_exact(allocator: str, tmp_path: Path) -> None:
    """A training that continues from a checkpoint ends with the weights, ranks and record of one that did not stop."""
    options = {"recovery": 0.3} if allocator == "spectral" else {}
    whole = adapt(encoder(), allocator, mean_rank=2, max_rank=4, **options)
    train(whole, classified(), tmp_path, save_strategy="steps", save_steps=7, gradient_accumulation_steps=2)
    again = adapt(encoder(), allocator, mean_rank=2, max_rank=4, **options)
    train(
        again, classified(), tmp_path, resume=str(tmp_path / "checkpoint-7"), save_strategy="steps", save_steps=7,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    assert again.ranks_over_time == whole.ranks_over_time
    assert again.pattern == whole.pattern
    for key, value in weights(whole).items():
        assert torch.equal(weights(again)[key], value), key


def test_a_checkpoint_has_the_size_of_the_adapter(tmp_path: Path) -> None:
    """The Trainer's own weight file contains what is trained, and none of the frozen weights."""
    from safetensors.torch import load_file

    adapted = adapt(encoder(), mean_rank=2, max_rank=4)
    train(adapted, classified(), tmp_path, save_strategy="steps", save_steps=12)
    saved = load_file(tmp_path / "checkpoint-12" / "model.safetensors")
    assert {key for key in saved if not key.endswith((".A", ".B", ".g", ".m"))} == {
        "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_the_best_checkpoint_is_loaded_with_its_state(tmp_path: Path) -> None:
    """With `load_best_model_at_end` the allocator continues from the state of the best checkpoint."""
    adapted = adapt(encoder(), mean_rank=2, max_rank=4, **SHORT)
    trainer = Trainer(
        model=adapted.model, train_dataset=classified(), eval_dataset=classified(8), callbacks=[adapted.callback()],
        args=arguments(
            tmp_path, save_strategy="steps", save_steps=4, eval_strategy="steps", eval_steps=4,
            load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True,
        ),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None
    assert adapted.training.done == int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert max(adapted.ranks_over_time) <= adapted.training.done
    assert adapted.pattern.total == 24


def test_bf16(tmp_path: Path) -> None:
    """Under autocast, factors stay float32 and the allocator meets its budget."""
    adapted = adapt(encoder(), mean_rank=2, max_rank=4, **SHORT)
    train(adapted, classified(), tmp_path, bf16=True)
    assert {layer.A.dtype for layer in adapted.layers.values()} == {torch.float32}
    assert adapted.pattern.total == 24


def test_weights_in_bf16(tmp_path: Path) -> None:
    """A base model that was loaded in bfloat16 trains without autocast, with and without dropout on the adapters."""
    for dropout in (0.0, 0.1):
        adapted = adapt(encoder().to(torch.bfloat16), mean_rank=2, max_rank=4, dropout=dropout, **SHORT)
        train(adapted, classified(), tmp_path, steps=8)
        assert adapted.pattern.total == 24
        assert any(layer.B.abs().max() > 0.03 for layer in adapted.layers.values())


def test_the_first_batches(tmp_path: Path) -> None:
    """An allocator that looks at data sees the batches of the first steps, and looking does not change the training."""
    seen: list[Any] = []

    class Spy(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.extend(first_batches(kwargs["train_dataloader"], 3))

    used: list[Any] = []
    losses = []
    for spies in ([], [Spy()]):
        adapted = adapt(encoder(), "uniform", mean_rank=2)
        adapted.model.register_forward_pre_hook(lambda m, a, k: used.append(k["input_ids"]), with_kwargs=True)
        trainer = train(
            adapted, classified(), tmp_path, callbacks=[*spies, adapted.callback()], logging_strategy="steps"
        )
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert losses[0] == losses[1]
    assert [batch["input_ids"].tolist() for batch in seen] == [ids.tolist() for ids in used[12:15]]


def test_what_is_refused(tmp_path: Path) -> None:
    """A second callback, a second training, other steps, an optimiser that was made before, a lost checkpoint."""

    def fresh(**options: Any) -> Any:
        return adapt(encoder(), mean_rank=2, max_rank=4, **SHORT, **options)

    adapted = fresh()
    with pytest.raises(RuntimeError, match="callback was added twice"):
        train(adapted, classified(), tmp_path, callbacks=[adapted.callback(), adapted.callback()])
    with pytest.raises(RuntimeError, match="trained already"):
        train(adapted, classified(), tmp_path)
    with pytest.raises(ValueError, match=r"adapt\(steps=...\) must be the training's 12 optimiser steps, got 5"):
        train(fresh(steps=5), classified(), tmp_path)
    model = encoder()
    optimizer = torch.optim.AdamW(model.parameters())
    adapted = adapt(model, mean_rank=2, max_rank=4, **SHORT)
    with pytest.raises(ValueError, match="the optimiser does not hold 36 of the adapter's parameters"):
        Trainer(
            model=model, args=arguments(tmp_path), train_dataset=classified(), callbacks=[adapted.callback()],
            optimizers=(optimizer, None),
        ).train()  # fmt: skip
    adapted = fresh()
    train(adapted, classified(), tmp_path, callbacks=[])
    with pytest.raises(RuntimeError, match=r"AdaLoRA has run 0 steps: pass callbacks=\[adapted.callback\(\)\]"):
        adapted.save(tmp_path / "adapter")


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    """One without the allocator's state, and one of another training under the expected name."""
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 6}
    for seed, name in ((0, "a"), (1, "b")):
        adapted = adapt(encoder(), mean_rank=2, max_rank=4, seed=seed, **SHORT)
        train(adapted, classified(), tmp_path / name, **saving)
    for output, message in (("elsewhere", "has no adapter.pt"), ("b", "has other weights")):
        adapted = adapt(encoder(), mean_rank=2, max_rank=4, **SHORT)
        with pytest.raises(ValueError, match=message):
            train(adapted, classified(), tmp_path / output, resume=str(tmp_path / "a" / "checkpoint-6"))


def test_fp16_scales_the_penalty(monkeypatch: Any) -> None:
    """Where accelerate scales the loss, the penalty's gradient has the same scale."""
    from types import SimpleNamespace

    from rankopt.training.callback import AllocatorCallback

    adapted = adapt(encoder(), mean_rank=2, max_rank=4, steps=4, warmup=0.0, final=0.25)
    gradients = []
    for scaler in (None, SimpleNamespace(get_scale=lambda: 8.0)):
        adapted.model.zero_grad()
        callback: Callable[..., Any] = AllocatorCallback(adapted.training.hooks).on_step_begin
        callback(None, SimpleNamespace(global_step=0), None, optimizer=SimpleNamespace(scaler=scaler))
        gradients.append(next(iter(adapted.layers.values())).A.grad.clone())
    assert torch.allclose(gradients[1], 8 * gradients[0])

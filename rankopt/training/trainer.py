"""transformers' Trainer with our loss, order of examples, parameter groups and checkpoints."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from rankopt.allocators.base import Pass
from rankopt.core.errors import first_line
from rankopt.core.seeds import stream
from rankopt.core.trial_spec import TrainingSpec
from rankopt.lowrank.layers import apply_pattern
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems.base import Problem
from rankopt.training.callback import AllocatorCallback
from rankopt.training.checkpoint import ADAPTER, load_network, save_network, seal
from rankopt.training.device import autocast
from rankopt.training.model import Adapted
from rankopt.training.parameter_groups import parameter_groups
from rankopt.training.trial_callback import TrialCallback

LOSS_SCALE = 1024.0
"""Of the backward passes with fp16, whose gradients would vanish. A power of two, so it rounds nothing; it is constant,
so allocators see true gradients, and gradients that overflow fail the trial."""


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


class TrialTrainer(Trainer):
    """The Trainer of one trial.

    Args:
        adapted: the model.
        data: the training split.
        spec: learning rates, batch size and so on.
        steps: optimiser steps.
        seed: the trial's.
        folder: of the checkpoints.
        callback: the trial's record; its hooks are the allocator's.
        backward: called after the loss's backward pass; `Lane.backward`.
    """

    def __init__(
        self, adapted: Adapted, problem: Problem, data: Encoded, spec: TrainingSpec, steps: int, seed: int,
        folder: Path, callback: TrialCallback, backward: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.adapted, self.problem, self.spec, self.folder = adapted, problem, spec, folder
        self.events, self.hooks = callback, callback.hooks
        self.backward = backward
        self.scale = LOSS_SCALE if spec.precision == "fp16" else 1.0
        super().__init__(
            model=adapted.net,
            args=training_arguments(spec, steps, seed, folder, adapted.device.type),
            train_dataset=data,
            data_collator=lambda items: problem.collate(items, adapted.tokenizer, adapted.net.config),
            compute_loss_func=self.loss,
            callbacks=[AllocatorCallback(callback.hooks), callback],
        )
        self.remove_callback(PrinterCallback)  # the study displays progress

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # fmt: skip
        """The Trainer's, which calls `loss`. The inputs are kept for the allocator's additional passes."""
        self.inputs = {key: value for key, value in inputs.items() if key != "labels"}
        with autocast(self.args.device.type, self.spec.precision):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The micro-batch's share of the mean task loss of the optimiser step.

        Raises:
            NonFiniteLossError: before any weight changes.
        """
        logits = self.adapted.in_task_order(outputs.logits.float())
        items = float(num_items_in_batch) if num_items_in_batch is not None else float(self.problem.items(labels))
        loss = self.problem.loss(logits, labels) / items
        if passes := self.hooks.allocator.passes(self.hooks.state, self.hooks.layers):
            others = [self._pass(one, logits.detach(), labels) / items for one in passes]
            loss = torch.stack([loss, *others]).mean()
        self.events.loss += float(loss.detach())
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            raise NonFiniteLossError(f"the loss became {float(loss.detach())} at step {step} of {self.state.max_steps}")
        return loss if self.scale == 1 else loss * self.scale

    def _pass(self, one: Pass, teacher: Tensor, labels: Tensor) -> Tensor:
        """The summed loss of the same examples under another pattern. The masks are restored."""
        layers = self.hooks.layers
        masks = {name: layer.m.clone() for name, layer in layers.items()}
        apply_pattern(layers, one.pattern)
        net, kind = self.adapted.net, self.args.device.type
        with autocast(kind, self.spec.precision):
            # not the lane's forward: this pass is never joined with other trials
            logits = self.adapted.in_task_order(type(net).forward(net, **self.inputs).logits.float())
        for name, layer in layers.items():
            layer.mask(masks[name])
        if not one.taught:
            return self.problem.loss(logits, labels)
        return self.problem.distillation(logits, teacher, labels)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The Trainer's schedule, or two of them in sequence where the allocator restarts it."""
        restart = self.hooks.allocator.restart(num_training_steps)
        if restart is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        cut, share = restart
        first = cast(LambdaLR, super().create_scheduler(cut, optimizer))
        self.lr_scheduler = None
        second = cast(LambdaLR, super().create_scheduler(num_training_steps - cut, optimizer))
        self.lr_scheduler = LambdaLR(
            first.optimizer,
            [
                lambda step, a=a, b=b: a(step) if step < cut else share * b(step - cut)  # type: ignore[misc]
                for a, b in zip(first.lr_lambdas, second.lr_lambdas, strict=True)
            ],
        )
        return self.lr_scheduler

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self._scale_gradients(self.scale)  # of earlier micro-batches and of the penalty
        loss: Tensor = super().training_step(*args, **kwargs)
        self.backward()
        self._scale_gradients(1 / self.scale)
        return loss

    def _scale_gradients(self, factor: float) -> None:
        if factor != 1:
            for parameter in self.adapted.net.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with the groups of `parameter_groups`."""
        if self.optimizer is None:
            spec, adapted = self.spec, self.adapted
            others = [p for one in adapted.others.values() for p in one.parameters.values()]
            groups = parameter_groups(
                adapted.layers, adapted.net, adapted.head, spec.lr, spec.head_lr or spec.lr, spec.weight_decay,
                self.hooks.allocator.decays_gates, others,
            )  # fmt: skip
            self.optimizer = torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        self.events.gradient_norm = float(super()._get_grad_norm(model, grad_norm))  # type: ignore[no-untyped-call]
        return self.events.gradient_norm

    def floating_point_ops(self, inputs: Any) -> int:
        """0: nothing reads the count, and the Trainer would visit all parameters at every step."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        """The number of predictions of an optimiser step: the Trainer cannot know how a problem counts them."""
        return sum(self.problem.items(batch["labels"]) for batch in batch_samples)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.events.order

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write only what training changes, the allocator's state and the record so far."""
        folder = Path(output_dir or self.folder)
        states = {"state": self.hooks.state, "tuners": self.adapted.tuner_states()}
        save_network(self.adapted, folder, **states, records=self.events.records())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:  # what torch.save raises when the disk is full
            reason = f"cannot write the checkpoint ({first_line(error)})"
            raise OSError(errno.EIO, reason, str(self.folder)) from error
        written = self.folder / f"checkpoint-{self.state.global_step}"
        if self.events.is_restart(self.state.global_step, self.state.max_steps):
            # not deleted with older checkpoints; copied before the seal, so that a resumed run has it
            shutil.copy(written / ADAPTER, self.folder / ADAPTER)
        seal(written)

    def load(self, checkpoint: Path) -> None:
        """Restore what `_save` wrote; the Trainer itself restores the optimiser and the random generators."""
        content = load_network(self.adapted, checkpoint)
        self.hooks.state = content["state"]
        self.adapted.restore_tuners(content.get("tuners", {}))  # absent in checkpoints of earlier versions
        self.events.restore(content["records"])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load(Path(resume_from_checkpoint))


def training_arguments(spec: TrainingSpec, steps: int, seed: int, folder: Path, device: str) -> TrainingArguments:
    """The Trainer's arguments for a trial of `steps` optimiser steps, without logging or saving of its own."""
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.accumulation,
        learning_rate=spec.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(spec.schedule, spec.schedule),
        warmup_steps=spec.warmup if spec.warmup < 1 else int(spec.warmup),
        max_grad_norm=spec.clip,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
        seed=stream(seed, "dropout") % 2**32,  # seeds all global generators
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    args._n_gpu = min(1, args.n_gpu)  # one device: no DataParallel
    return args

"""When an allocator's hooks run. No other file connects them with the Trainer's events.

allocator.start(layers, budget, T, seed)            # `training.prepare`, or `api.adapt` and again at the first step
allocator.prepare(layers, probe)                    # before step 1, unless training continues from a checkpoint
for step in 1..T:
    allocator.before_step(step)                     # on_step_begin: before the first micro-batch
    add the gradient of allocator.penalty() and of other tuners' penalties
    for micro-batch in step:
        loss of the batch, and of allocator.passes()    # further patterns: in a trial only (`TrialTrainer.loss`)
        loss.backward()                             # in a trial, a non-finite loss fails it
    clip gradients                                  # the allocator sees clipped gradients, the penalty's included
    optimizer.step()                                # non-finite weights end the training
    allocator.after_step(step)                      # on_optimizer_step: gradients are still present
    allocator.review(step, probe)
    other tuners' after_step(step)
    reset the moments of layers and components that were replaced
    lr_scheduler.step(); zero gradients             # a trial's schedule starts again where allocator.restart() says
    record allocator.allocated()                    # on_step_end
allocator.finish()                                  # in `training.score`, or at the end of the Trainer's training
allocator.choose()                                  # in `training.score`: further cuts, chosen on the search split
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rankopt.training.hooks import AllocatorHooks


class AllocatorCallback(TrainerCallback):
    """Calls an allocator's hooks at the Trainer's events.

    Args:
        hooks: of the training.
    """

    def __init__(self, hooks: AllocatorHooks) -> None:
        self.hooks = hooks

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self.hooks.record_ranks(0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # the Trainer increments `global_step` after the optimiser's step
        self.hooks.before_step(state.global_step + 1)
        scaler = getattr(kwargs.get("optimizer"), "scaler", None)  # accelerate's, which divides fp16 gradients later
        self.hooks.add_penalty_gradient(scaler.get_scale() if scaler else 1.0)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.hooks.after_step(state.global_step + 1, state.max_steps, kwargs["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.hooks.record_ranks(state.global_step)

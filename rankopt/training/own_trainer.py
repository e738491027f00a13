"""The callback with which any Trainer trains an adapted model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerControl, TrainerState, TrainingArguments

from rankopt.training.callback import AllocatorCallback
from rankopt.training.checkpoint import ADAPTER, load_network, save_network
from rankopt.training.own_training import OwnTraining

BATCHES = 64
"""Batches of the Trainer's own loader that are kept for an allocator that looks at data; they ask for 16 at most by
default."""


class OwnTrainerCallback(AllocatorCallback):
    """Runs an allocator's hooks in a user's Trainer, and adds the allocator's state to the checkpoints it writes.

    It asks for no checkpoint itself. Training with `resume_from_checkpoint` continues exactly, from a checkpoint in
    `args.output_dir`.

    Args:
        training: of the model that the Trainer trains, or of a part of it.
    """

    def __init__(self, training: OwnTraining) -> None:
        super().__init__(training.hooks)
        self.training = training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        resumed = state.global_step > 0
        self.training.check_optimizer(kwargs["optimizer"])
        checkpoint = self._folder(args, state)
        if resumed:
            self._check(checkpoint)
        elif self.training.needs_batches:
            self.training.keep_batches(first_batches(kwargs["train_dataloader"], BATCHES))
        self.training.begin(state.max_steps, resumed=resumed)
        if resumed:
            self._restore(checkpoint)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.training.enter_step(state.global_step + 1)
        super().on_step_begin(args, state, control, **kwargs)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.training.leave_step(kwargs["optimizer"])
        super().on_optimizer_step(args, state, control, **kwargs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        hooks = self.hooks
        save_network(self.training, self._folder(args, state), state=hooks.state, ranks=hooks.ranks, peak=hooks.peak)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self._restore(Path(state.best_model_checkpoint))
        self.training.finish()

    @staticmethod
    def _folder(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"

    def _check(self, checkpoint: Path) -> None:
        """Refuse a checkpoint of another training, or one without the allocator's state.

        Raises:
            ValueError: one line.
        """
        where = f"the Trainer continues from step {checkpoint.name.rpartition('-')[2]}, but {checkpoint}"
        if not (checkpoint / ADAPTER).is_file():
            raise ValueError(
                f"{where} has no {ADAPTER}, the allocator's state: continue from a checkpoint in args.output_dir that "
                "was written with adapted.callback()"
            )
        saved = torch.load(checkpoint / ADAPTER, map_location="cpu", weights_only=True)["layers"]
        for name, layer in self.training.layers.items():
            if name not in saved or not torch.equal(saved[name]["A"], layer.A.detach().cpu()):
                raise ValueError(
                    f"{where} has other weights for {name} than the Trainer loaded: continue from a checkpoint in "
                    "args.output_dir"
                )

    def _restore(self, checkpoint: Path) -> None:
        content = load_network(self.training, checkpoint)
        self.hooks.state, self.hooks.ranks, self.hooks.peak = (content[key] for key in ("state", "ranks", "peak"))
        self.training.done = int(checkpoint.name.rpartition("-")[2])


def first_batches(loader: Any, count: int) -> Iterator[Any]:
    """The first batches that a loader will give, without advancing it or any random generator.

    Args:
        loader: a `DataLoader`, or accelerate's wrapper of one.
        count: largest number of batches.
    """
    random = isinstance(loader.dataset, IterableDataset)
    order: dict[str, Any] = {"batch_size": loader.batch_size} if random else {"batch_sampler": loader.batch_sampler}
    with torch.random.fork_rng():
        copy: DataLoader[Any] = DataLoader(loader.dataset, collate_fn=loader.collate_fn, **order)
        yield from itertools.islice(copy, count)

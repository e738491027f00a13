"""The trainings behind a suggestion: the sweep, the super-network, and what is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rankopt.api.short_trainings import ShortTrainings
from rankopt.core.task_spec import TaskSpec
from rankopt.lowrank.layers import apply_pattern
from rankopt.training.checkpoint import load_network
from rankopt.training.train import train


def test_the_whole_network_is_read_before_its_recovery(tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """The largest rank is scored on the network before the recovery; smaller ranks and what follows, after it."""
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    work = ShortTrainings(str(tiny_model), task, 4, 6, False, 0, tmp_path, lambda line: None)
    network = work.nested([1, 4], work.plan(3600))
    layer = next(iter(network.prepared.adapted.layers.values()))
    after = layer.A.detach().clone()
    whole = network.scored(work.uniform(4), "search")
    assert layer.A.equal(after)
    load_network(network.prepared.adapted, network.folder / "checkpoints")
    assert not layer.A.equal(after)
    apply_pattern(network.prepared.adapted.layers, work.uniform(4))
    again = work.rated(work.answers(network.prepared, "search", ("accuracy",)), "search")
    assert again.score == whole.score


def test_the_sweep_begins_the_training(tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """The network of the best learning rate is the one of an uninterrupted training."""
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    work = ShortTrainings(str(tiny_model), task, 2, 6, False, 0, tmp_path, lambda line: None)
    plan = work.plan(3600)
    network = work.nested([1, 2], plan)
    options = {"curve": [1.0], "looks": 0}
    alone = work.prepared("nested", 2, options, steps=plan.steps, lr=network.lr)
    (tmp_path / "alone").mkdir()
    train(alone, tmp_path / "alone")
    for name, layer in network.prepared.adapted.layers.items():
        assert layer.A.equal(alone.adapted.layers[name].A)


def test_examples_are_selected_to_fit(tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """A split that is long for so short a training is scored in part, and the part keeps tokens and labels together."""
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    work = ShortTrainings(str(tiny_model), task, 2, 6, False, 0, tmp_path, lambda line: None)
    whole = work.splits["search"]
    part = whole.select(np.array([5, 2]))
    assert [part[index]["labels"] for index in range(2)] == [whole[5]["labels"], whole[2]["labels"]]
    assert all((part[new]["input_ids"] == whole[old]["input_ids"]).all() for new, old in enumerate((5, 2)))


def test_a_language_model_in_bfloat16(tmp_path: Path) -> None:
    """Its trainings load and train it in bfloat16, with the batches of the studies that `rankopt init` writes."""
    task = TaskSpec(name="mini-text", train_examples=16, search_examples=8, report_examples=8)
    work = ShortTrainings("mini-decoder", task, 2, 1, True, 0, tmp_path, lambda line: None)
    spec = work.prepared("uniform", 1, steps=1).spec
    assert (spec.model.dtype, spec.training.precision, spec.training.batch_size) == ("bfloat16", "bf16", 8)
    assert work.full_steps == 5

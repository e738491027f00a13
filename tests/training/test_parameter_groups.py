"""Which parameters are trained, at which rate and decay; `test_trainer.py` checks a trial's."""

from __future__ import annotations

from own_training import encoder

from rankopt.api.adapt import adapt


def test_groups() -> None:
    """Each trained parameter is in one group; the head has its own rate, vectors do not decay, AdaLoRA's gates do."""
    adapted = adapt(encoder(), "adalora", mean_rank=2, max_rank=4)
    groups = adapted.parameter_groups(1e-3, head_lr=1e-4, weight_decay=0.1)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (1e-3, 0.1), (1e-3, 0.1), (1e-4, 0.1), (1e-4, 0.0),
    ]  # fmt: skip
    found = sorted(id(p) for group in groups for p in group["params"])
    assert found == sorted(id(p) for p in adapted.model.parameters() if p.requires_grad)


def test_no_empty_group() -> None:
    """Without trained gates and head there is one group."""
    adapted = adapt(encoder(), "uniform", mean_rank=2, modules_to_save=[])
    assert len(adapted.parameter_groups(1e-3)) == 1

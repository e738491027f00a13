"""What every allocator owes to a trial. A new row of `ALLOCATORS` is tested here without any edit."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from peft import PeftModel
from probing_allocators import PROBING
from pydantic import ValidationError
from ruamel.yaml import YAML
from safetensors.torch import load_file

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.base import Allocator
from rankopt.core.budget import Budget
from rankopt.core.pattern import Shape
from rankopt.core.spec import decode
from rankopt.core.trial_spec import AllocatorSpec, TrialSpec
from rankopt.core.yaml import Document
from rankopt.lowrank.export import export_peft
from rankopt.lowrank.layers import apply_pattern, pattern_of, shapes_of
from rankopt.training.prepare import prepare
from rankopt.training.score import score
from rankopt.training.train import train

MORE: dict[str, list[dict[str, Any]]] = {
    "static": [{"ranks": {"*": 1, "*.query": 3, "*layer.1.output.dense": 0}}],
    "ramp": [{"direction": "down", "ratio": 5.0}],
    "profile": [{"types": {"*": 0.5, "*.query": -1.0}, "slope": 1.5, "curvature": -0.7}],
    "prilora": [{"interval": 3, "ratio": 2.0}, {"interval": 1, "share": 0.2}],
    "eva": [{"batches": 1, "rho": 1.0}],
    "fisher": [{"batches": 2, "least": 0}, {"most": 1.0}],
    "gelora": [{"batches": 1, "tokens": 20}],
    "gora": [{"batches": 2, "least": 0.0, "most": 1.5}, {"batches": 1, "lr": 0.0}],
    "loradrop": [{"batches": 2, "threshold": 0.3, "lr": 0.01}],
    "adalora": [{"interval": 3, "initial": 2.5, "warmup": 0.0, "final": 0.0}, {"orthogonality": 0.0, "final": 2}],
    "dora_dynamic": [{"interval": 3, "initial": 2.5}, {"regularisation": 0.0, "final": 2}],
    "salientlora": [
        {"initial": 2.5, "mixing": 0.0},
        {"warmup": 0, "final": 0, "first_window": 2, "last_window": 3, "orthogonality": 0.0},
    ],
    "increlora": [{"grow": 2, "restart_warmup": 3}, {"warmup": 0, "final": 0, "interval": 2, "orthogonality": 0.0}],
    "elalora": [{"interval": 2, "most": 1, "candidates": 1}, {"warmup": 0, "final": 0, "orthogonality": 0.0}],
    "flexlora": [{"interval": 2, "most": 1}, {"warmup": 0, "final": 0, "orthogonality": 0.0}],
    "autolora": [{"gate_lr": 0.3, "final": 4}],
    "alora": [{"warmup": 2, "interval": 3, "rounds": 3, "most": 2}, {"warmup": 0, "interval": 1, "batches": 2}],
    "sora": [{"initial": 2.5, "warmup": 0.0, "final": 0.0}, {"xi": 0.01, "l1": 0.0}],
    "l0": [{"final": 6, "weight": 0.0}, {"open": 0.5, "weight": 5.0}],
    "salora": [{"final": 6, "initial": 2.5}, {"open": 0.5, "multiplier_lr": 5.0}],
    "matryoshka": [{"ranks": (1,)}],
    "dylora": [{"frozen": False, "draw": "layer"}, {"r_min": 2, "draw": "layer"}],
    "nested": [
        {"draw": "uniform", "recovery": 0.5},
        {"recipe": "scratch", "draw": "log"},
        {"sandwich": 1, "distill": True, "recovery": 5},
        {"recovery": 0},
    ],
    "annealed": [
        {"rule": "global", "stages": 3},
        {"rule": "cost", "recovery": 0},
        {"rule": "energy", "initial_rank": 3},
    ],
    "spectral": [
        {"rule": "cost", "recovery": 0.4},
        {"rule": "energy", "initial_rank": 3},
        {"recovery": 3},
        {"rule": "uniform"},
        {"calibration": 3, "recovery": 4},
        {"calibration": 20, "rule": "cost"},
    ],
}
"""Settings tried beside the defaults; an allocator that is not listed is tried with its defaults."""

TABLE = ALLOCATORS | PROBING
CASES = [(name, options) for name in TABLE for options in ({}, *MORE.get(name, []))]
Lab = SimpleNamespace


@pytest.fixture(params=CASES, ids=[f"{name} {options}" if options else name for name, options in CASES])
def allocator(request: pytest.FixtureRequest) -> Allocator:
    name, options = request.param
    return TABLE[name](**options)


@pytest.fixture
def typical(allocator: Allocator) -> Budget:
    """An ordinary budget, with room for r_min = 2."""
    return Budget(mean_rank=2)


BUDGETS = {
    "zero": Budget(ranks=0),
    "one": Budget(ranks=1),
    "typical": Budget(mean_rank=1.5),
    "beyond": Budget(ranks=1000),
    "one component's parameters": Budget(parameters=32),
    "typical parameters": Budget(mean_rank=1.5, unit="parameters"),
    "full parameters": Budget(mean_rank=4, unit="parameters"),
}


# ------------------------------------------------------------------------------------------ 1. from and to a study file


def test_survives_yaml(allocator: Allocator, tmp_path: Path) -> None:
    """Built with no arguments but its options, written as YAML, read as a study file is, it is the same allocator."""
    name = next(name for name, kind in TABLE.items() if kind is type(allocator))
    path = tmp_path / "study.yaml"
    YAML(typ="rt").dump({"name": name, **allocator.model_dump(mode="json")}, path)
    spec = decode(AllocatorSpec, Document(path).data)
    assert decode(TABLE[spec.name], spec.options) == allocator


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_wrong_field_is_named(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(ALLOCATORS[name], {"no_such_field": 1})
    assert [error["loc"] for error in caught.value.errors()] == [("no_such_field",)]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_registered_under_its_own_name(name: str) -> None:
    """The table's name is the file's name and the class's, in lower case; the docstring says where it comes from."""
    kind = ALLOCATORS[name]
    assert kind.__module__ == f"rankopt.allocators.{name}"
    assert kind.__name__.lower() == name.replace("_", "")
    assert kind.scale in kind.scales
    for field in kind.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(kind(), field, None)


def outside_the_protocol(kind: type[Allocator]) -> set[str]:
    """Public methods and properties of an allocator that nothing calls."""
    found = {
        name
        for base in kind.__mro__
        if base is not Allocator and issubclass(base, Allocator)
        for name, value in vars(base).items()
        if not name.startswith("_") and (callable(value) or hasattr(value, "__get__"))
    }
    return found - vars(Allocator).keys()


@pytest.mark.parametrize("name", TABLE)
def test_every_public_method_is_a_hook(name: str) -> None:
    """A hook with a misspelt name would never be called; helpers are private."""
    assert outside_the_protocol(TABLE[name]) == set()


def test_a_misspelt_hook_is_found() -> None:
    """Methods (inherited, class and static ones too) and properties are found; hooks, fields and helpers are not."""

    class Misspelt(ALLOCATORS["uniform"]):  # type: ignore[misc]
        width: int = 3
        scale: ClassVar[Any] = "unit"

        def after_steps(self, state: Any, layers: Any, step: int) -> None: ...

        def after_step(self, state: Any, layers: Any, step: int) -> None: ...

        def _helper(self) -> None: ...

    class Below(Misspelt):
        @property
        def size(self) -> int:
            return 1

        @classmethod
        def made(cls) -> None: ...

        @staticmethod
        def of() -> None: ...

    assert outside_the_protocol(Misspelt) == {"after_steps"}
    assert outside_the_protocol(Below) == {"after_steps", "size", "made", "of"}


# --------------------------------------------------------------------------------------------------------- 2. the start


@pytest.mark.parametrize("budget", ["zero", "typical", "full parameters"])
def test_the_adapted_model_starts_as_the_base_model(allocator: Allocator, budget: str, lab: Lab) -> None:
    """Not one bit of the logits moves before the first step, under every scale policy that the allocator allows."""
    expected = lab.logits(lab.base_model())
    if not allocator.starts_as_base:
        pytest.skip("its class says that it starts elsewhere; its own test shows where")
    for scale in sorted(allocator.scales):
        training = begin(lab, allocator, BUDGETS[budget], scale=scale).prepare()
        allocator.before_step(training.state, training.layers, 1)
        assert torch.equal(lab.logits(training.model), expected)


def test_preparing_leaves_no_trace(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    """`prepare` moves no global random generator, no frozen weight and no gradient."""
    training = begin(lab, allocator, typical)
    before = torch.get_rng_state(), training.weights()
    training.prepare()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert all(torch.equal(training.weights()[key], before[1][key]) for key in ("weight", "bias")), "the head"
    now = {key.replace(".base.", "."): value for key, value in training.model.state_dict().items()}
    assert all(torch.equal(now[key], value) for key, value in lab.base_model().state_dict().items())


def begin(lab: Lab, allocator: Allocator, budget: Budget, **options: Any) -> Any:
    """A training, or a skip where settings that are not the defaults cannot meet a budget, which one line says."""
    try:
        return lab.Training(allocator, budget, **options)
    except ValueError as error:
        reason = str(error)
    assert reason.startswith("allocator.")
    assert "\n" not in reason
    assert not allocator.needs_budget or allocator != type(allocator)(), "defaults must do for every budget"
    pytest.skip(reason)


# ------------------------------------------------------------------------------------------------ 3. the final patterns


@pytest.mark.parametrize("budget", BUDGETS)
def test_final_patterns(allocator: Allocator, budget: str, lab: Lab) -> None:
    """They cover exactly the adapted layers, lie in 0..max_rank and within budget, and the rest are cuts of the first.

    And methods that are compared at a budget use it: what is left over would not pay for one component more.
    """
    training = begin(lab, allocator, BUDGETS[budget], steps=5).advance()
    shapes, allowance = shapes_of(training.layers), BUDGETS[budget]
    patterns = training.finish()
    assert pattern_of(training.layers) == patterns[0]
    assert len(set(patterns)) == len(patterns) >= 1
    for pattern in patterns:
        assert set(pattern) == set(training.layers)
        assert all(0 <= rank <= lab.MAX_RANK for rank in pattern.values())
        assert allowance.spent(pattern, shapes) <= allowance.amount(shapes)
        assert all(pattern[name] <= patterns[0][name] for name in pattern)
    if allocator.needs_budget and getattr(allocator, "rule", "") != "energy":  # whole layers' energies move in steps
        left = allowance.amount(shapes) - allowance.spent(patterns[0], shapes)
        room = [allowance.cost(shapes[name]) for name, rank in patterns[0].items() if rank < lab.MAX_RANK]
        assert all(cost > left for cost in room)


# --------------------------------------------------------------------------------------- 4. the pattern tells the truth


@torch.no_grad()
def test_masked_components_do_not_matter(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    """Under every final pattern, overwriting what it leaves out changes not one bit, and what it keeps does matter."""
    with torch.enable_grad():
        training = lab.trained(allocator, typical)
    for pattern in sorted(training.finish(), key=lambda pattern: -pattern.total):  # noise stays in what is left out
        apply_pattern(training.layers, pattern)
        assert pattern_of(training.layers) == pattern
        expected = lab.logits(training.model)
        for layer in training.layers.values():
            for tensor in (layer.A, layer.B.T, layer.g):
                tensor[~layer.m] = 1e3 * torch.randn_like(tensor[~layer.m])
        assert torch.equal(lab.logits(training.model), expected)
        for layer in training.layers.values():
            layer.B += layer.m
        assert pattern.total == 0 or not torch.equal(lab.logits(training.model), expected)


# --------------------------------------------------------------------------------------------- 5. merging and exporting


def test_merged_and_exported(allocator: Allocator, typical: Budget, lab: Lab, tmp_path: Path) -> None:
    """For every final pattern the merged model and stock PEFT compute the same, with as many parameters as counted."""
    training = lab.trained(allocator, typical)
    start = lab.logits(lab.base_model())
    for index, pattern in enumerate(training.finish()):
        if pattern.total == 0:
            continue  # PEFT knows no adapter without a component, see `export_peft`
        apply_pattern(training.layers, pattern)
        expected = lab.logits(training.model)
        assert (expected - start).abs().max() > 1e-3, "the test could not fail"
        for layer in training.layers.values():
            layer.merge()
        torch.testing.assert_close(lab.logits(training.model), expected, atol=1e-5, rtol=1e-5)
        for layer in training.layers.values():
            layer.unmerge()
        assert torch.equal(lab.logits(training.model), expected)
        folder = tmp_path / str(index)
        assert export_peft(training.layers, training.model, folder, head=[lab.HEAD]) == pattern
        loaded = PeftModel.from_pretrained(lab.base_model(), str(folder)).eval()
        torch.testing.assert_close(lab.logits(loaded), expected, atol=1e-5, rtol=1e-5)
        tensors = load_file(folder / "adapter_model.safetensors")
        elements = sum(value.numel() for key, value in tensors.items() if ".lora_" in key)
        assert elements == pattern.parameters(shapes_of(training.layers))


# ------------------------------------------------------------------------------------------------------ 6. determinism


def test_same_seed_same_run(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    one, other = lab.trained(allocator, typical), begin(lab, allocator, typical).advance()
    assert one.trace == other.trace
    assert one.finish() == other.finish()
    assert_equal(one.weights(), other.weights())


def test_another_seed_another_start(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    one, other = (begin(lab, allocator, typical, seed=seed) for seed in (0, 1))
    for name in one.layers:
        assert not torch.equal(one.layers[name].A, other.layers[name].A)


def test_the_order_of_layers_is_no_matter(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    """The same ranks at every step and the same weights (up to the order of summation) from a reversed mapping."""
    one, other = lab.trained(allocator, typical), begin(lab, allocator, typical, reverse=True).advance()
    assert list(one.layers) == list(reversed(other.layers))
    assert one.trace == other.trace
    assert one.finish() == other.finish()
    expected, found = one.weights(), other.weights()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)


def test_interrupted_and_resumed(allocator: Allocator, typical: Budget, lab: Lab, tmp_path: Path) -> None:
    """Saved as plain data at a step, restored into a fresh run: the same trace, patterns and weights, bit for bit."""
    whole = lab.trained(allocator, typical)
    weights, patterns = whole.weights(), whole.finish()
    run = begin(lab, allocator, typical)
    for at in (1, 6, 10):  # every time in a new process, as it were
        run.advance(at).save(tmp_path / "saved.pt")
        run = begin(lab, allocator, typical).load(tmp_path / "saved.pt")
        assert run.allocator.allocated(run.state, run.layers) == whole.trace[at]
    run.advance()
    assert run.trace[1:] == whole.trace[at + 1 :]
    assert_equal(run.weights(), weights)
    assert run.finish() == patterns
    assert_equal(run.weights(), whole.weights())


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


# --------------------------------------------------------------------------------------------------------- 7. it learns


def test_it_learns(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    """With the head held still only adapters can lower the loss, and in the trial's own pattern they do."""
    training = begin(lab, allocator, typical, steps=40, lr=0.05, seed=1)
    training.head.requires_grad_(False)
    with torch.no_grad():
        before = float(training.loss(0) + training.loss(1))
    training.advance()
    apply_pattern(training.layers, training.finish()[0])
    with torch.no_grad():
        assert float(training.loss(0) + training.loss(1)) < before - 0.01
    assert all(math.isfinite(loss) for loss in training.losses)
    assert all(torch.isfinite(value).all() for value in training.weights().values())


def test_only_adapters_and_the_head_change(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    """Not one bit of the base model moves; every layer that was ever open does."""
    training = lab.trained(allocator, typical)
    now = {key.replace(".base.", "."): value for key, value in training.model.state_dict().items()}
    moved = {key for key, value in lab.base_model().state_dict().items() if not torch.equal(now[key], value)}
    assert moved == {f"{lab.HEAD}.weight", f"{lab.HEAD}.bias"}
    start = begin(lab, allocator, typical).prepare()
    for name, layer in training.layers.items():
        assert start.layers[name].rank == 0 or not torch.equal(layer.B, start.layers[name].B)


def test_ranks_that_must_fall_do_fall(allocator: Allocator, typical: Budget, lab: Lab) -> None:
    """No silent no-op: who starts above the budget is at the budget at the end, and by steps that the trace shows."""
    training = lab.trained(allocator, typical)
    amount = typical.amount(shapes_of(training.layers))
    final = training.finish()[0]
    if training.trace[0].total > amount:
        assert training.trace[0].total > training.trace[-1].total
        assert training.trace[-1] == final
    assert final.total <= amount


def test_shapes_are_not_all_alike(lab: Lab) -> None:
    """The toy tells a rank budget from a parameter budget."""
    training = lab.Training(ALLOCATORS["uniform"](), Budget(ranks=1))
    assert set(shapes_of(training.layers).values()) == {Shape(16, 16), Shape(16, 24), Shape(24, 16)}
    assert len(training.layers) == 5


# --------------------------------------------------------------------------------- 8. decoders and encoder-decoders too


@pytest.fixture(scope="session", params=["gpt2", "t5"])
def language_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A tiny random language model: a decoder with GPT-2's Conv1D, or an encoder-decoder."""
    from tiny_models import tiny_language_model

    from rankopt.tasks.mini_decoder import build_tokenizer

    tokenizer, folder = build_tokenizer(), tmp_path_factory.mktemp(request.param)
    tiny_language_model(request.param, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return request.param, folder


def on_text(folder: Path, name: str) -> TrialSpec:
    return decode(
        TrialSpec,
        {
            "task": {"name": "mini-text", "train_examples": 48, "search_examples": 8, "report_examples": 8},
            "model": {"name": str(folder), "max_rank": 4, "alpha": 4.0},
            "allocator": {"name": name},
            "budget": {"mean_rank": 2},
            "training": {"steps": 10, "batch_size": 4, "lr": 0.05},
        },
    )


@pytest.mark.parametrize("name", ALLOCATORS)
def test_language_models(name: str, language_model: tuple[str, Path], tmp_path: Path) -> None:
    """A whole trial: it starts as the base, learns within its budget, moves only adapters, and loads in PEFT."""
    from tiny_models import tiny_language_model

    family, folder = language_model
    prepared = prepare(on_text(folder, name))
    net: Any = prepared.adapted.net.eval()
    base = tiny_language_model(family, vocab_size=net.config.vocab_size)
    problem, data = prepared.task.problem, prepared.data.held_out["search"]
    batch = problem.collate([data[index] for index in range(8)], prepared.adapted.tokenizer, net.config)
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = base(**batch).logits
        if prepared.allocator.starts_as_base:
            torch.testing.assert_close(net(**batch).logits, expected, atol=1e-5, rtol=1e-5)
    trained = train(prepared, tmp_path)
    result = score(prepared, trained, tmp_path)
    assert result.status == "complete"
    assert all(math.isfinite(event.loss) for event in result.losses)
    shapes = shapes_of(prepared.adapted.layers)
    assert prepared.budget.spent(result.own.pattern, shapes) <= prepared.budget.amount(shapes)
    if prepared.allocator.needs_budget:
        with torch.no_grad():
            logits = net.eval()(**batch).logits
        before, after = (
            problem.mean_loss({key: value.numpy() for key, value in problem.answers(each, labels).items()}, data.labels)
            for each in (expected, logits)
        )
        assert after < before - 0.01, "it learns"
    state = {key.replace(".base.", "."): value for key, value in net.state_dict().items()}
    assert all(torch.equal(state[key], value) for key, value in base.state_dict().items())
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()(**batch).logits
        torch.testing.assert_close(found, net.eval()(**batch).logits, atol=1e-5, rtol=1e-5)

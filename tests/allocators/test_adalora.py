"""AdaLoRA against a plain transcription of its equations, and step by step against PEFT's `RankAllocator`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora.layer import RankAllocator
from torch import Tensor, nn

from rankopt.allocators.adalora import AdaLoRA
from rankopt.core.budget import Budget, Schedule
from rankopt.core.pattern import Shape
from rankopt.lowrank.layers import pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

Layers = dict[str, LowRankLinear]


def layers_of(shapes: list[tuple[int, int]], max_rank: int) -> Layers:
    """Layers in float64, so that no two scores are equal by rounding."""
    torch.manual_seed(0)
    bases = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in shapes]
    return {f"l{i}": LowRankLinear(base, max_rank, Scale("init", 8.0)).double() for i, base in enumerate(bases)}


def drive(layers: Layers, step: int, seed: int) -> None:
    """What an optimiser step leaves: moved weights, and random gradients still there."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    for layer in layers.values():
        for parameter in (layer.A, layer.B, layer.g):
            parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.grad = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)


# --------------------------------------------------------------------------------------------------- PEFT, step by step


def peft_twin(layers: Layers) -> nn.Module:
    """Modules whose parameters PEFT's allocator finds by name."""
    twin = nn.ModuleDict()
    for name, layer in layers.items():
        twin[name] = nn.ModuleDict({key: nn.ParameterDict() for key in ("lora_A", "lora_B", "lora_E")})
        twin[name]["lora_A"]["default"] = nn.Parameter(torch.empty_like(layer.A))
        twin[name]["lora_B"]["default"] = nn.Parameter(torch.empty_like(layer.B))
        twin[name]["lora_E"]["default"] = nn.Parameter(torch.empty_like(layer.g)[:, None])
    return twin


def copy_to_twin(layers: Layers, twin: Any) -> None:
    for name, layer in layers.items():
        pairs = {"lora_A": layer.A, "lora_B": layer.B, "lora_E": layer.g}
        for key, ours in pairs.items():
            theirs = twin[name][key]["default"]
            theirs.data = ours.data.reshape(theirs.shape).clone()
            theirs.grad = ours.grad.reshape(theirs.shape).clone()


@pytest.mark.parametrize("block", range(10))
def test_the_same_components_as_peft(block: int) -> None:
    """250 random schedules: at every step the same budget, the same kept set, the same gates zeroed.

    Ties apart (PEFT drops all components at the threshold, we keep exactly the budget; scores here are in float64 and
    never equal), and with a score before the first selection and a budget that falls, without which PEFT raises.
    """
    selections = 0
    for seed in range(25 * block, 25 * block + 25):
        random = Random(seed)
        T = random.randint(3, 30)
        tfinal = random.randint(0, T - 2)
        tinit = random.randint(0, T - tfinal - 1)
        target_r = random.randint(1, 4)
        init_r = target_r + random.randint(1, 3)
        shapes = [(random.randint(1, 6), random.randint(1, 6)) for _ in range(random.randint(1, 4))]
        interval = random.randint(1, 6)
        beta1, beta2 = random.uniform(0.1, 0.95), random.uniform(0.1, 0.95)

        layers = layers_of(shapes, init_r)
        allocator = AdaLoRA(
            initial=10.0, warmup=float(tinit), final=float(tfinal), interval=interval, beta1=beta1, beta2=beta2
        )
        state = allocator.start(layers, Budget(ranks=target_r * len(shapes)), T, seed)
        twin = peft_twin(layers)
        config = SimpleNamespace(
            beta1=beta1, beta2=beta2, tinit=tinit, tfinal=tfinal, total_step=T, deltaT=interval, target_r=target_r
        )
        theirs = RankAllocator(twin, config, "default")
        assert theirs.init_bgt == sum(layer.rank for layer in layers.values()) == init_r * len(shapes)

        for step in range(1, T + 1):
            drive(layers, step, seed)
            copy_to_twin(layers, twin)
            amount, kept = theirs.update_and_allocate(twin, step - 1)  # as both authors' trainers count
            allocator.after_step(state, layers, step)
            assert Schedule(**state["schedule"]).at(step - 1) == amount
            ended = kept is not None and amount == target_r * len(shapes)
            if step == T and not ended:  # they leave more than the final budget
                break
            for name, layer in layers.items():
                assert torch.equal(layer.g, twin[name]["lora_E"]["default"].squeeze(1))
                if kept is not None:
                    mask = kept[f"{name}.lora_E.default"]
                    assert (layer.g != 0).tolist() == mask
                    assert allocator.allocated(state, layers)[name] == sum(mask)
            if kept is not None:
                selections += 1
                assert sum(map(sum, kept.values())) == amount
        final = {name: sum((layer.g != 0).tolist()) for name, layer in layers.items()}
        if ended:
            assert allocator.finish(state, layers) == (final,)
    assert selections > 100


def test_the_penalty_is_pefts(lab: Any) -> None:
    """The difference between PEFT's loss with and without its orthogonality term, on the same factors."""
    config = AdaLoraConfig(
        init_r=3,
        target_r=2,
        total_step=10,
        orth_reg_weight=0.3,
        task_type="SEQ_CLS",
        target_modules=["query", "dense"],
    )
    theirs = get_peft_model(lab.base_model(), config)
    torch.manual_seed(0)
    adapted = {n.removeprefix("base_model.model."): m for n, m in theirs.named_modules() if hasattr(m, "lora_E")}
    layers: Layers = {}
    for name, module in adapted.items():
        layers[name] = LowRankLinear(module.base_layer, 5, Scale("init", 1.0))
        layers[name].open(3)
        for ours, key in ((layers[name].A, "lora_A"), (layers[name].B.T, "lora_B")):
            values = torch.randn(3, ours.shape[1])
            ours.data[:3] = values
            ours.data[3:] = 100.0  # masked components have no part in it
            theirs_ = getattr(module, key)["default"]
            theirs_.data.copy_(values if key == "lora_A" else values.T)
    assert len(layers) > 8
    out = theirs(input_ids=torch.arange(2, 14).reshape(2, 6), labels=torch.tensor([0, 1]))
    task = nn.functional.cross_entropy(out.logits, torch.tensor([0, 1]))
    penalty = AdaLoRA(orthogonality=0.3).penalty({}, layers)
    torch.testing.assert_close(penalty, out.loss - task, atol=1e-4, rtol=1e-5)
    penalty.backward()
    assert all(layer.A.grad[:3].abs().sum() > 0 and layer.A.grad[3:].abs().sum() == 0 for layer in layers.values())


def test_no_penalty() -> None:
    layers = layers_of([(3, 3)], 2)
    assert AdaLoRA().penalty({}, layers) is None, "nothing is active"
    layers["l0"].open(2)
    assert AdaLoRA(orthogonality=0.0).penalty({}, layers) is None


# ------------------------------------------------------------------------------------------ the paper, written out


class Transcription:
    """Equations 7 to 10 and algorithm 1, entry by entry in plain Python."""

    def __init__(self, beta1: float, beta2: float) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.Ibar: dict[Any, float] = {}
        self.Ubar: dict[Any, float] = {}

    def s(self, key: Any) -> float:
        return self.Ibar.get(key, 0.0) * self.Ubar.get(key, 0.0)

    def update(self, layers: Layers) -> None:
        for name, layer in layers.items():
            for matrix, tensor in (("P", layer.B), ("Q", layer.A), ("E", layer.g)):
                for place in entries(tensor):
                    key = (name, matrix, place)
                    I = abs(tensor[place].item() * tensor.grad[place].item())  # noqa: E741
                    self.Ibar[key] = self.beta1 * self.Ibar.get(key, 0.0) + (1 - self.beta1) * I
                    U = abs(I - self.Ibar[key])
                    self.Ubar[key] = self.beta2 * self.Ubar.get(key, 0.0) + (1 - self.beta2) * U

    def triplet(self, name: str, i: int, shape: Shape) -> float:
        P = sum(self.s((name, "P", (j, i))) for j in range(shape.fan_out)) / shape.fan_out
        Q = sum(self.s((name, "Q", (i, j))) for j in range(shape.fan_in)) / shape.fan_in
        return self.s((name, "E", (i,))) + P + Q

    def keep(self, layers: Layers, amount: int, costs: dict[str, int]) -> set[tuple[str, int]]:
        order = [(name, i) for name, layer in layers.items() for i in range(layer.initial)]
        order.sort(key=lambda c: -self.triplet(*c, layers[c[0]].shape) / costs[c[0]])
        kept = set()
        for name, i in order:
            if costs[name] <= amount:
                kept.add((name, i))
                amount -= costs[name]
        return kept


def entries(tensor: Tensor) -> Iterator[tuple[int, ...]]:
    return (tuple(place) for place in torch.ones(tensor.shape).nonzero().tolist())


@pytest.mark.parametrize("first_step", [0, 1])
@pytest.mark.parametrize("unit", ["ranks", "parameters"])
@pytest.mark.parametrize("seed", range(6))
def test_the_paper(unit: Any, seed: int, first_step: Any) -> None:
    """Scores, kept sets and the final pattern, in both units and with both counts of steps, by a transcription with the
    schedule of `Schedule`."""
    layers = layers_of([(2, 3), (5, 4), (3, 3)], 4)
    costs = {name: 1 if unit == "ranks" else layer.shape.cost for name, layer in layers.items()}
    budget = Budget(mean_rank=2, unit=unit)
    allocator = AdaLoRA(initial=1.5, warmup=2.0, final=4.0, interval=2, first_step=first_step)
    state = allocator.start(layers, budget, 14, seed)
    assert pattern_of(layers) == dict.fromkeys(layers, 3)
    end = budget.amount(shapes_of(layers))
    schedule = Schedule(start=3 * sum(costs.values()), end=end, steps=14, warmup=2, final=4)
    paper = Transcription(0.85, 0.85)
    kept: set[tuple[str, int]] = set()
    for step in range(1, 15):
        drive(layers, step, seed)
        before = {name: layer.g.detach().clone() for name, layer in layers.items()}
        t = step if first_step else step - 1
        if t < 10:
            paper.update(layers)
        allocator.after_step(state, layers, step)
        if t > 10 or (t > 2 and t % 2 == 0):
            kept = paper.keep(layers, schedule.at(t), costs)
            for name, layer in layers.items():
                expected = [float(before[name][i]) if (name, i) in kept or i >= 3 else 0.0 for i in range(4)]
                assert layer.g.tolist() == expected
        else:
            assert all(torch.equal(layer.g, before[name]) for name, layer in layers.items())
    rows = {name: layer.A.detach().clone() for name, layer in layers.items()}
    assert allocator.finish(state, layers) == ({n: sum(name == n for name, _ in kept) for n in layers},)
    for name, layer in layers.items():
        survivors = [i for i in range(3) if (name, i) in kept]
        assert torch.equal(layer.active()[0], rows[name][survivors]), "the kept ones come first, in order"


@pytest.mark.parametrize("importance", ["sensitivity", "magnitude", "gate"])
def test_the_ablations(importance: Any) -> None:
    """What is kept by the present step's |w dL/dw|, by |w|, or by |g| alone; frozen when the final phase begins."""
    layers = layers_of([(2, 3), (5, 4)], 3)
    allocator = AdaLoRA(initial=2.0, warmup=1.0, final=3.0, importance=importance)
    state = allocator.start(layers, Budget(mean_rank=1), 10, 0)
    for step in range(1, 11):
        drive(layers, step, 7)
        if step - 1 < 7:
            scores = {}
            for name, layer in layers.items():
                for i in range(2):
                    parts = (layer.A[i], layer.B[:, i], layer.g[i])
                    slopes = (layer.A.grad[i], layer.B.grad[:, i], layer.g.grad[i])
                    if importance == "sensitivity":
                        parts = tuple(part * slope for part, slope in zip(parts, slopes, strict=True))
                    A, B, g = (float(part.detach().abs().mean()) for part in parts)
                    scores[name, i] = g if importance == "gate" else A + B + g
        allocator.after_step(state, layers, step)
    best = sorted(scores, key=lambda one: -scores[one])[:2]
    expected = {name: sum(one == name for one, _ in best) for name in layers}
    assert allocator.finish(state, layers) == (expected,)


# ----------------------------------------------------------------------------------------------------------- behaviour


def test_only_the_gate_has_a_gradient_at_first(lab: Any) -> None:
    """g = 0: A's and B's gradients are exactly zero at step 1, every open gate's is not."""
    training = lab.Training(AdaLoRA(orthogonality=0.0), Budget(mean_rank=2))
    training.loss(1).backward()
    for layer in training.layers.values():
        assert layer.A.grad.abs().max() == layer.B.grad.abs().max() == 0
        assert (layer.g.grad[:3] != 0).all()
        assert layer.g.grad[3] == 0


def test_start(lab: Any) -> None:
    """A and B normal with deviation 0.02, the gate zero and trained."""
    _, layers = lab.inject(Scale("init", 1.0), max_rank=64)
    AdaLoRA().start(layers, Budget(mean_rank=40), 10, 0)
    values = torch.cat([t.detach().flatten() for layer in layers.values() for t in (layer.A, layer.B)])
    assert float(values.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(values.mean())) < 0.001
    assert all((layer.g == 0).all() and layer.g.requires_grad for layer in layers.values())


@pytest.mark.parametrize(
    ("mean", "initial", "max_rank", "rank"),
    [
        (2, 1.5, 16, 3),
        (8, 1.5, 16, 12),
        (3, 1.5, 16, 5),
        (2, 1.5, 2, 2),
        (10, 1.1, 16, 11),
        (2, 1.0, 16, 2),
        (0, 1.5, 16, 0),
    ],
)
def test_initial_rank(mean: float, initial: float, max_rank: int, rank: int, lab: Any) -> None:
    """The ratio times the budget's rank, rounded up and capped; 1.1 x 10 is 11."""
    _, layers = lab.inject(Scale("init", 1.0), max_rank=max_rank)
    state = AdaLoRA(initial=initial).start(layers, Budget(mean_rank=mean), 10, 0)
    assert set(pattern_of(layers).values()) == {rank}
    assert state["schedule"]["start"] == rank * len(layers)
    assert state["schedule"]["end"] == min(mean, rank) * len(layers)
    for moments in state["mean"].values():  # what is kept and done at every step does not grow with max_rank
        assert (moments["A"].shape[1], moments["B"].shape[2], moments["g"].shape[1]) == (rank, rank, rank)


def test_nothing_to_prune(lab: Any) -> None:
    """Initial budget = final budget (PEFT once crashed): everything is kept throughout."""
    training = lab.Training(AdaLoRA(initial=1.0), Budget(mean_rank=2)).advance()
    assert {pattern.total for pattern in training.trace} == {2 * len(training.layers)}
    assert set(training.finish()[0].values()) == {2}


def test_a_suppressed_gate_can_revive() -> None:
    """A component that was dropped and then matters more than the kept one is kept at the next selection."""
    layers = layers_of([(2, 2)], 2)
    allocator = AdaLoRA(initial=2.0, warmup=1.0, final=0.0)
    state = allocator.start(layers, Budget(ranks=1), 50, 0)
    layer = layers["l0"]
    history = []
    for step in range(1, 51):
        strong = 0 if step < 25 else 1
        for parameter in (layer.A, layer.B, layer.g):
            parameter.grad = torch.zeros_like(parameter)
        layer.g.data[:2] = 0.1  # the optimiser moves gates off zero between two selections
        layer.g.grad[strong], layer.g.grad[1 - strong] = 1.0 + step % 2, 0.0
        allocator.after_step(state, layers, step)
        history.append((layer.g != 0).tolist())
    assert history[0] == [True, True]
    assert history[20] == [True, False]
    assert history[-1] == [False, True]


def test_the_last_phase_does_not_change_its_mind(lab: Any) -> None:
    """Scores are final when the final phase begins, so the set is too, and no gate outside it ever gets off zero."""
    training = lab.Training(AdaLoRA(warmup=2.0, final=5.0), Budget(mean_rank=1))
    sets = []
    for step in range(1, 13):
        training.advance(step)
        sets.append({name: (layer.g != 0).tolist() for name, layer in training.layers.items()})
    assert sets[7] == sets[8] == sets[11]
    assert [pattern.total for pattern in training.trace[8:]] == [5] * 5
    assert training.trace[1].total == training.trace[2].total == training.trace[3].total == 10


@pytest.mark.parametrize("steps", range(1, 12))
def test_short_trainings(steps: int, lab: Any) -> None:
    """The default fractions work from one step on."""
    training = lab.Training(AdaLoRA(), Budget(mean_rank=1), steps=steps).advance()
    assert training.finish()[0].total == 5


@pytest.mark.parametrize("options", [{"warmup": 6.0, "final": 6.0}, {"warmup": 0.5, "final": 0.5}, {"final": 12.0}])
def test_a_schedule_without_room_is_refused(options: Any, lab: Any) -> None:
    with pytest.raises(ValueError, match=r"allocator\.warmup \+ allocator\.final must be fewer than .* 12 steps"):
        lab.Training(AdaLoRA(**options), Budget(mean_rank=1), steps=12)


BAD = [{"initial": 0.9}, {"initial": math.inf}, {"warmup": -0.1}, {"interval": 0}, {"beta1": 1.0}, {"beta2": 0.0}]


@pytest.mark.parametrize("options", BAD)
def test_bad_settings_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AdaLoRA(**options)


def test_ties_keep_exactly_the_budget() -> None:
    """All scores equal (no gradient came): as many survive as the budget says, the first ones."""
    layers = layers_of([(2, 2), (2, 2)], 3)
    allocator = AdaLoRA(initial=1.5, warmup=0.0, final=0.0)
    state = allocator.start(layers, Budget(ranks=4), 1, 0)
    allocator.after_step(state, layers, 1)
    assert allocator.finish(state, layers) == ({"l0": 3, "l1": 1},)

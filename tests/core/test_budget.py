"""`Budget.select` against brute force and by its properties; the schedule against PEFT's own."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.adalora.layer import RankAllocator
from pydantic import ValidationError

from rankopt.core.budget import Budget, Mask, Schedule, Unit
from rankopt.core.pattern import RankPattern, Shape

Importance = dict[str, list[float]]
Shapes = dict[str, Shape]

UNITS: list[Unit] = ["ranks", "parameters"]
# few distinct values, so that ties are common; and any finite ones
VALUES = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, 2.0]) | st.floats(-1e6, 1e6)


@st.composite
def problems(draw: st.DrawFn, max_layers: int = 5, max_rank: int = 5) -> tuple[Importance, Shapes]:
    names = draw(st.lists(st.text("ab.1", min_size=1, max_size=4), max_size=max_layers, unique=True))
    importance = {name: draw(st.lists(VALUES, max_size=max_rank)) for name in names}
    return importance, {name: Shape(draw(st.integers(1, 9)), draw(st.integers(1, 9))) for name in names}


def cost(keep: Mask, shapes: Shapes, unit: Unit) -> int:
    return sum(sum(kept) * (1 if unit == "ranks" else sum(shapes[name])) for name, kept in keep.items())


def everything(importance: Importance, shapes: Shapes, unit: Unit) -> int:
    return cost({name: [True] * len(values) for name, values in importance.items()}, shapes, unit)


# ------------------------------------------------------------------------------------------------------------ select


@given(problems(), st.integers(0, 120), st.sampled_from(UNITS))
def test_never_over_and_nothing_more_would_fit(problem: tuple[Importance, Shapes], amount: int, unit: Unit) -> None:
    importance, shapes = problem
    keep = Budget.of(amount, unit).select(importance, shapes)
    assert {name: len(kept) for name, kept in keep.items()} == {
        name: len(values) for name, values in importance.items()
    }
    left = amount - cost(keep, shapes, unit)
    assert left >= 0
    for name, kept in keep.items():
        assert all(kept) or (1 if unit == "ranks" else sum(shapes[name])) > left


@given(problems(), st.integers(0, 120), st.sampled_from(UNITS), st.randoms())
def test_mapping_order_is_no_matter(
    problem: tuple[Importance, Shapes], amount: int, unit: Unit, random: st.random_module
) -> None:
    importance, shapes = problem
    names = list(importance)
    random.shuffle(names)  # type: ignore[attr-defined]
    budget = Budget.of(amount, unit)
    assert budget.select({name: importance[name] for name in names}, shapes) == budget.select(importance, shapes)


@given(problems(), st.sampled_from(UNITS))
def test_nothing_and_everything(problem: tuple[Importance, Shapes], unit: Unit) -> None:
    """A budget of zero keeps nothing; one of the exact total keeps all, whatever the importance."""
    importance, shapes = problem
    total = everything(importance, shapes, unit)
    assert not any(itertools.chain(*Budget.of(0, unit).select(importance, shapes).values()))
    assert all(itertools.chain(*Budget.of(total, unit).select(importance, shapes).values()))


@given(problems(max_layers=3, max_rank=3), st.integers(0, 9))
def test_in_ranks_it_is_the_best_subset(problem: tuple[Importance, Shapes], amount: int) -> None:
    """With unit costs no subset of the same size has a larger sum (brute force over all subsets)."""
    importance, shapes = problem
    values = list(itertools.chain(*importance.values()))
    keep = Budget(ranks=amount).select(importance, shapes)
    kept = [value for name in importance for value, on in zip(importance[name], keep[name], strict=True) if on]
    best = max(sum(subset) for subset in itertools.combinations(values, min(amount, len(values))))
    assert sum(kept) == pytest.approx(best)


@given(problems(max_layers=3, max_rank=3), st.integers(0, 60))
def test_in_parameters_it_is_the_first_in_the_stated_order(problem: tuple[Importance, Shapes], amount: int) -> None:
    """The greedy set is the lexicographically first affordable one in the order (importance / cost, layer, index)."""
    importance, shapes = problem
    order = sorted(
        ((name, index) for name, values in importance.items() for index in range(len(values))),
        key=lambda c: (-importance[c[0]][c[1]] / sum(shapes[c[0]]), c),
    )
    affordable = [
        choice
        for choice in itertools.product([True, False], repeat=len(order))
        if sum(sum(shapes[name]) for (name, _), on in zip(order, choice, strict=True) if on) <= amount
    ]
    best = max(affordable)  # True before False: the first component wins over all later ones together
    keep = Budget(parameters=amount).select(importance, shapes)
    assert [keep[name][index] for name, index in order] == list(best)


@given(problems(), st.integers(0, 20), st.sampled_from([0.25, 2.0, 1024.0]))
def test_only_the_order_of_importance_matters(problem: tuple[Importance, Shapes], amount: int, factor: float) -> None:
    importance, shapes = problem
    scaled = {name: [factor * value for value in values] for name, values in importance.items()}
    assert Budget(ranks=amount).select(scaled, shapes) == Budget(ranks=amount).select(importance, shapes)


def test_ties_go_to_the_first_layer_then_the_first_component() -> None:
    shapes = {name: Shape(2, 2) for name in "abc"}
    importance = {"c": [1.0, 1.0], "a": [0.0, -0.0, 1.0], "b": [1.0, 1.0]}
    keep = Budget(ranks=4).select(importance, shapes)
    assert keep == {"a": [False, False, True], "b": [True, True], "c": [True, False]}
    keep = Budget(ranks=6).select(importance, shapes)
    assert keep["a"] == [True, False, True], "0 and -0 are equal"


def test_a_parameter_budget_counts_importance_per_parameter() -> None:
    """The wide layer's component is more important, the narrow one's is more important per parameter."""
    shapes = {"wide": Shape(4, 16), "narrow": Shape(4, 4)}
    importance = {"wide": [3.0], "narrow": [2.0]}
    assert Budget(ranks=1).select(importance, shapes) == {"wide": [True], "narrow": [False]}
    assert Budget(parameters=20).select(importance, shapes) == {"wide": [False], "narrow": [True]}
    assert Budget(parameters=28).select(importance, shapes) == {"wide": [True], "narrow": [True]}


def test_what_does_not_fit_is_passed_over() -> None:
    """After a component too dear, a cheaper one further down is still taken."""
    shapes = {"wide": Shape(4, 16), "narrow": Shape(4, 4)}
    keep = Budget(parameters=19).select({"wide": [50.0], "narrow": [1.0, 0.5]}, shapes)
    assert keep == {"wide": [False], "narrow": [True, True]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_importance_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"importance must be finite, got .* for component 1 of q"):
        Budget(ranks=1).select({"q": [1.0, value]}, {"q": Shape(2, 2)})


# ------------------------------------------------------------------------------------------------------------ amount


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "got none"),
        ({"ranks": 1, "parameters": 2}, "got ranks and parameters"),
        ({"mean_rank": 1, "ranks": 1}, "got mean_rank and ranks"),
        ({"ranks": 1, "unit": "parameters"}, "unit goes with mean_rank"),
        ({"parameters": 1, "unit": "ranks"}, "unit goes with mean_rank"),
        ({"mean_rank": -1}, "mean_rank"),
        ({"mean_rank": float("nan")}, "mean_rank"),
        ({"mean_rank": float("inf")}, "mean_rank"),
        ({"ranks": 1.5}, "ranks"),
        ({"ranks": "1"}, "ranks"),
        ({"parameters": -1}, "parameters"),
        ({"unit": "flops", "mean_rank": 1}, "unit"),
        ({"rank": 1}, "rank"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Budget(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [Budget(mean_rank=2.5), Budget(mean_rank=1, unit="parameters"), Budget(ranks=3)])
def test_round_trip(budget: Budget) -> None:
    assert Budget.model_validate_json(budget.model_dump_json()) == budget
    assert Budget.of(7, "parameters") == Budget(parameters=7)
    assert Budget.model_validate_json(Budget(parameters=7).model_dump_json()).unit == "parameters"


@given(problems(), st.integers(0, 9), st.sampled_from(UNITS))
def test_mean_rank_is_what_uniform_costs(problem: tuple[Importance, Shapes], rank: int, unit: Unit) -> None:
    """`mean_rank: r` pays exactly for rank r everywhere; `level` is its inverse; `spent` agrees with both."""
    _, shapes = problem
    budget = Budget(mean_rank=rank, unit=unit)
    pattern = RankPattern(dict.fromkeys(shapes, rank))
    assert budget.amount(shapes) == budget.spent(pattern, shapes)
    assert budget.level(shapes) == (rank if shapes else 0)
    assert Budget.of(budget.amount(shapes), unit).amount(shapes) == budget.amount(shapes)


# --------------------------------------------------------------------------------------------------- share and uniform


@given(problems(), st.integers(0, 200), st.sampled_from(UNITS), st.integers(1, 9))
def test_uniform_is_even_and_uses_the_budget(
    problem: tuple[Importance, Shapes], amount: int, unit: Unit, max_rank: int
) -> None:
    """Ranks differ by at most one, stay within budget and max_rank, and no layer at the lower rank could be raised."""
    _, shapes = problem
    budget = Budget.of(amount, unit)
    pattern = budget.uniform(shapes, max_rank)
    assert set(pattern) == set(shapes)
    left = amount - budget.spent(pattern, shapes)
    assert left >= 0
    if shapes:
        low, high = min(pattern.values()), max(pattern.values())
        assert high <= min(low + 1, max_rank)
        raisable = [name for name, rank in pattern.items() if rank == low < max_rank]
        assert low == max_rank or all(budget.cost(shapes[name]) > left for name in raisable)
        if unit == "ranks":
            assert pattern.total == min(amount, max_rank * len(shapes))


@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=3), st.floats(0.01, 100), min_size=1, max_size=5),
    st.integers(0, 60),
    st.sampled_from(UNITS),
    st.integers(1, 9),
)
def test_share(weights: dict[str, float], amount: int, unit: Unit, max_rank: int) -> None:
    """Within budget and max_rank, nothing more fits, and a larger weight never gets a lower rank at equal cost."""
    shapes = {name: Shape(3, 3) for name in weights}
    budget = Budget.of(amount, unit)
    pattern = budget.share(weights, shapes, max_rank)
    left = amount - budget.spent(pattern, shapes)
    assert left >= 0
    assert all(rank <= max_rank for rank in pattern.values())
    assert left < budget.cost(Shape(3, 3)) or all(rank == max_rank for rank in pattern.values())
    for a, b in itertools.permutations(weights, 2):
        assert weights[a] <= weights[b] or pattern[a] >= pattern[b]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 4), st.sampled_from(UNITS))
def test_share_is_exact_where_it_can_be(ranks: list[int], times: int, unit: Unit) -> None:
    """When whole ranks in exact proportion meet the budget, those are given, also across shapes of unequal cost."""
    weights = {f"l{i}": float(rank) for i, rank in enumerate(ranks)}
    shapes = {name: Shape(2, 2 + 3 * i) for i, name in enumerate(weights)}
    exact = RankPattern({name: times * int(weight) for name, weight in weights.items()})
    budget = Budget.of(Budget.of(0, unit).spent(exact, shapes), unit)
    assert budget.share(weights, shapes, 24) == exact


# ---------------------------------------------------------------------------------------------------------- schedule


def test_schedule_by_hand() -> None:
    """The worked example of AdaLoRA's schedule: 216 until 100, 153 half-way, 144 from 699 to the end."""
    schedule = Schedule(start=216, end=144, steps=1000, warmup=100, final=300)
    assert {schedule.at(step) for step in range(1, 101)} == {216}
    assert schedule.at(400) == 153
    assert {schedule.at(step) for step in range(699, 1001)} == {144}


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    steps = draw(st.integers(1, 300))
    warmup = draw(st.integers(0, steps - 1))
    final = draw(st.integers(0, steps - 1 - warmup))
    end = draw(st.integers(0, 100))
    return Schedule(start=draw(st.integers(end, 200)), end=end, steps=steps, warmup=warmup, final=final)


@given(schedules(), st.integers(1, 7))
def test_schedule_is_pefts(schedule: Schedule, interval: int) -> None:
    """The same amount, and a selection at the same steps, as PEFT's `RankAllocator.budget_schedule`."""
    theirs = SimpleNamespace(
        peft_config=SimpleNamespace(
            tinit=schedule.warmup, tfinal=schedule.final, total_step=schedule.steps, deltaT=interval
        ),
        init_bgt=schedule.start,
        target_bgt=schedule.end,
    )
    for step in range(1, schedule.steps + 1):
        amount, selects = RankAllocator.budget_schedule(theirs, step)
        assert schedule.at(step) == amount
        ours = step > schedule.steps - schedule.final or (schedule.falling(step) and step % interval == 0)
        assert ours == selects


@given(schedules())
def test_schedule_falls_from_start_to_end(schedule: Schedule) -> None:
    amounts = [schedule.at(step) for step in range(1, schedule.steps + 1)]
    assert amounts == sorted(amounts, reverse=True)
    assert all(schedule.end <= amount <= schedule.start for amount in amounts)
    assert amounts[-1] == schedule.end


def test_a_constant_schedule() -> None:
    schedule = Schedule.constant(7, 20)
    assert {schedule.at(step) for step in range(1, 21)} == {7}

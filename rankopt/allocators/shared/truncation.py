"""Which singular directions of the layers' updates a budget keeps."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shapes
from rankopt.importance.double import double
from rankopt.importance.spectral import energy, energy_ranks

Rule = Literal["global", "cost", "energy", "uniform"]


def spectral_pattern(spectra: dict[str, Tensor], budget: Budget, shapes: Shapes, rule: Rule) -> RankPattern:
    """The ranks that a rule gives under a budget.

    Args:
        spectra: singular values per layer, falling.
        budget: an absolute one.
        shapes: the layers' shapes.
        rule: see `Spectral`.
    Example:
        >>> import torch
        >>> from rankopt.core.pattern import Shape
        >>> spectra = {"q": torch.tensor([3.0, 1.0]), "ffn": torch.tensor([2.0, 1.5])}
        >>> shapes = {"q": Shape(4, 4), "ffn": Shape(4, 16)}
        >>> spectral_pattern(spectra, Budget(ranks=3), shapes, "global")
        RankPattern({'ffn': 2, 'q': 1})
        >>> spectral_pattern(spectra, Budget(parameters=36), shapes, "cost")
        RankPattern({'ffn': 1, 'q': 2})
    """
    if rule == "uniform":
        even = budget.uniform(shapes, max(map(len, spectra.values())))
        return RankPattern({name: min(len(S), even[name]) for name, S in spectra.items()})
    if rule == "energy":
        fitting = RankPattern(dict.fromkeys(spectra, 0))
        for tau in sorted({float(value) for S in spectra.values() for value in energy(S)}):
            pattern = RankPattern(energy_ranks(spectra, tau))
            if budget.spent(pattern, shapes) > budget.amount(shapes):
                break
            fitting = pattern
        return fitting
    importance = {}
    for name, S in spectra.items():
        # `select` divides by the cost in the budget's unit; undo that, then divide by the rule's own
        weight = budget.cost(shapes[name]) / (shapes[name].cost if rule == "cost" else 1)
        importance[name] = [value * weight for value in double(S).square().tolist()]
    return RankPattern({name: sum(kept) for name, kept in budget.select(importance, shapes).items()})


def check_rule(rule: Rule, budget: Budget, shapes: Shapes) -> None:
    """Refuse a budget at which the rule "energy", which keeps a component of every layer, would keep none.

    Raises:
        ValueError: one line.
    """
    least, amount = _one_each(budget, shapes), budget.amount(shapes)
    if rule == "energy" and 0 < amount < least:
        raise ValueError(
            f"allocator.rule 'energy' needs a budget of at least {least:,} {budget.unit}, one component per layer, "
            f"got {amount:,}: raise the budget, or use the rule 'global' or 'cost'"
        )


def _one_each(budget: Budget, shapes: Shapes) -> int:
    return sum(budget.cost(shape) for shape in shapes.values())


def smaller_cuts(
    own: RankPattern, spectra: dict[str, Tensor], budget: Budget, shapes: Shapes, rule: Rule
) -> list[RankPattern]:
    """The patterns at half and a quarter of a budget, as cuts of the trial's own pattern `own`."""
    cuts = [own]
    for share in (2, 4):
        part = Budget.of(budget.amount(shapes) // share, budget.unit)
        if rule == "energy" and part.amount(shapes) < _one_each(part, shapes):
            continue  # the rule would keep nothing
        pattern = spectral_pattern(spectra, part, shapes, rule)
        # a layer that the whole budget passed over as too dear may look better under half of it: still a cut
        cut = RankPattern({name: min(rank, own[name]) for name, rank in pattern.items()})
        if cut not in cuts:
            cuts.append(cut)
    return cuts[1:]

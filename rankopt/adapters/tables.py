"""Rows and lines that the command line prints about adapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rankopt.adapters.choose import RankChoice, Target
from rankopt.adapters.compress import Compression, remarks
from rankopt.adapters.spectra import RATIOS, SHARES, Spectrum

Rows = list[dict[str, Any]]


def module_rows(found: Spectrum) -> Rows:
    """One row per module: its rank, its norm, and the energy kept at rank 1, 2, 4, ..."""
    return [
        {
            "module": name,
            "rank": one.module.rank,
            "norm": f"{one.norm:.3g}",
            "stable": f"{one.stable_rank:.1f}",
            "effective": f"{one.effective_rank:.1f}",
            **{
                f"r={rank}": f"{share:.0%}" if rank <= one.module.rank else ""
                for rank, share in one.energy_at(found.ranks).items()
            },
        }
        for name, one in found.modules.items()
    ]


def choice_rows(found: Spectrum) -> Rows:
    """One row per target: the best ranks for shares of the energy and of the parameters."""
    targets = [(f"{share:.0%} of the energy", Target(energy=share)) for share in SHARES]
    targets += [(f"{ratio:.0%} of the parameters", Target(ratio=ratio)) for ratio in RATIOS]
    return [{"keep": name, **_choice(found, target)} for name, target in targets]


def _choice(found: Spectrum, target: Target) -> dict[str, Any]:
    choice, even = found.possible(target), found.possible(target.model_copy(update={"uniform": True}))
    flag = " (greedy)" if choice and not choice.exact else ""
    return {
        "parameters": f"{choice.parameters:,}" if choice else "",
        "energy": f"{choice.energy:.2%}{flag}" if choice else "too small",
        "ranks": _ranks(choice) if choice else "",
        "same rank everywhere": f"rank {max(even.pattern.values())}: {even.parameters:,} parameters, {even.energy:.2%}"
        if even
        else "too small",
    }


def _ranks(choice: RankChoice) -> str:
    ranks = list(choice.pattern.values())
    dropped = ranks.count(0)
    return f"{min(ranks)} to {max(ranks)}, mean {choice.pattern.mean:.1f}" + (f", {dropped} at 0" if dropped else "")


def spectrum_lines(found: Spectrum) -> Iterator[str]:
    """A summary of the adapter, and remarks."""
    config, adapter = found.adapter.config, found.adapter
    ranks = {module.rank for module in adapter.modules.values()}
    span = f"rank {min(ranks)}" if len(ranks) == 1 else f"ranks {min(ranks)} to {max(ranks)}"
    base = f" for {config.base_model_name_or_path}" if config.base_model_name_or_path else ""
    yield f"{config.kind}{base}: {len(adapter.modules)} modules, {span}, {adapter.parameters:,} parameters"
    yield from (f"note: {note}" for note in remarks(adapter))


def compression_rows(done: Compression) -> Rows:
    """One row per changed module, the largest errors first."""
    cut = sorted(done.cuts.items(), key=lambda item: -item[1].error)
    return [
        {
            "module": name,
            "rank": f"{one.rank} -> {one.kept}",
            "norm": f"{one.norm:.4g}",
            "error": f"{one.error:.4g}",
            "of its norm": f"{one.error / one.norm:.2%}" if one.norm else "0.00%",
        }
        for name, one in cut
        if one.error > 0
    ]


def compression_lines(done: Compression) -> Iterator[str]:
    """The size and the error of the written adapter, and remarks."""
    yield (
        f"{done.folder}: {done.parameters:,} of {done.parameters_before:,} parameters "
        f"({done.parameters / max(1, done.parameters_before):.1%}), {done.energy:.3%} of the energy"
        + ("" if done.exact else "; the ranks were chosen greedily, because the exact table would be too large")
    )
    yield f"error of the whole update: {done.error:.4g} in Frobenius norm, {done.relative_error:.3%} of its norm"
    if done.weighted_error is not None:
        yield f"error on the given texts: {done.weighted_error:.3%} of the modules' outputs (root mean square)"
    yield from (f"note: {note}" for note in done.notes)
    yield from (f"serve it: {line}" for line in done.command)

"""Printed rows and lines agree with the analysis they are made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rankopt
from rankopt.adapters.tables import choice_rows, compression_lines, compression_rows, module_rows, spectrum_lines


def test_rows_of_an_analysis(adapter_of: Callable[..., Path]) -> None:
    found = rankopt.spectrum(adapter_of("rank and alpha patterns"))
    rows = module_rows(found)
    assert [row["module"] for row in rows] == list(found.modules)
    assert all(row["r=4"] == "" for row in rows if row["rank"] < 4)
    assert all(row["r=4"] == "100%" for row in rows if row["rank"] == 4)
    by_target = {row["keep"]: row for row in choice_rows(found)}
    assert set(by_target) >= {"99% of the energy", "50% of the parameters"}
    assert "rank" in by_target["50% of the parameters"]["same rank everywhere"]
    assert next(spectrum_lines(found)).startswith("LoRA: 10 modules, ranks 2 to 5, ")


def test_targets_that_are_too_small(adapter_of: Callable[..., Path]) -> None:
    """Tensors attached to a module keep one component, so there is no adapter of 10 % of these parameters."""
    rows = {row["keep"]: row for row in choice_rows(rankopt.spectrum(adapter_of("DoRA")))}
    assert rows["10% of the parameters"]["energy"] == "too small"


def test_rows_of_a_compression(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The largest errors first; unchanged modules are not listed."""
    done = rankopt.compress(adapter_of("DoRA"), tmp_path / "b", ratio=0.5)
    errors = [done.cuts[row["module"]].error for row in compression_rows(done)]
    assert errors == sorted(errors, reverse=True)
    assert 0 < len(errors) == sum(cut.error > 0 for cut in done.cuts.values())
    lines = list(compression_lines(done))
    assert f"{done.parameters:,} of {done.parameters_before:,} parameters" in lines[0]
    assert any(line.startswith("note: DoRA") for line in lines)

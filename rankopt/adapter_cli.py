"""The commands for any LoRA adapter: parse, call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rankopt import printing

Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter folder, or a hub id (user/repository).")]
Out = Annotated[Path, typer.Option(help="Folder to make; must not exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Budget = Annotated[int | None, typer.Option(min=1, help="Parameters of the factors to keep.")]
Ratio = Annotated[float | None, typer.Option(help="Share of the parameters to keep, for example 0.5.")]
Energy = Annotated[float | None, typer.Option(help="Share of the squared norm to keep, for example 0.95.")]
Uniform = Annotated[bool, typer.Option("--uniform", help="One rank for all modules, for servers that need it.")]
MOST = 40
"""Rows that a terminal is given without being asked."""


def analyze(
    adapter: Adapter,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with heat map and spectra.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every module.")] = False,
) -> None:
    """Is the rank of a LoRA adapter too big, and which layers need it? No data, no base model."""
    from rankopt.adapters import tables
    from rankopt.adapters.spectra import spectrum

    found = spectrum(adapter)
    if html:
        from rankopt.adapters.page import write_page

        write_page(found, html)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    print("\n".join(tables.spectrum_lines(found)))
    _table(tables.module_rows(found), "energy kept at rank r", every)
    printing.table(tables.choice_rows(found), "what may be kept at which price")
    if html:
        print(html)


def compress(
    adapter: Adapter,
    out: Out,
    budget: Budget = None,
    ratio: Ratio = None,
    energy: Energy = None,
    uniform: Uniform = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="Texts (.txt, one per line, or .jsonl): weight the norm by their inputs.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The base model that --calibrate runs: a folder or a hub id.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the best smaller version of an adapter: the ranks that keep most for their parameters."""
    _options(budget, ratio, energy)
    if (calibrate is None) != (model is None):
        raise ValueError("--calibrate and --model must be given together: inputs come from texts run by the base model")
    from rankopt.adapters import tables
    from rankopt.adapters.compress import compress

    moments = None
    if calibrate is not None and model is not None:
        from rankopt.adapters.calibrate import moments_of

        moments = moments_of(adapter, model, calibrate)
    done = compress(adapter, out, budget=budget, ratio=ratio, energy=energy, uniform=uniform, moments=moments)
    if as_json:
        print(json.dumps(done.to_json(), indent=2))
        return
    _table(tables.compression_rows(done), "what was cut", False)
    print("\n".join(tables.compression_lines(done)))


def _options(budget: int | None, ratio: float | None, energy: float | None) -> None:
    """Refuse a wrong size before anything slow is imported."""
    given = [
        f"--{name}" for name, value in (("budget", budget), ("ratio", ratio), ("energy", energy)) if value is not None
    ]
    if len(given) != 1:
        raise ValueError(f"one of --budget, --ratio and --energy must be given, got {' and '.join(given) or 'none'}")
    for name, value in (("ratio", ratio), ("energy", energy)):
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"--{name} must be above 0 and at most 1, got {value:g}")


def _table(rows: printing.Rows, title: str, every: bool) -> None:
    shown = rows if every or len(rows) <= MOST else rows[:MOST]
    if rows:
        printing.table(shown, title)
    if len(shown) < len(rows):
        print(f"... and {len(rows) - len(shown)} more modules")

"""The commands for any LoRA adapter: parse, call, print."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import Json
from rankopt.core.folders import absent_path

Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter folder, or a hub id (user/repository).")]
Out = Annotated[Path, typer.Option(help="Folder to make; must not exist.")]
Budget = Annotated[int | None, typer.Option(min=1, help="Parameters of the factors to keep.")]
Ratio = Annotated[float | None, typer.Option(help="Share of the parameters to keep, for example 0.5.")]
Energy = Annotated[float | None, typer.Option(help="Share of the squared norm to keep, for example 0.95.")]
Rank = Annotated[int | None, typer.Option(min=1, help="Components to keep of every module.")]
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
    rank: Rank = None,
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
    amounts = _amounts(budget, ratio, energy, rank)
    if not amounts:
        raise ValueError("one of --budget, --ratio, --energy and --rank must be given, got none")
    absent_path(out)
    if (calibrate is None) != (model is None):
        raise ValueError("--calibrate and --model must be given together: inputs come from texts run by the base model")
    from rankopt.adapters import tables
    from rankopt.adapters.compress import compress

    moments = None
    if calibrate is not None and model is not None:
        from rankopt.adapters.calibrate import moments_of

        moments = moments_of(adapter, model, calibrate)
    done = compress(adapter, out, **amounts, uniform=uniform, moments=moments)
    if as_json:
        print(json.dumps(done.to_json(), indent=2))
        return
    _table(tables.compression_rows(done), "what was cut", False)
    print("\n".join(tables.compression_lines(done)))


def merge(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapter folders or hub ids.")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="The base model to merge one adapter into.")] = None,
    weights: Annotated[str | None, typer.Option(help="One number per adapter, for example 0.5,0.5; 1 each.")] = None,
    budget: Budget = None,
    ratio: Ratio = None,
    energy: Energy = None,
    rank: Rank = None,
    uniform: Uniform = False,
) -> None:
    """Merge an adapter into its base model (--model), or several adapters into one: their exact weighted sum, or its
    best approximation at a smaller size."""
    amounts = _amounts(budget, ratio, energy, rank)
    absent_path(out)
    if model is not None and (len(adapters) > 1 or weights or amounts or uniform):
        raise ValueError("--model must come with one adapter and no size; merge several adapters first")
    if model is None and len(adapters) < 2:
        raise ValueError("merge must be given several adapters, or --model, got one adapter")
    if uniform and not amounts:
        raise ValueError("--uniform must come with one of --budget, --ratio, --energy and --rank")
    if model is not None:
        from rankopt.adapters.merge_into_base import merge_into_base

        done = merge_into_base(adapters[0], model, out)
    else:
        from rankopt.adapters.merge import merge_adapters

        done = merge_adapters(adapters, out, weights=_numbers(weights, len(adapters)), **amounts, uniform=uniform)
    print("\n".join(done.lines()))


def convert(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter folder; it may hold a pickled .bin.")],
    out: Out,
) -> None:
    """Write an adapter as a plain LoRA adapter in safetensors: from AdaLoRA, from rsLoRA, from a pickled .bin."""
    absent_path(out)
    from rankopt.adapters.convert import convert

    print("\n".join(convert(adapter, out).lines()))


def _amounts(budget: int | None, ratio: float | None, energy: float | None, rank: int | None) -> dict[str, Any]:
    """The size that was asked for, refused before anything slow is imported where it is wrong."""
    given = {"budget": budget, "ratio": ratio, "energy": energy, "rank": rank}
    amounts = {name: value for name, value in given.items() if value is not None}
    if len(amounts) > 1:
        names = " and ".join(f"--{name}" for name in amounts)
        raise ValueError(f"one of --budget, --ratio, --energy and --rank must be given, got {names}")
    for name in ("ratio", "energy"):
        if name in amounts and not 0 < amounts[name] <= 1:
            raise ValueError(f"--{name} must be above 0 and at most 1, got {amounts[name]:g}")
    return amounts


def _numbers(text: str | None, count: int) -> list[float]:
    if text is None:
        return [1.0] * count
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"--weights must be {count} numbers joined by commas, got {text!r}")
    return numbers


def _table(rows: printing.Rows, title: str, every: bool) -> None:
    shown = rows if every or len(rows) <= MOST else rows[:MOST]
    if rows:
        printing.table(shown, title)
    if len(shown) < len(rows):
        print(f"... and {len(rows) - len(shown)} more modules")

"""The commands for LoRA adapters: parse arguments, call the library, print the result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import Completion, DataDir, Json, Label, MaxLength, Prompt, Text
from rankopt.core.folders import absent_path

Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="Adapter folder, or hub id (user/repository).")]
Out = Annotated[Path, typer.Option(help="Write to this new folder.")]
Budget = Annotated[int | None, typer.Option(min=1, help="Keep at most N parameters of the factors.")]
Ratio = Annotated[float | None, typer.Option(help="Keep at most this share of the parameters, for example 0.5.")]
Energy = Annotated[float | None, typer.Option(help="Keep at least this share of the squared norm, for example 0.95.")]
Rank = Annotated[int | None, typer.Option(min=1, help="Keep at most N components of every module.")]
Uniform = Annotated[bool, typer.Option("--uniform", help="Use one rank for all modules (see also compress --for).")]
MOST = 40
"""Rows printed without --all."""


def analyze(
    adapter: Adapter,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page with heat map and spectra.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print all modules (default: the first 40).")] = False,
) -> None:
    """Analyze the spectra of a LoRA adapter: which rank does each layer need? Needs no data and no base model."""
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
    printing.table(tables.choice_rows(found), "best ranks by size")
    if html:
        print(html)


def compress(
    adapter: Adapter,
    out: Out,
    budget: Budget = None,
    ratio: Ratio = None,
    energy: Energy = None,
    rank: Rank = None,
    within: Annotated[
        float | None,
        typer.Option(
            "--score-within",
            min=0,
            metavar="LOSS",
            help="Find the smallest adapter that scores at most LOSS worse on --data or --task.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For --score-within: choose on half of these rows, report the rest."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The same with the report split of a task (`rankopt list tasks`)."),
    ] = None,
    text: Text = None,
    label: Label = None,
    prompt: Prompt = None,
    completion: Completion = None,
    data_dir: DataDir = None,
    max_length: MaxLength = None,
    uniform: Uniform = False,
    server: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="SERVER",
            help="Write what this server reads: vllm, sglang or llama.cpp. All read LoRA of a language model's linear "
            "maps and embeddings, none DoRA, trained biases, convolutions, or a classifier's head.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Weight the norm by the inputs of these texts (.txt, one per line, or .jsonl).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Run --calibrate or --score-within with this base model (folder or hub id).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compress an adapter: choose the ranks that keep most of its squared norm, and truncate it to them."""
    amounts = _amounts(budget, ratio, energy, rank)
    if (within is None) == (not amounts):
        given = "none" if within is None else "--score-within and another"
        raise ValueError(f"give one of --budget, --ratio, --energy, --rank and --score-within, got {given}")
    absent_path(out)
    if (calibrate is not None or within is not None) != (model is not None):
        raise ValueError("give --model together with --calibrate or --score-within: the base model runs the texts")
    if (within is None) != (data is None and task is None) or (data is not None and task is not None):
        raise ValueError("give --score-within together with one of --data and --task: the examples that are scored")
    from rankopt.adapters import tables
    from rankopt.adapters.compress import compress

    moments = None
    if calibrate is not None and model is not None:
        from rankopt.adapters.calibrate import moments_of

        moments = moments_of(adapter, model, calibrate)
    how: dict[str, Any] = {"uniform": uniform, "moments": moments, "server": server}
    found = None
    if within is not None and model is not None:
        from rankopt.api.compress_within import compress_within

        found = compress_within(
            adapter, out, within, model, str(data or task), text=text or (), label=label, prompt=prompt,
            completion=completion, data_dir=data_dir, max_length=max_length, **how,
        )  # fmt: skip
        done = found.compression
    else:
        done = compress(adapter, out, **amounts, **how)
    if as_json:
        print(json.dumps((found or done).to_json(), indent=2))
        return
    if found:
        printing.table(curve_rows(found), f"{found.metric} by size, chosen within {within:g}")
        print(f"chosen on {found.choosing:,} examples, reported on the other {found.reporting:,}")
        print("\n".join(f"note: {note}" for note in found.notes))
    _table(tables.compression_rows(done), "changed modules", False)
    print("\n".join(tables.compression_lines(done)))


def merge(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapter folders or hub ids.")],
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="Merge one adapter into this base model (folder or hub id).")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weight the adapters, for example 0.5,0.5 (default: 1 each).")
    ] = None,
    budget: Budget = None,
    ratio: Ratio = None,
    energy: Energy = None,
    rank: Rank = None,
    uniform: Uniform = False,
) -> None:
    """Merge an adapter into its base model (--model), or several adapters into one.

    The merged adapter is the exact weighted sum. With --budget, --ratio, --energy or --rank it is the closest adapter
    of that size.
    """
    amounts = _amounts(budget, ratio, energy, rank)
    absent_path(out)
    if model is not None and (len(adapters) > 1 or weights or amounts or uniform):
        raise ValueError(
            "--model takes one adapter and no --weights, --budget, --ratio, --energy, --rank or --uniform: merge "
            "several adapters first, then merge the result into the model"
        )
    if model is None and len(adapters) < 2:
        raise ValueError("merge needs several adapters, or one adapter and --model")
    if uniform and not amounts:
        raise ValueError("--uniform needs one of --budget, --ratio, --energy and --rank")
    if model is not None:
        from rankopt.adapters.merge_into_base import merge_into_base

        done = merge_into_base(adapters[0], model, out)
    else:
        from rankopt.adapters.merge import merge_adapters

        done = merge_adapters(adapters, out, weights=_numbers(weights, len(adapters)), **amounts, uniform=uniform)
    print("\n".join(done.lines()))


def convert(
    adapter: Annotated[
        str,
        typer.Argument(metavar="ADAPTER", help="Adapter folder, hub id, or a .safetensors file of another program."),
    ],
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="Base model's folder: for files of kohya's scripts, torchtune and Megatron.")
    ] = None,
    component: Annotated[
        str | None, typer.Option(metavar="PART", help="Part of a diffusion model, such as unet, if there are several.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(min=1e-6, metavar="A", help="alpha of a Megatron LoRA, which its files do not hold.")
    ] = None,
) -> None:
    """Convert an adapter to plain LoRA in safetensors.

    From AdaLoRA, rsLoRA, a pickled .bin, wrong tensor names, or the layouts of MLX, torchtune, Megatron-Bridge and
    NeMo, kohya's scripts and diffusers.
    """
    absent_path(out)
    from rankopt.adapters.convert import convert

    print("\n".join(convert(adapter, out, model=model, component=component, alpha=alpha).lines()))


def extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Base model: folder or hub id.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The same model after full fine-tuning.")],
    out: Out,
    budget: Budget = None,
    ratio: Ratio = None,
    energy: Energy = None,
    rank: Rank = None,
    uniform: Uniform = False,
) -> None:
    """Extract the LoRA adapter between two full models: the closest of its size to their difference."""
    amounts = _amounts(budget, ratio, energy, rank)
    if not amounts:
        raise ValueError("give one of --budget, --ratio, --energy and --rank, got none")
    absent_path(out)
    from rankopt.adapters.extract import extract

    print("\n".join(extract(base, tuned, out, uniform=uniform, **amounts).lines()))


def _amounts(budget: int | None, ratio: float | None, energy: float | None, rank: int | None) -> dict[str, Any]:
    """The given size; a wrong one is refused before slow imports."""
    given = {"budget": budget, "ratio": ratio, "energy": energy, "rank": rank}
    amounts = {name: value for name, value in given.items() if value is not None}
    if len(amounts) > 1:
        names = " and ".join(f"--{name}" for name in amounts)
        raise ValueError(f"give one of --budget, --ratio, --energy and --rank, got {names}")
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


def curve_rows(found: Any) -> printing.Rows:
    """The curve of `compress_within` for the terminal."""
    whole = found.curve[0].parameters
    return [
        {
            "parameters": f"{size.parameters:,}",
            "share": f"{size.parameters / whole:.1%}",
            "energy": f"{size.energy:.2%}",
            "choosing": f"{size.chosen_on:.4f}",
            "reporting": f"{size.score:.4f}",
            "difference": f"{size.difference:+.4f}" if size is not found.curve[0] else "",
            "its interval": f"{size.low:+.4f} to {size.high:+.4f}" if size is not found.curve[0] else "",
            "": "chosen" if size == found.chosen else "" if size.within else "too low",
        }
        for size in found.curve
    ]


def _table(rows: printing.Rows, title: str, every: bool) -> None:
    shown = rows if every or len(rows) <= MOST else rows[:MOST]
    if rows:
        printing.table(shown, title)
    if len(shown) < len(rows):
        print(f"... and {len(rows) - len(shown)} more modules")

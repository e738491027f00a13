"""The smallest adapter whose score stays within a tolerance."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.compress import Compression, compress
from rankopt.adapters.servers import server_of
from rankopt.analysis.resamples import interval
from rankopt.api.material import Material, read_material, scored_task
from rankopt.core.folders import absent_path
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.splits import cut

STEP = 1.05
"""The bisection ends when two sizes differ by less than this factor."""


@dataclass(frozen=True)
class Size:
    """An adapter of one size and its scores.

    Attributes:
        parameters: of the low-rank factors.
        energy: kept share of the squared norm.
        chosen_on: score on the examples for choosing.
        score: score on the examples for reporting, with `difference` to the whole adapter's and its 95 % interval from
            `low` to `high`, paired over examples.
        within: whether `chosen_on` is within the tolerance.
    """

    parameters: int
    energy: float
    chosen_on: float
    score: float
    difference: float
    low: float
    high: float
    within: bool


@dataclass(frozen=True)
class CompressedWithin:
    """A compressed adapter, and the curve from which its size was chosen.

    Attributes:
        compression: the written adapter and its error.
        chosen: its size.
        curve: all sizes that were scored, the whole adapter first.
        metric: of the scores.
        choosing, reporting: numbers of examples.
        notes: remarks about the data.
    """

    compression: Compression
    chosen: Size
    curve: tuple[Size, ...]
    metric: str
    choosing: int
    reporting: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"compression": self.compression.to_json()}


def compress_within(
    adapter: str | Path | Adapter, out: str | Path, within: float, model: str, task: TaskSpec | str | Path, *,
    text: Sequence[str] = (), label: str | None = None, prompt: str | None = None, completion: str | None = None,
    data_dir: str | None = None, max_length: int | None = None, uniform: bool = False, server: str | None = None,
    batch_size: int = 32, precision: str = "fp32", resamples: int = 1000, seed: int = 0, **options: Any,
) -> CompressedWithin:  # fmt: skip
    """Write the smallest compressed adapter whose score is at most `within` worse than the whole adapter's.

    Adapters of 1, 1/2, 1/4, ... of the parameters are scored, each the closest of its size (`rankopt.compress`).
    Between the last size within the tolerance and the first one that is not, a bisection follows, up to 5 % of the
    size. It finds the smallest size if scores fall with the size; the curve shows whether they do. Sizes are chosen on
    one half of the examples, stratified by class, and reported on the other.

    Args:
        adapter: a folder, a hub id, or an adapter that was already read.
        out: the folder to make; must not exist.
        within: largest loss of the primary metric, at least 0.
        model: the base model: a folder or a hub id.
        task: a registered task (its first report split), a file of examples, or a whole description.
        text: the text columns of the file; default: looked for.
        label: its label column; default: looked for.
        prompt: of a language model's file, the column with the prompts, or a text with columns in braces.
        completion: of a language model's file, the column with the completions.
        data_dir: local folder of registered tasks.
        max_length: longest input in tokens; default: see `rankopt.tasks.described`.
        uniform: use one rank for all modules, see `rankopt.compress`.
        server: write what this server reads, see `rankopt.compress`.
        batch_size: examples per forward pass.
        precision: "fp32" or "bf16" autocast.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        options: further ones of `rankopt.compress`.
    Returns:
        The written adapter, its size, and the curve.
    Raises:
        ValueError: wrong arguments, an adapter that cannot be compressed, or fewer than 4 examples.
        OSError: the result cannot be written.
    Example:
        >>> import rankopt
        >>> rankopt.compress_within("adapter", "small", -1, "mini", "dev.csv")
        Traceback (most recent call last):
        ValueError: within must be at least 0, got -1
    """
    if not within >= 0:
        raise ValueError(f"within must be at least 0, got {within:g}")
    absent_path(Path(out))
    source = read_adapter(adapter)
    task = scored_task(
        task, source.folder, model, text=text, label=label, prompt=prompt, completion=completion, data_dir=data_dir,
        max_length=max_length,
    )  # fmt: skip
    uniform = uniform or (server is not None and not server_of(server).mixed)
    options |= {"uniform": uniform, "server": server}
    scored = _Scored(read_material(model, task, batch_size=batch_size, precision=precision), within, resamples, seed)
    curve = [scored.size(source.folder, source.parameters, 1.0)]
    with tempfile.TemporaryDirectory() as scratch:

        def look(budget: int) -> Size:
            folder = Path(scratch, str(budget))
            done = compress(source, folder, budget=budget, **options)
            known = [size for size in curve if size.parameters == done.parameters]
            if not known:
                curve.append(scored.size(folder, done.parameters, done.energy))
            return known[0] if known else curve[-1]

        least = _least(source, uniform)
        ladder = [source.parameters]
        while ladder[-1] > least:
            ladder.append(max(least, ladder[-1] // 2))
        sizes = {budget: look(budget) for budget in ladder[1:]}
        failed = next((budget for budget, size in sizes.items() if not size.within), None)
        best = ladder[-1] if failed is None else ladder[ladder.index(failed) - 1]
        while failed is not None and failed * STEP < best:
            middle = int((failed * best) ** 0.5)
            if look(middle).within:
                best = middle
            else:
                failed = middle
    done = compress(source, out, budget=best, **options)
    chosen = next((size for size in curve if size.parameters == done.parameters), curve[0])
    return CompressedWithin(
        done, chosen, tuple(sorted(curve, key=lambda size: -size.parameters)), scored.material.metric,
        len(scored.choosing), len(scored.reporting), tuple(scored.material.task.notes),
    )  # fmt: skip


class _Scored:
    """Scores adapters on both halves of the first split; the first adapter scored is the reference."""

    def __init__(self, material: Material, within: float, resamples: int, seed: int) -> None:
        from datasets import Dataset

        self.material, self.within, self.resamples, self.seed = material, within, resamples, seed
        self.split = next(iter(material.splits))
        labels = material.splits[self.split].labels
        if len(labels) < 4:
            raise ValueError(f"the examples must be at least 4, two to choose on and two to report, got {len(labels)}")
        rows = Dataset.from_dict({"label": labels})
        self.choosing, self.reporting = map(np.sort, cut(material.task.problem, rows, len(labels) // 2))
        self.reference: tuple[float, float, Any] | None = None

    def size(self, folder: Path, parameters: int, energy: float) -> Size:
        answers = self.material.answers(folder)[self.split]
        metric = self.material.metric
        chosen, score = (
            self.material.scores(self.split, answers, rows)[metric] for rows in (self.choosing, self.reporting)
        )
        drawn = self.material.resampled(self.split, answers, self.resamples, self.seed, self.reporting)
        self.reference = self.reference or (chosen, score, drawn)
        sign = -1 if metric in self.material.task.minimised else 1
        low, high = interval(drawn - self.reference[2])
        lost = sign * (self.reference[0] - chosen)
        within = lost <= self.within + 1e-12  # 0.9 - 0.89 is above 0.01 in floating point
        return Size(parameters, energy, chosen, score, score - self.reference[1], low, high, within)


def _least(source: Adapter, uniform: bool) -> int:
    """The parameters of the smallest adapter that PEFT can load."""
    modules = source.modules.values()
    if uniform:
        return sum(module.shape.cost for module in modules)
    return sum(module.floor * module.shape.cost for module in modules) or min(module.shape.cost for module in modules)

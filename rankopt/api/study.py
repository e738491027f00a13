"""Studies from Python: load, run, read the results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from rankopt.analysis.frame import tidy
from rankopt.analysis.search import Proposal, SearchRecord
from rankopt.analysis.study_results import StudyResults
from rankopt.core.study_file import StudyFile
from rankopt.core.study_spec import StudySpec
from rankopt.report import write_report
from rankopt.study.best import best_patterns
from rankopt.study.dimension_importance import importances
from rankopt.study.opening import open_study, study_path
from rankopt.study.predictions import stored_predictions
from rankopt.study.storage import StudyStore


class Study:
    """A study: what it runs, and its results so far.

    Attributes:
        spec: the study as its file describes it, overrides applied.
        folder: where it is run: results, adapters and checkpoints.
    Example:
        >>> study = Study.load("study.yaml")    # doctest: +SKIP
        >>> study.run(workers=2)                # doctest: +SKIP
        >>> study.best(budget=100_000)          # doctest: +SKIP
    """

    def __init__(self, path: Path, overrides: tuple[str, ...], directory: Path, storage: str | None) -> None:
        self.spec: StudySpec = StudyFile(path, overrides).study
        self.folder = directory / self.spec.name
        self._path, self._overrides, self._directory, self._storage = path, overrides, directory, storage

    @classmethod
    def load(
        cls, study: str | Path, *, overrides: Iterable[str] = (), directory: str | Path = "runs",
        storage: str | None = None,
    ) -> Study:  # fmt: skip
        """Read a study file, or find a study that was run.

        Args:
            study: a YAML file, or the name of a study in `directory`.
            overrides: texts `path=value`, as `rankopt run --set` takes them.
            directory: contains the studies' folders.
            storage: URL of an Optuna storage (default: the study's SQLite file).
        Raises:
            ValueError: the file is missing or breaks rules; one line per problem, with file and line number.
        """
        return cls(study_path(str(study), Path(directory)), tuple(overrides), Path(directory), storage)

    def run(
        self, workers: int = 1, *, together: int = 1, retry_failed: bool = False,
        wandb: Literal["disabled", "offline", "online"] = "disabled",
    ) -> Study:  # fmt: skip
        """Run the trials that are not finished, as `rankopt run` does, and print its progress.

        It runs in a process of its own, so that workers do not import the caller's program.

        Args:
            workers: number of worker processes.
            together: number of trials of one model that a worker trains jointly.
            retry_failed: whether failed trials are retried once.
            wandb: mode of the W&B mirror.
        Returns:
            The study itself. Failed trials raise nothing; the report lists them.
        Raises:
            ValueError: the study, its data or its models are not valid.
            OSError: the storage or the disk failed.
            KeyboardInterrupt: it was interrupted; running it again continues.
        """
        command = [
            *(sys.executable, "-m", "rankopt", "run", str(self._path), "--dir", str(self._directory)),
            *("--workers", str(workers), "--together", str(together), "--wandb", wandb),
            *(["--retry-failed"] if retry_failed else []),
            *(word for text in self._overrides for word in ("--set", text)),
        ]
        environment = os.environ | ({"RANKOPT_STORAGE": self._storage} if self._storage else {})
        last = ""
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                last = line.strip() or last
                print(line, end="", flush=True)
        match process.returncode:
            case 2:
                raise ValueError(last)
            case 3:
                raise OSError(last)
            case 0 | 1:
                return self
            case _:
                raise KeyboardInterrupt(last)

    def results(self) -> pd.DataFrame:
        """One row per pattern of every complete trial of the study.

        Returns:
            A frame whose main columns are `setting`, `task`, `model`, `allocator`, `budget` (a uniform rank), `seed`,
            `key`, `point`, `own`, `kept`, `trained` and `head` (numbers of parameters), `mean_rank`, `score` (on the
            first report split), `search` (on the search split), all metrics as `<split>:<metric>`, and `train_seconds`.
            `analysis.frame.tidy` describes every column.
        Raises:
            ValueError: the study was not run.
        """
        store, _ = self._open()
        return tidy(store.results())

    def best(self, budget: int | None = None) -> pd.DataFrame:
        """The best pattern within a budget, or the Pareto front, by the score on the search split.

        Args:
            budget: adapter parameters (default: the study's constraint).
        Returns:
            A row per pattern: `pattern` is a dict layer -> rank, `kept` its parameters, `search` and `score` its
            scores on the search and the report split.
        Raises:
            ValueError: no complete trial is within the budget, or the study was not run.
        """
        store, spec = self._open()
        bound = spec.constraints.get("parameters") if budget is None else budget
        return best_patterns(store, spec, None if bound is None else int(bound))

    def report(self, folder: str | Path | None = None, *, latex: bool = False) -> Path:
        """Write the study's report: HTML, Markdown, data and figures.

        Args:
            folder: where to (default: `report` in the study's own folder).
            latex: whether to write `tables.tex` (booktabs) and figures as PDF and PNG too.
        Returns:
            The page.
        Raises:
            ValueError: the study was not run.
            OSError: the folder cannot be written.
        """
        store, spec = self._open()
        return report_of(store, spec, Path(folder) if folder else self.folder / "report", latex)

    def stored(self) -> StudyResults:
        """The study's results as its storage has them, for reports: without losses over time.

        Raises:
            ValueError: the study was not run.
        """
        return stored_results(*self._open())

    def _open(self) -> tuple[StudyStore, StudySpec]:
        return open_study(self.spec.name if self._storage else str(self._path), self._storage, self._directory)


def report_of(store: StudyStore, spec: StudySpec, folder: Path, latex: bool = False) -> Path:
    """Write the report of a study that was run, and return its page."""
    found = stored_results(store, spec)
    return write_report(spec, found.results, folder, counts=found.counts, search=found.search, latex=latex)


def stored_results(store: StudyStore, spec: StudySpec) -> StudyResults:
    """The results of a study that was run."""
    results, counts = store.results(planned=not spec.listed, losses=False), store.counts()
    record = SearchRecord(
        [] if spec.listed else [Proposal(*row) for row in store.proposals()],
        {} if spec.listed else importances(store, spec),
        store.plan() if spec.listed else (),
        sorted(store.reported),
        stored_predictions(store),
    )
    return StudyResults(spec, results, counts, record)

"""The nine GLUE tasks, one row each, read from a local folder or from the hub.

Source: Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, 2018.
Columns, label order and label names are those of the hub's `nyu-mll/glue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankopt.tasks.base import Task
from rankopt.tasks.problems.classification import Classification
from rankopt.tasks.problems.regression import Regression

if TYPE_CHECKING:
    from datasets import Dataset

HUB = "nyu-mll/glue"
SCORES = (0.0, 5.0)  # range of the labels of STS-B, the only regression in GLUE
READERS = {
    ".csv": "read_csv({})",
    ".tsv": "read_csv({}, sep='\\t')",
    ".jsonl": "read_json({}, lines=True)",
    ".json": "read_json({})",
}
"""How pandas reads files of other formats: for the command that converts them."""


@dataclass(frozen=True, kw_only=True)
class GlueTask(Task):
    """A task of GLUE."""

    def read(self, split: str, data_dir: str | None) -> Dataset:
        """Read one split from `<data_dir>/<task>/`, or from the hub without a `data_dir`.

        A split in a folder is `<split>.parquet`, or the hub's shards such as `<split>-00000-of-00001.parquet`.

        Args:
            split: `train` or a member of `reports`.
            data_dir: folder with one folder per task; `~` is expanded.
        Returns:
            An in-memory dataset with the columns `columns` (string) and `label` (int64 class, float32 for STS-B).
        Raises:
            ValueError: one line that names the wrong folder, file, column or label, and what to do.

        Example:
            >>> import tempfile, pandas as pd
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     Path(folder, "rte").mkdir()
            ...     rows = pd.DataFrame({"sentence1": ["It rained."], "sentence2": ["It was wet."], "label": [0]})
            ...     rows.to_parquet(Path(folder, "rte", "train.parquet"))
            ...     GLUE["rte"].read("train", folder)[0]
            {'sentence1': 'It rained.', 'sentence2': 'It was wet.', 'label': 0}
        """
        if split not in ("train", *self.reports):
            raise ValueError(
                f"split of {self.name} must be one of {', '.join(('train', *self.reports))}, got {split!r}"
            )
        if data_dir is None:
            return self._validated(self._hub(split), f"{HUB} ({self.name}, {split})")
        files = self._files(split, Path(data_dir).expanduser())
        return self._validated(_read(files, (*self.columns, "label")), str(files[0]))

    def files(self, data_dir: str) -> list[Path]:
        root = Path(data_dir).expanduser()
        return [file for split in ("train", *self.reports) for file in self._files(split, root)]

    def _hub(self, split: str) -> Any:
        from datasets import load_dataset

        try:
            return load_dataset(HUB, self.name, split=split).with_format("arrow")[:]
        except Exception as error:  # the hub client raises many types, and the advice is the same for all
            raise ValueError(
                f"cannot read {HUB} ({self.name}, {split}) from the hub ({_brief(error)}): go online, or set "
                f"task.data_dir to a folder with {self.name}/{split}.parquet"
            ) from error

    def _files(self, split: str, root: Path) -> list[Path]:
        """The files of one split, in order."""
        folder, wanted = root / self.name, f"{split}.parquet or {split}-00000-of-00001.parquet"
        for path in (root, folder):
            if not path.is_dir():
                missing = wanted if path == folder else f"{self.name}/{wanted}"
                raise ValueError(
                    f"task.data_dir must be a folder with {missing}, but {path} is not a folder; "
                    f"leave task.data_dir out to read {HUB} from the hub"
                )
        if (single := folder / f"{split}.parquet").is_file():
            return [single]
        shards = sorted(folder.glob(f"{split}-*-of-*.parquet"))
        if not shards:
            others = [folder / f"{split}{ending}" for ending in READERS]
            if other := next(filter(Path.is_file, others), None):
                call = READERS[other.suffix].format(repr(str(other)))
                raise ValueError(
                    f"{other} must be a Parquet file, the only format that is read; convert it: "
                    f'python -c "import pandas; pandas.{call}.to_parquet({str(single)!r})"'
                )
            raise ValueError(f"the folder {folder} must contain {wanted}, got {_names(folder)}")
        total = shards[0].stem.rpartition("-of-")[2]
        expected = [f"{split}-{i:05d}-of-{total}.parquet" for i in range(int(total) if total.isdecimal() else 0)]
        if [shard.name for shard in shards] != expected:
            raise ValueError(f"the folder {folder} must contain every shard of one {split} split, got {_names(folder)}")
        return shards

    def _validated(self, table: Any, source: str) -> Dataset:
        """A dataset with exactly the promised columns and types.

        Raises:
            ValueError: one line that says what is wrong.
        """
        from datasets import Dataset, Features, Value

        text, whole, real = ("string", "large_string"), ("int", "uint"), ("float", "double", "halffloat", "int", "uint")
        for name in (*self.columns, "label"):
            kind = str(table.schema.field(name).type)
            allowed = text if name in self.columns else whole if self.labels else real
            if not kind.startswith(allowed):
                raise ValueError(f"column {name} of {source} must be {allowed[0]}, got {kind}: convert it")
            if holes := table[name].null_count:
                raise ValueError(f"column {name} of {source} must have no missing values, got {holes}: drop those rows")
        if not table.num_rows:
            raise ValueError(f"{source} must have at least one row, got none: fetch the file again")
        labels = table["label"].to_numpy()
        low, high = (0, len(self.labels) - 1) if self.labels else SCORES
        bad = np.flatnonzero(~((labels >= low) & (labels <= high)))  # this form refuses NaN too
        if len(bad):
            hidden = ": -1 marks GLUE's hidden test labels, use another split" if -1 in labels[bad] else ""
            raise ValueError(
                f"labels of {source} must be {low} to {high}{_legend(self.labels)}, got {labels[bad[0]]} "
                f"in row {bad[0]} ({len(bad)} rows are wrong){hidden}"
            )
        features = Features(
            {name: Value("string") for name in self.columns} | {"label": Value(self.problem.label_type)}
        )
        return Dataset(table.select(list(features)).cast(features.arrow_schema))


def _read(files: list[Path], columns: tuple[str, ...]) -> Any:
    """These columns of one split's files, read with pyarrow: `datasets` would put a second copy into its cache."""
    from pyarrow import concat_tables, parquet

    tables = []
    for file in files:
        try:
            with parquet.ParquetFile(file) as reader:
                found = reader.schema_arrow.names
                tables.append(reader.read(list(columns)))  # ignores columns that do not exist
        except (OSError, ValueError, TypeError, NotImplementedError) as error:
            raise ValueError(f"cannot read {file} as parquet ({_brief(error)}): fetch the file again") from error
        if missing := [name for name in columns if name not in found]:
            raise ValueError(
                f"{file} must have the columns {', '.join(columns)} of {HUB}, got {', '.join(found)}: "
                f"rename or add {', '.join(missing)}"
            )
    try:
        return concat_tables(tables)
    except ValueError as error:
        raise ValueError(f"all shards of {files[0]} must have the same types ({_brief(error)})") from error


def _brief(error: Exception) -> str:
    """The class and first line of a library's error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _names(folder: Path) -> str:
    return ", ".join(sorted(file.name for file in folder.iterdir())) or "an empty folder"


def _legend(labels: tuple[str, ...]) -> str:
    return f" ({', '.join(labels)})" if labels else ""


_PAIR = ("sentence1", "sentence2")

GLUE: dict[str, Task] = {
    task.name: task
    for task in (
        # Warstadt et al. 2018
        GlueTask(
            name="cola",
            columns=("sentence",),
            problem=Classification(("unacceptable", "acceptable")),
            metrics=("matthews",),
        ),
        # Socher et al. 2013
        GlueTask(
            name="sst2", columns=("sentence",), problem=Classification(("negative", "positive")), metrics=("accuracy",)
        ),
        # Dolan and Brockett 2005
        GlueTask(
            name="mrpc",
            columns=_PAIR,
            problem=Classification(("not_equivalent", "equivalent")),
            metrics=("accuracy", "f1"),
        ),
        # Cer et al. 2017
        GlueTask(name="stsb", columns=_PAIR, problem=Regression(), metrics=("pearson", "spearman")),
        # Iyer et al. 2017
        GlueTask(
            name="qqp",
            columns=("question1", "question2"),
            problem=Classification(("not_duplicate", "duplicate")),
            metrics=("accuracy", "f1"),
        ),
        # Williams et al. 2018
        GlueTask(
            name="mnli",
            columns=("premise", "hypothesis"),
            problem=Classification(("entailment", "neutral", "contradiction")),
            metrics=("accuracy",),
            reports=("validation_matched", "validation_mismatched"),
        ),
        # Rajpurkar et al. 2016
        GlueTask(
            name="qnli",
            columns=("question", "sentence"),
            problem=Classification(("entailment", "not_entailment")),
            metrics=("accuracy",),
        ),
        # Dagan et al. 2006 and its three successors
        GlueTask(
            name="rte", columns=_PAIR, problem=Classification(("entailment", "not_entailment")), metrics=("accuracy",)
        ),
        # Levesque et al. 2011. Its validation sentences occur in its training set with the opposite label: a model that
        # fits the training set scores below the majority class (56 %). Most papers leave the task out.
        GlueTask(
            name="wnli", columns=_PAIR, problem=Classification(("not_entailment", "entailment")), metrics=("accuracy",)
        ),
    )
}

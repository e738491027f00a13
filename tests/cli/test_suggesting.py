"""`rankopt suggest`; `tests/api/test_suggest.py` checks the numbers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_suggest(here: Rankopt, tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """Own rows: tables, one sentence, and lines to paste."""
    import pandas as pd

    pd.read_parquet(tiny_glue / "sst2" / "train.parquet").to_csv(tmp_path / "train.csv", index=False)
    words = ("suggest", "--model", tiny_model, "--data", "train.csv", "--max-rank", 2, "--epochs", 60)
    done = here(*words, "--minutes", 60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy by rank, from one nested training of" in done.stdout
    assert sum(line.startswith("suggestion: ") for line in done.stdout.splitlines()) == 1
    for program in ("PEFT", "TRL", "Axolotl", "LLaMA-Factory"):
        assert f"\n# {program}\n" in done.stdout
    assert "3 learning rates begin the training" in done.stderr
    done = here("suggest", "--model", tiny_model, "--data", "nowhere.csv", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    pd.DataFrame({"facts": ["a b"], "sentence": ["c d"]}).to_csv(tmp_path / "facts.csv", index=False)
    for column, found in (((), "name its columns with --prompt and --completion"), (("--prompt", "fact"), "'facts'?")):
        done = here("suggest", "--model", "mini-decoder", "--data", "facts.csv", *column, cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert found in done.stderr

"""Tables for a paper: literal text, booktabs, and PDF figures with the same bytes for the same results."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from synthetic_results import grid, make, trials

from rankopt.report import write_report
from rankopt.report.base import Block, Table
from rankopt.report.latex import latex, latex_text

HOSTILE = r"\input{/etc/passwd} $x$ a&b 50% #1 {_} ~^ <b> |" + "\x1b[2J\n\\end{table}"


def test_text_is_literal() -> None:
    """No command, no math, no comment and no alignment survives."""
    text = latex_text(HOSTILE)
    plain = re.sub(r"\\[a-z]+\{\}|\\[&%$#_{}]|\$[<>]\$", "", text)
    assert not set(plain) & set("\\{}$&%#_~^|\n\x1b")
    assert "input" in plain


def test_a_table() -> None:
    frame = pd.DataFrame({"name_1": ["a", HOSTILE], "score": [0.5, None]})
    table = Table(frame, {"score": ".3f"}, "Means")
    long = Table(frame, long=True)
    text = latex({"scores": Block("Scores", tables=(table, long))})
    assert r"\caption{Scores: Means}" in text
    assert r"\label{tab:scores-1}" in text
    assert "\\begin{tabular}{lr}\n\\toprule\nname\\_1 & score \\\\\n\\midrule\na & 0.500 \\\\\n" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert "n/a" in text


def test_a_wide_table_is_scaled() -> None:
    wide = latex({"x": Block("X", tables=(Table(pd.DataFrame({f"c{n}": [n] for n in range(9)})),))})
    assert wide.count(r"\resizebox{\textwidth}{!}{%") == 1
    assert r"\end{tabular}}" in wide


def test_files_of_a_report(tmp_path: Path) -> None:
    """Only where they are asked for, twice the same, and removed by a report without them."""
    study = grid(space={"task.name": ["mini-rte"], "budget.mean_rank": [2.0], "allocator": [{"name": "uniform"}]})
    results = make(trials(study))
    folders = [write_report(study, results, tmp_path / name, latex=True).parent for name in "ab"]
    names = {path.stem for path in (folders[0] / "figures").glob("*.svg")}
    for ending in ("pdf", "png"):
        files = [sorted(folder.rglob(f"*.{ending}")) for folder in folders]
        assert {path.stem for path in files[0]} == names
        assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert (folders[0] / "tables.tex").read_text() == (folders[1] / "tables.tex").read_text()
    write_report(study, results, folders[0])
    assert {path.suffix for path in (folders[0] / "figures").iterdir()} == {".svg"}
    assert not (folders[0] / "tables.tex").exists()

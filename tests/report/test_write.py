"""Reports on disk: equal bytes for equal results, complete data, and no access to the network."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report import write_report

COUNTS = {"complete": 58, "failed": 1, "waiting": 1}


@pytest.fixture(scope="module")
def folder(study: StudySpec, results: list[TrialResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, results, tmp_path_factory.mktemp("report"), counts=COUNTS).parent


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_results_in_any_order_give_the_same_bytes(
    study: StudySpec, results: list[TrialResult], folder: Path, tmp_path: Path
) -> None:
    shuffled = random.Random(0).sample(results, len(results))
    (tmp_path / "figures").mkdir()
    for ending in ("png", "svg"):
        (tmp_path / "figures" / f"of-an-older-report.{ending}").touch()
    write_report(study, shuffled, tmp_path, counts=COUNTS)
    first, second = files(folder), files(tmp_path)
    assert list(first) == list(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_every_point_is_in_the_data(results: list[TrialResult], folder: Path) -> None:
    data = pd.read_csv(folder / "data.csv")
    found = set(zip(data["key"], data["point"], data["kept"], data["score"], strict=True))
    points = [(result, point) for result in results for point in result.points]
    assert found == {(r.key, point.label, point.kept, r.score("report", point)) for r, point in points}
    assert len(data) == len(points)


def test_every_figure_is_a_file_and_linked(folder: Path) -> None:
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".svg"}
    ranks = {f"ranks-{number}" for number in (1, 2, 3, 4)}  # two tasks, two budgets
    assert {"trade-off", "differences", *ranks, "budget", "profiles", "cost"} == drawn
    assert set(re.findall(r"\(figures/(.+?)\.svg\)", (folder / "report.md").read_text())) == drawn
    page = (folder / "index.html").read_text()
    assert set(re.findall(r'href="figures/(.+?)\.svg"', page)) == drawn


def test_the_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    assert "default-src 'none'" in page
    # Vega contains addresses in strings that this page never uses; outside its element there are none
    start = page.index("</script>", page.index('id="figures"'))
    own = page[:start] + page[page.rindex("<script>") :]
    assert len(page) - len(own) > 8e5  # what is left out is Vega
    assert len(page) < 1.5e6
    assert not re.search(r"https?://(?!vega.github.io/schema/)", own)
    assert not re.search(r"<(link|script|iframe)[^>]+(src|href)=(?!\"data:)", own)
    assert not re.search(r"<img[^>]+src=(?!\"figures/)", own)


def test_csv_and_parquet_have_the_same_rows(folder: Path) -> None:
    for path in folder.glob("*.csv"):
        text, typed = pd.read_csv(path), pd.read_parquet(path.with_suffix(".parquet"))
        assert list(text.columns) == list(typed.columns)
        assert len(text) == len(typed)
        for name in ("score", "difference", "value"):
            if name in text:
                assert text[name].tolist() == pytest.approx(typed[name].tolist(), nan_ok=True)
    assert {path.stem for path in folder.glob("*.parquet")} == {"data", "averages", "comparisons", "curves"}


def test_every_plot_has_a_figure(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    assert set(json.loads(found[1])) == set(re.findall(r'class="plot" id="(.+?)"', page))


def test_no_machine_path_reaches_the_report(folder: Path) -> None:
    for name, content in files(folder).items():
        assert str(folder).encode() not in content, name


def test_gaps_are_reported(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "not GLUE: mini-cola and mini-rte" in text
    assert "1 trial failed" in text
    assert "loss is not finite at step 17" in text
    assert "2 of 60 planned trials have no complete result" in text
    assert "waiting 1" in text


def test_no_results_is_one_clear_line(study: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no results yet") as error:
        write_report(study, [], tmp_path / "report")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


def test_only_unreadable_records_still_give_a_report(study: StudySpec, tmp_path: Path) -> None:
    """It says what is wrong with them."""
    page = write_report(study, [], tmp_path, search=SearchRecord(unreadable=["attempt 3: broken"]))
    assert "attempt 3: broken" in page.read_text()
    assert "attempt 3: broken" in (tmp_path / "report.md").read_text()


def test_importing_report_loads_no_plotting_library() -> None:
    code = (
        "import rankopt.report, sys; loaded = {'torch', 'pandas', 'vl_convert', 'scipy'} & set(sys.modules);"
        "import rankopt.report.sections, rankopt.report.pages, rankopt.report.static;"
        "print(sorted(loaded), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[] False"

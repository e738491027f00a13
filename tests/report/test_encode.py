"""Hostile text in every output format: it is shown as text, and does nothing."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from synthetic_results import failure, make, trials

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report import write_report
from rankopt.report.encode import csv_cell, fence, markdown_text


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("[text](javascript:x)", r"\[text\](javascript:x)"),
        ("https://evil.example www.evil.example a@b.c", r"https\://evil.example www\.evil.example a\@b.c"),
        ("`code` ``` *a* _b_ ~c~ a|b", r"\`code\` \`\`\` \*a\* \_b\_ \~c\~ a\|b"),
        ("# heading\n\n- item", r"\# heading - item"),
        ("1. item", r"1\. item"),
        ("2) item", r"2\) item"),
        ("> quote", "&gt; quote"),
        ('a & b, it\'s "c"', 'a &amp; b, it\'s "c"'),
        ("\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07", "red link"),
        ("0.5 ± 0.1, p = 0.02", "0.5 ± 0.1, p = 0.02"),
    ],
)
def test_markdown(text: str, literal: str) -> None:
    assert markdown_text(text) == literal


def test_markdown_of_other_values() -> None:
    """Numbers and text marked as safe are left as they are."""
    assert (markdown_text(3), markdown_text(Markup("**a**"))) == (3, "**a**")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " ="])
def test_csv_cells_start_no_formula(start: str) -> None:
    assert csv_cell(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"


def test_fence_is_longer_than_any_run_of_backticks() -> None:
    assert [fence(text) for text in ("", "a `b`", "```\n````")] == ["```", "```", "`````"]


HOSTILE = "=1+1|<script>alert(1)</script>[x](http://evil.example)```\x1b[31m$\\frac$ @b"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study whose description, model, allocator options, notes and failures are hostile."""
    space: dict[str, Any] = {
        "allocator": [{"name": "uniform"}, {"name": "static", "found": HOSTILE}, {"name": HOSTILE}],
        "model.name": ["mini", HOSTILE],
        "seed": [0, 1],
    }
    base = {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2.0}}
    study = StudySpec(name="hostile", description=f"{HOSTILE}\n# heading", base=base, space=space)
    first, *others = trials(study)
    environment = {"device": HOSTILE}
    results: list[TrialResult] = [
        failure(first, HOSTILE),
        *(one.model_copy(update={"notes": (HOSTILE,), "environment": environment}) for one in make(others)),
    ]
    return write_report(study, results, tmp_path_factory.mktemp("hostile")).parent


def test_a_hostile_report_has_no_control_characters(hostile: Path) -> None:
    for path in hostile.rglob("*"):
        if path.suffix in (".html", ".md", ".csv", ".svg"):
            assert not re.search(
                r"[\x00-\x08\x0b-\x1f\x7f]", path.read_text(encoding="utf-8").split('id="figures"')[0]
            ), path
            if path.suffix == ".svg":
                ElementTree.parse(path)


def test_a_hostile_report_in_markdown(hostile: Path) -> None:
    """No raw HTML, link, or code fence outside the listing; every table row has as many cells as its head."""
    text = (hostile / "report.md").read_text(encoding="utf-8")
    before, listing = text.rsplit("\n````json\n", 1)
    assert listing.rstrip().endswith("````")
    assert json.loads(listing.rstrip().removesuffix("````"))["name"] == "hostile"
    assert "<script" not in before
    assert "```" not in before
    assert not re.search(r"(?<!\\)\]\(http|https?://", before)
    for table in re.findall(r"(?:^\|.*\n)+", before, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_a_hostile_report_in_html(hostile: Path) -> None:
    page = (hostile / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    assert "<" not in found[1]
    for axis in re.findall(r'"labelExpr": "(.*?[^\\\\])"', found[1]):
        assert re.fullmatch(r"\[.*\]\[indexof\(\[.*\], datum.value\)\]", json.loads(f'"{axis}"'))


def test_a_hostile_report_in_csv(hostile: Path) -> None:
    with (hostile / "data.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    names = {row[head.index("name")] for row in rows}
    assert any(name.startswith("'=1+1") for name in names)
    for row in [head, *rows]:
        for cell in row:
            assert cell[:1] not in ("=", "@", "\t")
            assert cell[:1] not in ("+", "-") or float(cell) is not None

"""Blocks as HTML and Markdown."""

from __future__ import annotations

import json
import re

import pandas as pd

from rankopt.core.study_spec import StudySpec
from rankopt.report.base import Block, Table
from rankopt.report.pages import markdown, page

BLOCKS = {
    "one": Block("One", text=("a < b",), bullets=("b",), warnings=("careful",), listing="x"),
    "two": Block("Two", tables=(Table(pd.DataFrame({"n": [1]}), title="Long", long=True),)),
}


def test_the_page_holds_every_block() -> None:
    """Linked from the head, escaped, long tables collapsed; figures are JSON that no text can end."""
    text = page(BLOCKS, kind="kind", title="a title", lead="</script>")
    for name, block in BLOCKS.items():
        assert f'<a href="#{name}">{block.title}</a>' in text
        assert f'<section id="{name}">' in text
    assert "a &lt; b" in text
    assert "<summary>Long (1 row)</summary>" in text
    assert "&lt;/script&gt;" in text
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found
    assert json.loads(found[1]) == {}


def test_a_page_without_files_links_none() -> None:
    assert "data.csv" not in page(BLOCKS, kind="kind", title="a")
    assert "data.csv" in page(BLOCKS, kind="kind", title="a", files=True)


def test_markdown_holds_every_block() -> None:
    text = markdown(StudySpec(name="s", description="about", base={}), BLOCKS)
    assert text.startswith("# s\n\nabout\n")
    assert "> **Note:** careful" in text
    assert "- b\n" in text
    assert "1 row: see [data.csv](data.csv)." in text
    assert "```json\nx\n```\n" in text

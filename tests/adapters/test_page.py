"""The HTML page of an analysis is self-contained and replaces only pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rankopt
from rankopt.adapters.page import write_page


def test_the_page_is_self_contained(case: str, tmp_path: Path, stock: Any) -> None:
    """It names every module, holds the data of its figures, and loads nothing."""
    stock.make(case, tmp_path / "a")
    write_page(rankopt.spectrum(tmp_path / "a"), tmp_path / "deep" / "page.html")
    text = (tmp_path / "deep" / "page.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text.replace('href="#', "")[:20_000])
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert {"plot-heat-1", "plot-heat-3", "plot-spectra-1", "plot-trade-off-1"} <= set(figures)
    for name in rankopt.spectrum(tmp_path / "a").modules:
        assert name in text


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "folder", "file/page.html"])
def test_only_pages_are_replaced(name: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Weights, folders and paths below a file are refused."""
    (tmp_path / "adapter_model.safetensors").write_text("weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="--html"):
        write_page(rankopt.spectrum(adapter_of("plain")), tmp_path / name)
    assert (tmp_path / "adapter_model.safetensors").read_text() == "weights"

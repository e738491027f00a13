"""The commands for adapters as a person types them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def type_in(here: Callable[..., Any], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`type_in("analyze", "adapter")` in the folder where adapters are made."""
    return partial(here, cwd=tmp_path)


def test_three_lines_for_a_newcomer(type_in: Any, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Analyse, look, compress: what the README says to type."""
    adapter_of("rank and alpha patterns")
    done = type_in("analyze", "adapter")
    assert done.returncode == 0, done.stderr
    assert "LoRA: 10 modules, ranks 2 to 5" in done.stdout
    assert "95% of the energy" in done.stdout
    done = type_in("analyze", "adapter", "--html", "page.html")
    assert done.stdout.rstrip().endswith("page.html")
    assert (tmp_path / "page.html").stat().st_size > 1_000_000
    done = type_in("compress", "adapter", "--out", "small", "--energy", "0.95")
    assert done.returncode == 0, done.stderr
    assert "small: " in done.stdout
    assert "in Frobenius norm" in done.stdout
    assert type_in("analyze", "small").returncode == 0


def test_json(type_in: Any, adapter_of: Callable[..., Path]) -> None:
    adapter_of("plain")
    assert json.loads(type_in("analyze", "adapter", "--json").stdout)["kind"] == "LoRA"
    data = json.loads(type_in("compress", "adapter", "--out", "b", "--ratio", "0.5", "--json").stdout)
    assert data["parameters"] <= data["parameters_before"] / 2


def test_calibrate(type_in: Any, tmp_path: Path, tiny_model: Path) -> None:
    """Texts and a base model make the norm that of the outputs."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    model = get_peft_model(AutoModel.from_pretrained(tiny_model), LoraConfig(r=3, target_modules=["query", "dense"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3)
    model.save_pretrained(str(tmp_path / "adapter"))
    (tmp_path / "t.txt").write_text("bright film\ndull road window\n")
    words = ["compress", "adapter", "--out", "b", "--ratio", "0.5", "--calibrate", "t.txt", "--model", tiny_model]
    done = type_in(*words)
    assert done.returncode == 0, done.stderr
    assert "of the modules' outputs, root mean square" in done.stdout


def test_merge_and_convert(type_in: Any, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    adapter_of("plain", 1, "a")
    adapter_of("plain", 2, "b")
    stock.build("roberta").save_pretrained(tmp_path / "base")
    done = type_in("merge", "a", "b", "--out", "c", "--weights", "0.5,0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("c: 0.5 x a + 0.5 x b, 1,024 parameters")
    assert type_in("merge", "a", "b", "--out", "d", "--rank", "2", "--uniform").returncode == 0
    done = type_in("merge", "a", "--out", "m", "--model", "base")
    assert done.stdout.startswith("m: base with a merged into it")
    adapter_of("AdaLoRA", 1, "ada")
    assert type_in("convert", "ada", "--out", "e").stdout.startswith("e: LoRA from AdaLoRA, 4 of 4 modules")


REFUSED: dict[str, tuple[list[str], str]] = {
    "no adapter": (["analyze", "nowhere"], "got 'nowhere': no such folder exists, and it is no hub id"),
    "an empty folder": (["analyze", "empty"], "empty: an adapter must hold adapter_config.json, it has none"),
    "no size": (["compress", "adapter", "--out", "b"], "one of --budget, --ratio, --energy and --rank must be given"),
    "two sizes": (["compress", "adapter", "--out", "b", "--ratio", "1", "--rank", "2"], "got --ratio and --rank"),
    "a share above one": (
        ["compress", "adapter", "--out", "b", "--energy", "95"],
        "--energy must be above 0 and at most 1",
    ),
    "no number": (["compress", "adapter", "--out", "b", "--ratio", "nan"], "--ratio must be above 0 and at most 1"),
    "an output that exists": (["compress", "adapter", "--out", "empty", "--ratio", "1"], "--out must not exist yet"),
    "texts without a model": (
        ["compress", "adapter", "--out", "b", "--ratio", "1", "--calibrate", "t.txt"],
        "--calibrate and --model must be given together",
    ),
    "one to merge": (["merge", "adapter", "--out", "b"], "merge must be given several adapters, or --model"),
    "two into a model": (
        ["merge", "adapter", "adapter", "--out", "b", "--model", "m"],
        "--model must come with one adapter",
    ),
    "weights that do not fit": (
        ["merge", "adapter", "adapter", "--out", "b", "--weights", "1,x"],
        "--weights must be 2 numbers joined by commas, got '1,x'",
    ),
    "uniform without a size": (["merge", "adapter", "adapter", "--out", "b", "--uniform"], "--uniform must come with"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_exit_code_2(case: str, type_in: Any, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """One line on standard error, nothing on standard output, nothing left behind."""
    adapter_of("plain")
    (tmp_path / "empty").mkdir()
    words, message = REFUSED[case]
    done = type_in(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("rankopt: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "empty"]

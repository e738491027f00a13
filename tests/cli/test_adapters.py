"""The commands for adapters as typed in a terminal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from peft_adapters import build, make_adapter


@pytest.fixture
def adapter_of(tmp_path: Path) -> Callable[..., Path]:
    """`adapter_of("plain")` is a folder with the adapter of that case."""

    def make(case: str, seed: int = 1, name: str = "adapter") -> Path:
        make_adapter(case, tmp_path / name, seed)
        return tmp_path / name

    return make


@pytest.fixture
def type_in(here: Callable[..., Any], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`type_in("analyze", "adapter")` runs in the folder with the adapters."""
    return partial(here, cwd=tmp_path)


def test_analyze_and_compress(type_in: Any, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The commands of the README."""
    adapter_of("rank and alpha patterns")
    done = type_in("analyze", "adapter")
    assert done.returncode == 0, done.stderr
    assert "LoRA: 10 modules, ranks 2 to 5" in done.stdout
    assert "95% of the energy" in done.stdout
    done = type_in("analyze", "adapter", "--html", "page.html")
    assert done.stdout.rstrip().endswith("page.html")
    assert (tmp_path / "page.html").stat().st_size > 500_000, "it holds the script that draws it"
    done = type_in("compress", "adapter", "--out", "small", "--energy", "0.95")
    assert done.returncode == 0, done.stderr
    assert "small: " in done.stdout
    assert "in Frobenius norm" in done.stdout
    assert type_in("analyze", "small").returncode == 0


def test_extract(type_in: Any, tmp_path: Path) -> None:
    """Two models make an adapter."""
    import torch

    net = build("llama")
    net.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        net.model.layers[0].self_attn.q_proj.weight += 1
    net.save_pretrained(tmp_path / "tuned")
    done = type_in("extract", "base", "tuned", "--out", "adapter", "--energy", "0.9")
    assert done.returncode == 0, done.stderr
    assert "adapter: tuned minus base, 32 parameters, 100.000% of the energy" in done.stdout


def test_for_a_server(type_in: Any, adapter_of: Callable[..., Path]) -> None:
    """It says what to type there."""
    adapter_of("all of Llama")
    done = type_in("compress", "adapter", "--out", "small", "--ratio", "0.5", "--for", "vllm")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("serve it: vllm serve ")
    assert done.stdout.splitlines()[-1].endswith(" --enable-lora --lora-modules small=small --max-lora-rank 8")


def test_within_a_tolerance(
    type_in: Any, tiny_spec: Callable[..., Any], tiny_model: Path, tiny_glue: Path, tmp_path: Path
) -> None:
    """The curve, what it was chosen on, and the adapter."""
    from rankopt.training.trial import run_trial

    run_trial(tiny_spec(training__steps=4), tmp_path)
    words = ("compress", "adapter", "--out", "small", "--score-within", "0.5", "--model", tiny_model)
    done = type_in(*words, "--task", "sst2", "--data-dir", tiny_glue)
    assert done.returncode == 0, done.stderr
    assert "accuracy by size, chosen within 0.5" in done.stdout
    assert "chosen on 12 examples, reported on the other 12" in done.stdout
    assert (tmp_path / "small" / "adapter_config.json").is_file()


def test_json(type_in: Any, adapter_of: Callable[..., Path]) -> None:
    adapter_of("plain")
    assert json.loads(type_in("analyze", "adapter", "--json").stdout)["kind"] == "LoRA"
    data = json.loads(type_in("compress", "adapter", "--out", "b", "--ratio", "0.5", "--json").stdout)
    assert data["parameters"] <= data["parameters_before"] / 2


def test_calibrate(type_in: Any, tmp_path: Path, tiny_model: Path) -> None:
    """With texts and a base model, the error on outputs is reported."""
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
    assert "of the modules' outputs (root mean square)" in done.stdout


def test_merge_and_convert(type_in: Any, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    adapter_of("plain", 1, "a")
    adapter_of("plain", 2, "b")
    build("roberta").save_pretrained(tmp_path / "base")
    done = type_in("merge", "a", "b", "--out", "c", "--weights", "0.5,0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("c: 0.5 x a + 0.5 x b, 1,024 parameters")
    assert type_in("merge", "a", "b", "--out", "d", "--rank", "2", "--uniform").returncode == 0
    done = type_in("merge", "a", "--out", "m", "--model", "base")
    assert done.stdout.startswith("m: base with a merged into it")
    adapter_of("AdaLoRA", 1, "ada")
    assert type_in("convert", "ada", "--out", "e").stdout.startswith("e: LoRA from AdaLoRA, 4 of 4 modules")


REFUSED: dict[str, tuple[list[str], str]] = {
    "no adapter": (
        ["analyze", "nowhere"],
        "an adapter must be an existing folder or a hub id (user/repository), got 'nowhere'",
    ),
    "an empty folder": (["analyze", "empty"], "empty: an adapter must have adapter_config.json, got none"),
    "no size": (
        ["compress", "adapter", "--out", "b"],
        "give one of --budget, --ratio, --energy, --rank and --score-within, got none",
    ),
    "two sizes": (["compress", "adapter", "--out", "b", "--ratio", "1", "--rank", "2"], "got --ratio and --rank"),
    "a share above one": (
        ["compress", "adapter", "--out", "b", "--energy", "95"],
        "--energy must be above 0 and at most 1",
    ),
    "no number": (["compress", "adapter", "--out", "b", "--ratio", "nan"], "--ratio must be above 0 and at most 1"),
    "an output that exists": (["compress", "adapter", "--out", "empty", "--ratio", "1"], "--out must not exist yet"),
    "texts without a model": (
        ["compress", "adapter", "--out", "b", "--ratio", "1", "--calibrate", "t.txt"],
        "give --model together with --calibrate or --score-within",
    ),
    "a tolerance without examples": (
        ["compress", "adapter", "--out", "b", "--score-within", "0.1", "--model", "m"],
        "give --score-within together with one of --data and --task",
    ),
    "an unknown server": (["compress", "adapter", "--out", "b", "--rank", "1", "--for", "tgi"], "--for must be one of"),
    "one to merge": (["merge", "adapter", "--out", "b"], "merge needs several adapters, or one adapter and --model"),
    "two into a model": (
        ["merge", "adapter", "adapter", "--out", "b", "--model", "m"],
        "--model takes one adapter",
    ),
    "weights that do not fit": (
        ["merge", "adapter", "adapter", "--out", "b", "--weights", "1,x"],
        "--weights must be 2 numbers joined by commas, got '1,x'",
    ),
    "uniform without a size": (["merge", "adapter", "adapter", "--out", "b", "--uniform"], "--uniform needs one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_exit_code_2(case: str, type_in: Any, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """One line on standard error, nothing on standard output, and no files."""
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

"""Which devices workers get: counted without torch, shared evenly, described in a few words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rankopt.study.devices import VISIBLE, described, gpus, listed_gpus, share

LISTING = """GPU 0: NVIDIA H200 (UUID: GPU-8f1c)
GPU 1: NVIDIA A100 (UUID: GPU-77ab)
  MIG 3g.20gb     Device  0: (UUID: MIG-aa11)
  MIG 3g.20gb     Device  1: (UUID: MIG-bb22)
GPU 2: NVIDIA A100 (UUID: GPU-90de)
"""


def test_a_split_gpu_counts_as_its_parts() -> None:
    assert listed_gpus(LISTING) == ["GPU-8f1c", "MIG-aa11", "MIG-bb22", "GPU-90de"]
    assert listed_gpus("No devices were found\n") == []


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("2,5", ["2", "5"]),
        (" GPU-8f1c , MIG-aa11", ["GPU-8f1c", "MIG-aa11"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),  # as CUDA reads it
        ("NoDevFiles", []),
    ],
)
def test_the_users_own_choice_wins(value: str, names: list[str]) -> None:
    assert gpus({VISIBLE: value}) == names


def _tool(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "nvidia-smi").write_text(f"#!{sys.executable}\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_drivers_tool_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, f"import sys\nassert sys.argv[1:] == ['-L']\nprint({LISTING!r})", monkeypatch)
    assert gpus({}) == ["GPU-8f1c", "MIG-aa11", "MIG-bb22", "GPU-90de"]


@pytest.mark.parametrize("script", ["raise SystemExit(9)", "print('No devices were found')"])
def test_a_driver_that_does_not_answer(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then torch alone decides, as on a machine without the tool."""
    _tool(tmp_path, script, monkeypatch)
    assert gpus({}) == []
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert gpus({}) == []


def test_gpus_are_shared_evenly() -> None:
    """Five workers on two GPUs; nothing is set where there is no choice."""
    assert [share("cuda", ["a", "b"], worker)[VISIBLE] for worker in range(5)] == ["a", "b", "a", "b", "a"]
    assert share("auto", ["a"], 1) == share("auto", [], 1) == share("mps", ["a", "b"], 1) == {}
    assert share("cpu", ["a", "b"], 1) == {VISIBLE: ""}


def test_a_few_words() -> None:
    assert described("cuda", 4, 4) == "4 workers on 4 GPUs"
    assert described("cuda", 4, 2) == "4 workers on 2 GPUs"
    assert described("cuda", 2, 8) == "2 workers on 2 GPUs"
    assert described("cuda", 1, 0) == "1 worker on 1 GPU"
    assert described("mps", 2, 0) == "2 workers on mps"
    assert described("cpu", 1, 0) == "1 worker on cpu"


def test_counting_imports_no_torch() -> None:
    code = "import sys; from rankopt.study.devices import gpus; gpus(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""`validate` and `plan`: what they print, and that they write nothing."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_validate(here: Rankopt, valid_study: Path, tmp_path: Path) -> None:
    """Prints the number of trials of a valid study; allocator options are checked too."""
    done = here("validate", valid_study, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{valid_study}: valid, 2 trials\n")
    done = here("validate", valid_study, "--set", "allocator={name: adalora, beta1: 1.5}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "rankopt: --set allocator={name: adalora, beta1: 1.5}: base.allocator.beta1 must be less than 1, got 1.5\n"
    )


def test_plan(here: Rankopt, valid_study: Path, tmp_path: Path) -> None:
    """Prints trials with steps, tokens and an estimate, as a table and as JSON; writes nothing."""
    before = sorted(tmp_path.rglob("*"))
    data = json.loads(here("plan", valid_study, "--json", cwd=tmp_path).stdout)
    assert data["study"] == "tiny"
    assert [(row["seed"], row["steps"]) for row in data["trials"]] == [(0, 12), (1, 12)]
    assert all(row["tokens"] > 0 and row["seconds"] >= 0 for row in data["trials"])
    text = here("plan", valid_study, cwd=tmp_path).stdout
    assert "tiny: 2 trials" in text
    assert "24 steps" in text
    assert re.search(r"^adapters are on \d+% of the block weights of ", text, re.MULTILINE)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_warning_about_emulated_bf16(
    here: Rankopt, valid_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine where bf16 is slower, `plan` warns and its estimate includes the slowdown."""
    paces = {"fp32": 1e-7, "bf16": 2e-6}
    monkeypatch.setattr("rankopt.study.preflight.seconds_per_flop", lambda precision, device: paces[precision])
    quick, slow = (
        here("plan", valid_study, "--json", "--set", f"training.precision={precision}", cwd=tmp_path)
        for precision in paces
    )
    assert "bf16 is 20 times slower than fp32 on this machine" in slow.stderr
    assert not quick.stderr
    took = [sum(row["seconds"] for row in json.loads(done.stdout)["trials"]) for done in (quick, slow)]
    assert took[1] == pytest.approx(20 * took[0], rel=0.1)


def test_the_devices_of_a_plan(
    here: Rankopt, valid_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several workers share the GPUs; without a GPU the CPU is used."""
    import torch

    assert "1 worker on cpu\n" in here("plan", valid_study, "--device", "cpu", cwd=tmp_path).stdout
    monkeypatch.setattr("rankopt.study.preflight.seconds_per_flop", lambda precision, device: 1e-9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**40))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert "4 workers on 4 GPUs\n" in here("plan", valid_study, "--workers", 4, cwd=tmp_path).stdout
    assert json.loads(here("plan", valid_study, "--json", cwd=tmp_path).stdout)["device"] == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "2 workers on mps\n" in here("plan", valid_study, "--workers", 2, cwd=tmp_path).stdout

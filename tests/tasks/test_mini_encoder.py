"""The cached encoder: made once, by one process, and complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_process import start

from rankopt.tasks import mini_encoder
from rankopt.tasks.mini_encoder import encoder_path


@pytest.fixture(scope="session")
def encoder() -> Path:
    return encoder_path()


def test_a_made_encoder_is_reused(encoder, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("pretrained twice")

    monkeypatch.setattr(mini_encoder, "pretrain", fail)
    assert encoder_path(fail) == encoder


def test_a_failed_pretraining_leaves_no_encoder_behind(monkeypatch, tmp_path):
    def fail(folder: Path, progress: object) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("power cut")

    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(mini_encoder, "pretrain", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        encoder_path()
    assert [path for path in (tmp_path / "deep" / "cache").iterdir() if path.is_dir()] == []


def test_an_encoder_with_lost_files_is_made_again(monkeypatch, tmp_path):
    def make(folder: Path, progress: object) -> None:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).write_text("made")

    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(mini_encoder, "pretrain", make)
    folder = encoder_path()
    (folder / "model.safetensors").unlink()
    assert encoder_path() == folder
    assert (folder / "model.safetensors").read_text() == "made"


def test_the_name_follows_the_recipe(monkeypatch):
    before = mini_encoder.recipe_hash()
    assert mini_encoder.recipe_hash() == before
    monkeypatch.setattr(mini_encoder, "VERSION", -1)
    assert mini_encoder.recipe_hash() != before


def test_two_processes_at_once_make_one_encoder(tmp_path):
    """The second process waits for the first and then finds the folder (three pretraining steps here)."""
    code = (
        "from rankopt.tasks import mini_encoder, mini_pretraining;"
        "mini_pretraining.TRAINING |= {'steps': 3, 'pairs': 100};"
        "done = []; path = mini_encoder.encoder_path(lambda step, steps: done.append(step));"
        "print(len(done), path)"
    )
    both = [start(code, RANKOPT_CACHE=str(tmp_path)) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(int(steps) for steps, _ in outputs) == [0, 3]
    assert outputs[0][1] == outputs[1][1]
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert [str(path) for path in folders] == [outputs[0][1]]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folders[0].iterdir()}

"""The identity of a process: the same while it lives, whatever happens to the clock; another one after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rankopt.study import process
from rankopt.study.process import is_gone, this_process


def test_a_living_process_is_not_gone() -> None:
    assert not is_gone(this_process())


def test_an_ended_process_is_gone() -> None:
    """Also while its parent has not read its exit code."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = this_process() | {"pid": child.pid, "started": process._started(child.pid)}
    assert not is_gone(record)
    child.kill()
    psutil.Process(child.pid).wait(30) if sys.platform == "win32" else child.wait(30)
    assert is_gone(record)


def test_the_clock_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's time of start moves with the system's clock, by hours here; the process is still the same."""
    record = this_process()
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 7200)
    assert this_process() == record
    assert not is_gone(record)


def test_another_system_or_container_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines may share a host name, and containers a machine; their process ids mean nothing here."""
    record = this_process() | {"pid": 2**22 + 1}
    assert is_gone(record)
    assert not is_gone(record | {"boot": "another"})
    assert not is_gone(record | {"host": "another"})
    assert not is_gone({key: value for key, value in record.items() if key != "boot"}), "recorded by an older version"


def test_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other systems have no /proc; there psutil tells."""
    monkeypatch.setattr(process, "PROC", tmp_path)
    process._boot.cache_clear()
    try:
        assert not is_gone(this_process())
        assert is_gone(this_process() | {"pid": 2**22 + 1})
        assert is_gone(this_process() | {"started": 0.0})
    finally:
        process._boot.cache_clear()

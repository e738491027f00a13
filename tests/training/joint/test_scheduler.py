"""One thread runs at a time, requests are served when all have made one, and clocks are per thread."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import GradientState

from rankopt.training.joint.scheduler import Scheduler, Thread


def schedule(count: int, body: Any, serve: Any) -> list[Any]:
    scheduler = Scheduler(serve)
    threads = [scheduler.register() for _ in range(count)]

    def run(thread: Thread, index: int) -> Any:
        with scheduler.run(thread):
            return body(index, lambda request: scheduler.ask(thread, request))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, threads, range(count)))


def answer_all(threads: list[Thread]) -> None:
    for thread in threads:
        thread.answer, thread.request = None, None


def test_requests_are_served_when_all_threads_wait() -> None:
    """Every round holds the request of every thread, in order; a thread that has ended is not waited for."""
    rounds = []

    def serve(threads: list[Thread]) -> None:
        rounds.append([thread.request for thread in threads])
        for thread in threads:
            thread.answer, thread.request = thread.request * 10, None

    def body(index: int, ask: Any) -> list[int]:
        return [ask(100 * step + index) for step in range(1, index + 2)]

    assert schedule(3, body, serve) == [[1000], [1010, 2010], [1020, 2020, 3020]]
    assert rounds == [[100, 101, 102], [201, 202], [302]]


def test_a_thread_without_an_answer() -> None:
    """It keeps waiting while the others run."""
    rounds = []

    def serve(threads: list[Thread]) -> None:
        urgent = [thread for thread in threads if thread.request == "now"] or threads
        rounds.append([thread.request for thread in threads])
        for thread in urgent:
            thread.answer, thread.request = thread.request, None

    def body(index: int, ask: Any) -> Any:
        return [ask("now") for _ in range(3)] if index else [ask("later")]

    assert schedule(2, body, serve) == [["later"], ["now"] * 3]
    assert rounds == [["later", "now"]] * 3 + [["later"]]


def test_an_exception_as_an_answer() -> None:
    """It is raised in the waiting thread, and the others continue."""

    def serve(threads: list[Thread]) -> None:
        for thread in threads:
            thread.answer, thread.request = ValueError("no") if thread.request == 1 else "yes", None

    def body(index: int, ask: Any) -> Any:
        if index == 1:
            with pytest.raises(ValueError, match="no"):
                ask(index)
            return "caught"
        return ask(index)

    assert schedule(3, body, serve) == ["yes", "caught", "yes"]


def test_process_wide_state_is_per_thread() -> None:
    """Three interleaved threads draw what each draws alone."""

    def draws(index: int, ask: Any) -> list[float]:
        torch.manual_seed(index)
        np.random.seed(index)
        random.seed(index)
        GradientState._shared_state["mine"] = index
        found = []
        for _ in range(4):
            ask(0)
            found += [torch.rand(()).item(), np.random.rand(), random.random(), GradientState._shared_state["mine"]]
        return found

    together = schedule(3, draws, answer_all)
    assert together == [draws(index, lambda request: None) for index in range(3)]


def test_drawing_for_another_thread() -> None:
    """`drawing` advances a waiting thread's generator, and not the one of the running thread."""

    def serve(threads: list[Thread]) -> None:
        before = torch.get_rng_state()
        for thread in threads:
            with thread.process.torch.drawing("cpu"):
                thread.answer = torch.rand(3).tolist()
            thread.request = None
        assert torch.equal(before, torch.get_rng_state())

    def body(index: int, ask: Any) -> list[float]:
        torch.manual_seed(index)
        return [*torch.rand(2).tolist(), *ask(0), *torch.rand(2).tolist()]

    expected = [torch.rand(7, generator=torch.Generator().manual_seed(index)).tolist() for index in range(2)]
    assert schedule(2, body, serve) == expected


def test_clocks() -> None:
    """A thread's clock stands still while others run."""
    import time

    def body(index: int, ask: Any) -> tuple[float, float]:
        clock = ask(0)
        began = clock()
        time.sleep(0.2 if index else 0.0)
        ask(0)
        return clock() - began, index

    def serve(threads: list[Thread]) -> None:
        for thread in threads:
            thread.answer, thread.request = thread.clock, None

    quick, slow = schedule(2, body, serve)
    assert quick[0] < 0.1
    assert slow[0] >= 0.2

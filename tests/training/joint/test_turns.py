"""Threads that take turns: one at a time, each with the process as it left it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import GradientState

from rankopt.training.joint.turns import Player, Turns


def play(count: int, body: Any, work: Any) -> list[Any]:
    turns = Turns(work)
    players = [turns.join() for _ in range(count)]

    def run(player: Player, index: int) -> Any:
        with turns.play(player):
            return body(index, lambda post: turns.ask(player, post))

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, players, range(count)))


def answer_all(players: list[Player]) -> None:
    for player in players:
        player.answer, player.post = None, None


def test_work_is_done_when_all_have_posted() -> None:
    """Every round holds what every player asks for, in their order; who has ended is not waited for."""
    rounds = []

    def work(players: list[Player]) -> None:
        rounds.append([player.post for player in players])
        for player in players:
            player.answer, player.post = player.post * 10, None

    def body(index: int, ask: Any) -> list[int]:
        return [ask(100 * step + index) for step in range(1, index + 2)]

    assert play(3, body, work) == [[1000], [1010, 2010], [1020, 2020, 3020]]
    assert rounds == [[100, 101, 102], [201, 202], [302]]


def test_a_player_may_be_left_without_an_answer() -> None:
    """It waits on while the others play."""
    rounds = []

    def work(players: list[Player]) -> None:
        urgent = [player for player in players if player.post == "now"] or players
        rounds.append([player.post for player in players])
        for player in urgent:
            player.answer, player.post = player.post, None

    def body(index: int, ask: Any) -> Any:
        return [ask("now") for _ in range(3)] if index else [ask("later")]

    assert play(2, body, work) == [["later"], ["now"] * 3]
    assert rounds == [["later", "now"]] * 3 + [["later"]]


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    """And the others go on."""

    def work(players: list[Player]) -> None:
        for player in players:
            player.answer, player.post = ValueError("no") if player.post == 1 else "yes", None

    def body(index: int, ask: Any) -> Any:
        if index == 1:
            with pytest.raises(ValueError, match="no"):
                ask(index)
            return "caught"
        return ask(index)

    assert play(3, body, work) == ["yes", "caught", "yes"]


def test_each_finds_its_generators_and_accelerates_state() -> None:
    """Three players that draw in turns draw what each draws alone."""

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

    together = play(3, draws, answer_all)
    assert together == [draws(index, lambda post: None) for index in range(3)]


def test_generators_drawn_from_while_another_plays() -> None:
    """`draw` goes on where the player left off, the player goes on from there, and the process's own does not move."""

    def work(players: list[Player]) -> None:
        before = torch.get_rng_state()
        for player in players:
            with player.globals.torch.draw("cpu"):
                player.answer = torch.rand(3).tolist()
            player.post = None
        assert torch.equal(before, torch.get_rng_state())

    def body(index: int, ask: Any) -> list[float]:
        torch.manual_seed(index)
        return [*torch.rand(2).tolist(), *ask(0), *torch.rand(2).tolist()]

    expected = [torch.rand(7, generator=torch.Generator().manual_seed(index)).tolist() for index in range(2)]
    assert play(2, body, work) == expected


def test_seconds_of_others_do_not_count() -> None:
    """A player's clock stands still while the others play."""
    import time

    def body(index: int, ask: Any) -> tuple[float, float]:
        clock = ask(0)
        began = clock()
        time.sleep(0.2 if index else 0.0)
        ask(0)
        return clock() - began, index

    def work(players: list[Player]) -> None:
        for player in players:
            player.answer, player.post = player.clock, None

    quick, slow = play(2, body, work)
    assert quick[0] < 0.1
    assert slow[0] >= 0.2

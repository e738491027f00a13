"""Trainings in threads that take turns: one runs at a time, and finds the process as it left it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor

SHARED = (PartialState, AcceleratorState, GradientState)


class Generators:
    """torch's generators at a moment; `draw` goes on from there."""

    def __init__(self) -> None:
        self.states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            self.states["cuda"] = torch.cuda.get_rng_state()

    def put(self) -> None:
        """Make them the process's."""
        for kind, state in self.states.items():
            _set(kind, state)

    @contextmanager
    def draw(self, kind: str) -> Iterator[None]:
        """Make the generator of a device's kind the process's for a while, and keep how far it went."""
        outside = _get(kind)
        _set(kind, self.states[kind])
        try:
            yield
        finally:
            self.states[kind] = _get(kind)
            _set(kind, outside)


class Globals:
    """What a process has one of and every training takes for its own: the generators, and accelerate's state."""

    def __init__(self) -> None:
        self.torch = Generators()
        self.numpy, self.python = np.random.get_state(), random.getstate()
        self.shared = [dict(kind._shared_state) for kind in SHARED]

    def put(self) -> None:
        """Make all of it the process's again."""
        self.torch.put()
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        for kind, content in zip(SHARED, self.shared, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(content)


class Player:
    """One thread among those that take turns.

    Attributes:
        turn: released when it is this thread's.
        globals: the process as it left it.
        post: the work it asks for, until that is done.
        answer: what came of it.
        seconds: of work done for it.
    """

    def __init__(self) -> None:
        self.turn = threading.Semaphore(0)
        self.globals = Globals()
        self.post: Any = None
        self.answer: Any = None
        self.seconds = 0.0
        self._since = 0.0

    def clock(self) -> float:
        """Seconds that it played or was worked for; those of the others do not count."""
        return self.seconds + time.perf_counter() - self._since

    def wait(self) -> None:
        """Wait for one's turn, and find the process as one left it."""
        self.turn.acquire()
        self._since = time.perf_counter()
        self.globals.put()

    def leave(self, post: Any) -> None:
        """Note the process as it is, at the end of one's turn."""
        self.seconds = self.clock()
        self.post, self.globals = post, Globals()


class Turns:
    """Hands the turn round. A player plays until it posts a piece of work; when all have posted, the work is done.

    Args:
        work: does what is posted, given every player that waits for an answer, in the order of asking: for some of
            them, at least one, it sets `answer` (an exception is raised where the player waits) and clears `post`.
            Players that enter or play meanwhile wait.
    """

    def __init__(self, work: Callable[[list[Player]], None]) -> None:
        self.work = work
        self._lock = threading.Lock()
        self._players: list[Player] = []
        self._playing: Player | None = None

    def join(self) -> Player:
        """A new player, last in the round; the others wait for it from now on, so it must `play`."""
        me = Player()
        for content in me.globals.shared:
            content.clear()  # another player's
        with self._lock:
            self._players.append(me)
            if self._playing is None:
                self._playing = me
                me.turn.release()
        return me

    @contextmanager
    def play(self, me: Player) -> Iterator[None]:
        """Wait for one's turn, play within this context, and leave."""
        me.wait()
        try:
            yield
        finally:
            with self._lock:
                self._players.remove(me)
            self._hand_on()

    def ask(self, me: Player, post: Any) -> Any:
        """Post a piece of work, let the others play, and return its answer."""
        me.leave(post)
        with self._lock:
            self._players.remove(me)
            self._players.append(me)
        self._hand_on()
        me.wait()
        answer, me.answer = me.answer, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _hand_on(self) -> None:
        while True:
            with self._lock:
                ready = [player for player in self._players if player.post is None]
                self._playing = ready[0] if ready else None
                if ready:
                    ready[0].turn.release()
                if ready or not self._players:
                    return
                waiting = list(self._players)
                self._playing = waiting[0]  # who enters while the work is done waits
            self.work(waiting)


def _get(kind: str) -> Tensor:
    return torch.cuda.get_rng_state() if kind == "cuda" else torch.get_rng_state()


def _set(kind: str, state: Tensor) -> None:
    torch.cuda.set_rng_state(state) if kind == "cuda" else torch.set_rng_state(state)

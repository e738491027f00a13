"""Trials that may be trained beside others, and trials that may not."""

from __future__ import annotations

import threading
import time

from rankopt.study.solo_gate import SoloGate


def test_together_or_alone() -> None:
    """Two are inside at once; one that is to be alone waits for both, later ones wait for it, and all get in."""
    gate, inside, seen = SoloGate(), set[str](), list[set[str]]()
    lock, two = threading.Lock(), threading.Barrier(3)

    def visit(name: str, alone: bool) -> None:
        with gate.enter(alone):
            with lock:
                inside.add(name)
                seen.append(set(inside))
            if name in ("a", "b"):
                two.wait(10)
                two.wait(10)
            time.sleep(0.02)
            with lock:
                inside.remove(name)

    def start(name: str, alone: bool) -> threading.Thread:
        thread = threading.Thread(target=visit, args=(name, alone), daemon=True)
        thread.start()
        return thread

    threads = [start("a", False), start("b", False)]
    two.wait(10)  # both are inside
    threads.append(start("alone", True))
    while not gate._waiting:
        time.sleep(0.001)
    threads += [start(name, name == "alone too") for name in ("c", "alone too", "d")]
    time.sleep(0.05)
    assert inside == {"a", "b"}
    two.wait(10)
    for thread in threads:
        thread.join(10)
    assert {"a", "b"} in seen
    assert [found for found in seen if found & {"alone", "alone too"}] in (
        [{"alone"}, {"alone too"}],
        [{"alone too"}, {"alone"}],
    )
    assert set.union(*seen) == {"a", "b", "c", "d", "alone", "alone too"}
    assert not inside


def test_a_failure_inside_lets_the_next_one_in() -> None:
    """Whoever leaves by an exception has left."""
    gate = SoloGate()
    for alone in (True, False, True):
        try:
            with gate.enter(alone):
                raise KeyError
        except KeyError:
            pass
    with gate.enter(True):
        pass

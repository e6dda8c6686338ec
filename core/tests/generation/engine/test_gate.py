"""A gate lets many pass, and closes only when nobody is inside."""

import threading
import time
from collections.abc import Callable

from bestiary.generation.engine.gate import Gate


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_many_pass_at_once() -> None:
    gate, both = Gate(), threading.Barrier(2, timeout=10)

    def enter() -> None:
        with gate.passing():
            both.wait()

    threads = [started(enter) for _ in range(2)]
    for thread in threads:
        thread.join(10)
    assert not both.broken and not any(thread.is_alive() for thread in threads)


def test_who_closes_waits_for_those_inside_and_keeps_others_out() -> None:
    gate, order = Gate(), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with gate.passing():
            inside.set()
            leave.wait(10)
            order.append("left")

    def close() -> None:
        with gate.closed():
            order.append("closed")
            time.sleep(0.1)
            order.append("opened")

    def come() -> None:
        with gate.passing():
            order.append("came")

    first = started(stay)
    assert inside.wait(10)
    second = started(close)
    while not gate._closed:
        time.sleep(0.001)
    third = started(come)  # the closing has begun: who comes now waits
    time.sleep(0.05)
    assert order == []
    leave.set()
    for thread in (first, second, third):
        thread.join(10)
    assert order == ["left", "closed", "opened", "came"]


def test_an_error_opens_it_again() -> None:
    gate = Gate()
    for way in (gate.closed, gate.passing):
        try:
            with way():
                raise ValueError
        except ValueError:
            pass
    with gate.closed():
        pass

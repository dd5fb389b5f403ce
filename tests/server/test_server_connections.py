"""Whose connections stay, and whose go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fedai_server import connections
from fedai_server.connections import Connections


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """An event loop whose time comes when a test says so."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer:
        assert delay == connections.STRANGER_S
        self.timers.append(Timer(lambda: callback(*args)))
        return self.timers[-1]

    def strike(self) -> None:
        for timer in self.timers:
            if not timer.cancelled:
                timer.callback()


class House:
    """Connections under test; `ended` are those that were ended, in order."""

    def __init__(self, most: int = 1000) -> None:
        self.clock = Clock()
        self.held = Connections(most, lambda: self.clock)
        self.ended: list[tuple[str, int]] = []

    def come(self, host: str, port: int) -> connections.Held:
        return self.held.add((host, port), lambda: self.ended.append((host, port)))


def test_a_stranger_goes_when_its_time_is_over_and_a_site_stays() -> None:
    house = House()
    house.come("192.0.2.1", 1)
    house.come("192.0.2.1", 2)
    house.held.know(("192.0.2.1", 2), 7)
    house.clock.strike()
    assert house.ended == [("192.0.2.1", 1)]
    assert len(house.held) == 1


def test_when_it_is_full_the_stranger_that_waits_longest_goes_and_no_site() -> None:
    house = House(most=3)
    house.come("198.51.100.1", 1)
    house.held.know(("198.51.100.1", 1), 7)
    for port in (2, 3, 4, 5):
        house.come(f"192.0.2.{port}", port)
    assert house.ended == [("192.0.2.2", 2), ("192.0.2.3", 3)]


def test_strangers_of_one_address_push_each_other_out_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_AN_ADDRESS", 2)
    house = House()
    house.come("198.51.100.1", 9)
    for port in range(4):
        house.come("192.0.2.1", port)
    assert house.ended == [("192.0.2.1", 0), ("192.0.2.1", 1)]


def test_of_too_many_connections_of_a_site_the_longest_unused_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_A_SITE", 2)
    house = House()
    for port in range(3):
        house.come("192.0.2.1", port)
    for port in (0, 1, 0, 2):
        house.held.know(("192.0.2.1", port), 7)
    assert house.ended == [("192.0.2.1", 1)]


def test_what_has_ended_is_no_longer_counted() -> None:
    house = House()
    held = house.come("192.0.2.1", 1)
    house.held.remove(held)
    house.held.remove(held)
    house.held.know(("192.0.2.1", 1), 7)
    house.clock.strike()
    assert (len(house.held), house.ended) == (0, [])


def test_a_port_that_is_used_again_is_another_connection() -> None:
    house = House()
    first = house.come("192.0.2.1", 1)
    house.come("192.0.2.1", 1)
    house.held.remove(first)
    assert len(house.held) == 1

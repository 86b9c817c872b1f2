from __future__ import annotations

import measuring
import pytest


def test_waiting_ends_when_the_machine_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.9, 0.5, 0.01])
    monkeypatch.setattr(measuring, "busy_share", lambda seconds: next(shares))
    said: list[str] = []
    _, share = measuring.wait_until_idle(0.1, 60, said.append)
    assert share == 0.01
    assert len(said) == 1 and "90%" in said[0]


def test_waiting_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "busy_share", lambda seconds: 0.9)
    with pytest.raises(TimeoutError, match="90%"):
        measuring.wait_until_idle(0.1, 0.0, lambda text: None)

"""Ports of a second installation: the next free ones of /metrics where nobody chose, a refusal that names the setting
where somebody did.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pilotlight.cli.port_checks import STEP, PortTaken, with_metrics_port
from pilotlight.ports import free_port
from pilotlight.settings import RouterSettings, Settings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is listened on; the one before it is free."""
    port = free_port(2) + 1
    with socket.create_server(("127.0.0.1", port)):
        yield port


def settings(router: RouterSettings) -> Settings:
    return Settings(router=router)


def test_a_chosen_port_that_is_taken_is_refused(taken: int) -> None:
    with pytest.raises(PortTaken, match=rf"{taken}.*PILOTLIGHT_ROUTER__METRICS_PORT"):
        with_metrics_port(settings(RouterSettings(metrics_port=taken)))
    with pytest.raises(PortTaken, match=str(taken)):  # the second worker's
        with_metrics_port(settings(RouterSettings(metrics_port=taken - 1, workers=2)))


def test_where_nobody_chose_the_next_free_one_is_taken_and_told_to_all(taken: int) -> None:
    router = RouterSettings.model_construct(
        _fields_set=set(), **(RouterSettings().model_dump() | {"metrics_port": taken})
    )
    found = with_metrics_port(settings(router)).router
    assert found.metrics_port > taken and (found.metrics_port - taken) % STEP == 0
    assert "metrics_port" in found.model_fields_set

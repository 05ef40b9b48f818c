"""An engine version that nobody tried is refused in words, unless the machine's settings allow it."""

from __future__ import annotations

import pytest

from pilotlight.settings import load
from runtime.engine.versions import TESTED, UntestedEngine, check
from runtime.node.standby_environment import standby_environ
from runtime.wire import MOST_STOPS


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_what_was_tested_is_started(device: str) -> None:
    environ = standby_environ(load(), device)
    for version in TESTED[device]:
        check(version, device, environ)
        check(f"{version}+cpu", device, environ)
    for version in ("0.33.0", "0.32.1", "0.320.0", ""):
        with pytest.raises(
            UntestedEngine, match=r"was tested with 0\.32\.0: install that, or set runtime\.untested_engine = true"
        ):
            check(version, device, environ)


def test_a_setting_allows_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTLIGHT_RUNTIME__UNTESTED_ENGINE", "true")
    check("0.33.0", "cpu", standby_environ(load(), "cpu"))


def test_the_engine_takes_as_many_stops_as_the_router() -> None:
    assert standby_environ(load(), "cpu")["VLLM_MAX_STOP_STRINGS"] == str(MOST_STOPS)

"""`make loadtest` as a user runs it: an installation of its own, and one that is up already."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.integration.system import System, wait_until

ROOT = Path(__file__).parents[2]
LOADTEST = [sys.executable, "-m", "loadtests"]


def test_the_driver_never_loads_gevent() -> None:
    script = "import sys, loadtests.__main__; sys.exit(bool({'gevent', 'locust'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def folders() -> set[Path]:
    return {*Path("/tmp").glob("pl-bench-*"), *Path("/tmp").glob("pl-load-*")}


def test_wake_measures_its_own_installation_keeps_the_limits_and_leaves_nothing() -> None:
    before = folders()
    done = subprocess.run(
        [*LOADTEST, "wake", "--seconds", "5"], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cold = re.search(r"^cold +first token +(\d+) +(\S+) +(\S+) +(\S+)$", done.stdout, re.M)
    assert cold and int(cold[1]) == 50 and 0 < float(cold[2]) <= float(cold[3]) <= float(cold[4]), done.stdout
    assert "warm  latency" in done.stdout and "errors 0" in done.stdout
    assert folders() <= before


def test_limits_that_are_not_kept_and_an_installation_that_is_up(system: System) -> None:
    key = system.deploy("taken", "--idle-timeout", "30", "--slots", "16")
    url = ["--url", f"{system.api.url}/e/taken", "--ca", str(system.paths.ca_cert)]
    command = [*LOADTEST, "steady", "--seconds", "3", *url]
    done = subprocess.run(
        command, cwd=ROOT, env=system.environ | {"KEY": key}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1 and "warm calls: " in done.stderr and "are needed" in done.stderr, (
        done.stdout + done.stderr
    )
    assert "errors 0" in done.stdout, "it was too short to say anything, and nothing else was wrong"
    refused = subprocess.run(
        command,
        cwd=ROOT,
        env=system.environ | {"KEY": "pl_no"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert refused.returncode == 1 and "HTTP 401" in refused.stderr


def test_idle_cycle_meets_an_endpoint_on_its_way_to_zero_and_back(system: System) -> None:
    key = system.deploy("cycle", "--idle-timeout", "1", "--slots", "16")
    url = ["--url", f"{system.api.url}/e/cycle", "--ca", str(system.paths.ca_cert)]
    command = [*LOADTEST, "idle_cycle", "--seconds", "12", "--idle", "1", *url]
    done = subprocess.run(
        command, cwd=ROOT, env=system.environ | {"KEY": key}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = {start: int(count) for start, count in re.findall(r"^(cold|warm) +first token +(\d+)", done.stdout, re.M)}
    assert calls["cold"] >= 3 and calls["warm"] and "errors 0" in done.stdout, done.stdout
    starts = system.api.call("GET", "/cold-starts", params={"endpoint": "cycle"})["data"]
    assert starts and all(start["ok"] for start in starts)


def test_the_page_is_opened_on_loopback_and_ctrl_c_ends_it(system: System) -> None:
    key = system.deploy("watched", "--idle-timeout", "30")
    command = [*LOADTEST, "steady", "--ui", "--url", f"{system.api.url}/e/watched", "--ca", str(system.paths.ca_cert)]
    process = subprocess.Popen(command, cwd=ROOT, env=system.environ | {"KEY": key}, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        page = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))

        def shown() -> bool:
            try:
                with urllib.request.urlopen(page, timeout=5) as answer:
                    return b"Locust" in answer.read()
            except OSError:
                return False

        wait_until(shown, 30, "locust's page")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()

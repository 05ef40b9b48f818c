"""`make loadtest SCENARIO=wake`: users at an endpoint, measured as they see it, beside `slo.toml`; exit code 1 where
that is not kept.

    python -m loadtests [SCENARIO] [--seconds N] [--ui] [--url URL [--ca FILE]] python -m loadtests ledger      kills
    everything again and again, and holds every row against what was made (`torture/`)

Without a URL an installation of its own is started on a temporary folder, and removed. Locust runs in a child: gevent,
which it puts in the place of Python's sockets, never gets in here. A Ctrl-C ends everything in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from loadtests.bench.installation import running
from loadtests.figures import Sample, table, violations
from loadtests.torture.run import FULL, torture
from pilotlight import settings
from pilotlight.ports import free_port

HERE = Path(__file__).parent
DEMO_MODEL = HERE.parent / "snapshots" / "demo" / "model"
ENDPOINT = "load"
STOP_SECONDS = 30.0  # for calls that are under way when the time is over


class Scenario(NamedTuple):
    user: str  # its class in locustfile.py
    users: int
    seconds: float
    idle_seconds: float
    waits_for_zero: bool = False  # its calls meet an endpoint that has gone to zero meanwhile

    def given(self, *, seconds: float, idle: float) -> Scenario:
        """As asked for; 0: its own. One that waits for zero takes as many times longer as that takes longer. Pure."""
        stretched = self.seconds * max(1.0, idle / self.idle_seconds) if self.waits_for_zero else self.seconds
        return self._replace(seconds=seconds or stretched, idle_seconds=idle or self.idle_seconds)


SCENARIOS = {
    "wake": Scenario("Wake", users=50, seconds=30, idle_seconds=1, waits_for_zero=True),
    "steady": Scenario("Steady", users=8, seconds=30, idle_seconds=30),
    "idle_cycle": Scenario("IdleCycle", users=3, seconds=40, idle_seconds=1, waits_for_zero=True),
}


TORTURE = "ledger"  # no users and no limits: rows, and an oracle


class Target(NamedTuple):
    url: str  # ends in /v1
    key: str
    model: str
    ca: str  # a file, "": what the system trusts


@asynccontextmanager
async def own(idle_seconds: float) -> AsyncIterator[Target]:
    """An installation of its own, with the demo model at zero."""
    say("starting an installation")
    async with running() as bench:
        key = await bench.deploy(ENDPOINT, DEMO_MODEL, idle_timeout_seconds=idle_seconds, slots=16)
        yield Target(f"{bench.api.url}/e/{ENDPOINT}/v1", key, ENDPOINT, bench.api.ca_file)


def given(url: str, key: str, model: str, ca: str) -> Target:
    """One that is up already: its endpoint's URL, with or without /v1, or the host's with `--model`."""
    url = url.rstrip("/").removesuffix("/v1")
    before, found, name = url.partition("/e/")
    if not before.startswith(("https://", "http://")) or not (found or model):
        raise SystemExit("URL must look like https://HOST:PORT/e/NAME, or be the host's and MODEL name the endpoint")
    kept = settings.load().paths.ca_cert  # of the installation on this machine, if there is one
    return Target(f"{url}/v1", key, model or name, ca or (str(kept) if os.access(kept, os.R_OK) else ""))


async def locust(target: Target, name: str, scenario: Scenario, *, ui: bool, port: int, samples: Path) -> int:
    """Run it to its end; returns its exit code, of which failed calls are not a part."""
    ours = {"LOAD_URL": target.url, "LOAD_KEY": target.key, "LOAD_MODEL": target.model, "LOAD_CA": target.ca}
    ours |= {"LOAD_SCENARIO": name, "LOAD_IDLE_SECONDS": str(scenario.idle_seconds), "LOAD_SAMPLES": str(samples)}
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(HERE / "locustfile.py"),
        scenario.user,
        "--users",
        str(scenario.users),
    ]
    command += [
        "--spawn-rate",
        str(scenario.users),
        "--stop-timeout",
        str(int(STOP_SECONDS)),
        "--exit-code-on-error",
        "0",
    ]
    command += ["--host", target.url, "--loglevel", "WARNING"]
    if ui:
        command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
    else:
        command += ["--headless", "--only-summary", "--run-time", f"{scenario.seconds:g}s"]
    quiet = None if ui else asyncio.subprocess.DEVNULL  # its own summary mixes cold and warm
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=HERE.parent,
        env=os.environ | ours,
        stdout=quiet,
        stderr=quiet and asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = await child.communicate()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            await child.wait()
    if child.returncode:
        say(f"locust ended with {child.returncode}: {(said or b'').decode(errors='replace')[-2000:]}")
    return child.returncode or 0


async def run(options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    scenario = SCENARIOS[options.scenario]
    scenario = scenario.given(seconds=options.seconds or 0.0, idle=options.idle or 0.0)
    async with contextlib.AsyncExitStack() as stack:
        samples = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pl-load-"))) / "samples.jsonl"
        if options.url:
            target = given(options.url, options.key, options.model, options.ca)
        else:
            target = await stack.enter_async_context(own(scenario.idle_seconds))
        port = free_port()
        where = (
            f"locust's page: http://127.0.0.1:{port} (Ctrl-C ends it)" if options.ui else f"for {scenario.seconds:g} s"
        )
        say(f"{options.scenario}: {scenario.users} users at {target.url}, {where}")
        code = await locust(target, options.scenario, scenario, ui=options.ui, port=port, samples=samples)
        if options.ui or code:
            return code
        found = [Sample(*json.loads(line)) for line in samples.read_text().splitlines()]
    return judge(options.scenario, found)


async def torment() -> int:
    """The torture of the ledger, whole; 1 where a row is lost, double or wrong."""
    say(f"{TORTURE}: {FULL.calls} calls, {len(FULL.steps)} kills, about ten minutes")
    verdict = await torture(FULL)
    for name, figure in verdict.figures.items():
        print(f"{name:28}{figure:>12,}", flush=True)
    for fault in verdict.faults[:20]:
        say(f"wrong: {fault}")
    say("rows and oracle differ" if verdict.faults else "every row is what was made")
    return 1 if verdict.faults else 0


def judge(name: str, samples: list[Sample]) -> int:
    """Print what was found; 1 where the limits are not kept."""
    print(table(samples), flush=True)
    for error in sorted({sample.error for sample in samples if sample.error})[:10]:
        say(f"error: {error}")
    broken = violations(tomllib.loads((HERE / "slo.toml").read_text())[name], samples)
    for sentence in broken:
        say(f"not kept: {sentence}")
    say("the limits of loadtests/slo.toml are not kept" if broken else "the limits of loadtests/slo.toml are kept")
    return 1 if broken else 0


def say(text: str) -> None:
    print(f"loadtest: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", choices=[*SCENARIOS, TORTURE], default="wake")
    parser.add_argument("--seconds", type=float, default=0, help="how long; 0: as long as the scenario needs")
    parser.add_argument(
        "--idle",
        type=float,
        default=0,
        help="the endpoint's idle timeout in seconds; a scenario that waits for zero takes longer with a longer one",
    )
    parser.add_argument("--ui", action="store_true", help="open locust's page on loopback instead")
    parser.add_argument("--url", default="", help="an endpoint that is up already")
    parser.add_argument(
        "--key", default=os.environ.get("KEY", ""), help="its API key; better in the environment, as KEY"
    )
    parser.add_argument("--ca", default="", help="the CA file `pilotlight up` prints")
    parser.add_argument("--model", default="", help="its name, where the URL does not end in it")
    options = parser.parse_args()
    if options.url and not options.key:
        parser.error("a URL needs a key: KEY=pl_…")
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        return asyncio.run(torment() if options.scenario == TORTURE else run(options))
    return 130


if __name__ == "__main__":
    sys.exit(main())

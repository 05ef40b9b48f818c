"""A replica's first and last lines: from the fork to the engine, and the engine's failure to the agent. Step 8.

The child of a fork shares everything with its standby until it says otherwise. Before anything of vLLM runs it makes a
session, a folder, streams and signals of its own. There is no `exec`: its pid and start time are sent at once, and are
its identity until it is reaped.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from typing import TYPE_CHECKING, NoReturn

from runtime.control import Born, Control, Failed, Fork
from runtime.errors import CanaryMismatch
from runtime.failure import failure
from runtime.reap import Identity
from runtime.serving import log_marks
from runtime.serving.phases import Phases

if TYPE_CHECKING:
    from runtime.engine.rehearsed import Rehearsal


def run(rehearsal: Rehearsal, fork: Fork, control: Control) -> NoReturn:
    """Called in the child right after the fork; never returns."""
    status = 1
    try:
        os.setsid()
        _own_streams(fork)
        os.chdir(fork.folder)
        identity = Identity.of(os.getpid())
        assert identity is not None
        if not control.send(Born(pid=identity.pid, start_time=identity.start_time)):
            os._exit(status)  # the agent is gone, or wants it no more: nobody would watch what is built now
        phases = Phases(control)
        phases.add("spawn", fork.asked_at)
        from runtime.engine.serving import serve

        serve(rehearsal, fork, control, phases, time.monotonic())
        status = 0
    except BaseException as error:
        traceback.print_exc()
        control.sock.setblocking(True)
        control.send(Failed(reason=failure(error), mismatch=isinstance(error, CanaryMismatch)))
    finally:
        os._exit(status)


def _own_streams(fork: Fork) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    log = os.open(fork.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    log_marks.say(fork.replica_id, "API server")

"""The standby: a process that has imported and rehearsed the engine, and starts replicas by forking. Step 8.

    started ──► imported and rehearsed ──Rehearsed──► attending ──Fork──► child: a replica (`child.py`)
        │ Failed                                         │     ──Check──► child: looks at arguments, answers, ends
        ▼                                                │     ──Ask────► Beat
      ended                                              └──the agent's end of the socket is closed──► ended

It is single-threaded and blocking, with no event loop in it. A fork copies only the thread that forks, so anything else
alive here would be a lock held for ever in a replica. When the agent is gone it goes too. Its own death leaves its
replicas running: they are sessions of their own, and the agent, as their subreaper, inherits them.

    python -m runtime.fork.standby CONTROL_FD REHEARSAL_MODEL
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.process_death import end_with_parent
from runtime.control import Ask, Beat, Check, Control, Exited, Failed, Fork, Rehearsed, ToReplica, ToStandby
from runtime.fork import child, give_back

if TYPE_CHECKING:
    from runtime.engine.rehearsed import Rehearsal


def main(control_fd: int, model: Path) -> int:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = Control(socket.socket(fileno=control_fd), ToStandby)
    begin = time.monotonic()
    try:
        from runtime.engine import versions

        versions.check_installed(os.environ)
        from runtime.engine.rehearsed import check_forkable, rehearse

        rehearsal = rehearse(model)
        import runtime.engine.checking
        import runtime.engine.serving  # noqa: F401  (for the forks)

        threads = check_forkable(rehearsal.device)
        give_back.give_back()
    except BaseException as error:
        control.send(Failed(reason=f"{type(error).__name__}: {error}"))
        raise
    control.send(
        Rehearsed(
            engine="vllm",
            version=rehearsal.version,
            device=rehearsal.device,
            seconds=time.monotonic() - begin,
            private_bytes=give_back.private_bytes(),
            threads=threads,
        )
    )
    gc.disable()  # a collection would touch, and so copy, every page shared with the forks
    attend(rehearsal, control)
    return 0


def attend(rehearsal: Rehearsal, control: Control) -> None:
    """Fork when told, report who died, until the agent is gone. Raises Unforkable rather than fork with a thread
    alive.
    """
    from runtime.engine.rehearsed import check_forkable
    from runtime.engine.threads import Unforkable

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control.sock, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for fd, _event in poll.poll():
            if fd == woken:
                os.read(woken, 4096)
                collect_children(control)
                continue
            got = control.receive()
            if got is None:
                return
            if isinstance(got[0], Ask):
                control.offer(Beat())
                continue
            try:
                check_forkable(rehearsal.device)
            except Unforkable as error:  # the agent asks another one
                control.send(Failed(reason=str(error)))
                raise
            if isinstance(got[0], Check):
                check(rehearsal, got[0], control)
            else:
                fork(rehearsal, got[0], got[1][0], control, (woken, wake))


def check(rehearsal: Rehearsal, order: Check, control: Control) -> None:
    """In a child, which answers for itself: nothing of the standby changes."""
    if os.fork() == 0:
        signal.set_wakeup_fd(-1)
        from runtime.engine import checking

        checking.answer(rehearsal, order, control)


def fork(rehearsal: Rehearsal, order: Fork, control_fd: int, control: Control, pipe: tuple[int, int]) -> None:
    if os.fork() == 0:
        signal.set_wakeup_fd(-1)
        control.close()
        for fd in pipe:
            os.close(fd)
        gc.enable()
        child.run(rehearsal, order, Control(socket.socket(fileno=control_fd), ToReplica))
    os.close(control_fd)


def collect_children(control: Control) -> None:
    """Collect every child that has died and tell the agent, whose children they are not."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.send(Exited(pid=pid, status=status))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))

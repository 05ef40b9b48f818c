"""`python -m router.ledger`: one a router machine. Serves the policy, settles the spool. Steps 2 and 12.

kill -9 at any moment loses nothing: what it knows is in Postgres or still on disk. SIGTERM: what is on disk is settled,
for at most five seconds; the rest is for the next start.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable

import uvloop

from pilotlight import logs, settings
from pilotlight.exposition import Exposition
from pilotlight.frames import serve
from pilotlight.tasks import Tasks
from pilotlight.watchdog import Notifier
from router.ledger import metrics
from router.ledger.corrections import Corrections
from router.ledger.follow import Follower
from router.ledger.join import Join
from router.ledger.policy import Policies
from router.ledger.postgres import Calls, Database, Listener
from router.ledger.server import LedgerServer
from router.ledger.settle import Settler
from router.ledger.shelf import Shelf
from router.ledger.store import LedgerStore
from router.ledger.tail import Tail
from router.ledger.waits import Waits, asking
from router.ledger.wire import ToLedger
from router.ledger.worker_locks import Workers

UNUSED_SECONDS = 30.0  # settling follows an answer; it may wait for a connection


async def run(given: settings.Settings) -> None:
    paths, stop = given.paths, asyncio.Event()
    paths.make()
    Notifier.of_starter().keep()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = Database(given, application="ledger", unused=UNUSED_SECONDS)
    store, join, tail = LedgerStore(database), Join(), Tail(paths.spool)
    workers = Workers(locked=tail.is_locked, keeps_locks=tail.keeps_locks)
    policies = Policies(file=paths.policy, load=store.live_keys, find=store.find_keys, mark=store.mark_keys)
    shelf = Shelf(paths.spool)
    settler = Settler(join=join, store=store, reject=tail.reject, shelf=shelf)
    ask, longest = asking(paths.address("activator")), given.ledger.journal_wait_seconds
    waits = Waits(join=join, store=store, ask=ask, settle=settler.wake, longest=longest)
    follower = Follower(tail=tail, join=join, workers=workers, settle=both(settler.wake, waits.wake))
    settler.on_settled = follower.wake
    arrived, prices = waits.journal_arrived, settler.prices_changed
    handlers: Calls = {"policy": [policies.invalidate, lambda _: prices()], "journal": [lambda _: arrived()]}
    listener = Listener(database, on_notify=handlers, on_connect=[policies.invalidate, prices, arrived])
    async with Tasks() as tasks:
        for work in (
            listener.run,
            policies.run,
            settler.run,
            settler.run_unpriced,
            waits.run_look_up,
            waits.run_word,
            Corrections(store, every=given.ledger.correction_seconds).run,
        ):
            tasks.spawn(work(), name=work.__qualname__)
        following = tasks.spawn(follower.run(), name="follow")
        greeter = LedgerServer(policies=policies, workers=workers, spooled=follower.wake)
        server = await serve(paths.address("ledger"), ToLedger, greeter.greet)
        exposition = Exposition(
            lambda: metrics.collect(
                keys=len(policies.keys),
                workers=greeter.connected,
                waiting=len(join.waiting),
                unpriced=shelf.count,
                settled=store.settled,
                corrected=store.corrected,
                rejected=tail.rejected,
            )
        )
        await exposition.on_socket(paths.metrics("ledger"))
        await stop.wait()
        server.close()
        exposition.close()
        following.cancel()
        await follower.finish()
    await database.close()


def both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 100)  # records make no cycles: looking for some was a quarter of the time
    logs.configure("ledger")
    uvloop.run(run(settings.load()))

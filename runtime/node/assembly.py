"""The parts of a node's agent, made in the order in which they stand on each other. Step 7; composition only.

Everything is made once the node is taken over (`take_over.py`): counts end the journals that a dead agent left, and
staging sweeps its disk.
"""

from __future__ import annotations

import socket
from pathlib import Path

import snapshots
from pilotlight.settings import Settings
from runtime.node.agent import Agent, Parts
from runtime.node.background import Background
from runtime.node.deploy_checks import DeployChecks
from runtime.node.last_counts import Counts
from runtime.node.peers import Peers
from runtime.node.replicas import Replicas
from runtime.node.staging import Staging
from runtime.node.standby import StandbyProgram
from runtime.node.standby_environment import standby_environ
from runtime.node.standby_orders import ForkOrders
from runtime.node.standby_pool import StandbyPool
from runtime.node.standby_watch import StandbyWatch
from runtime.node.supervisor import ReplicaSupervisor
from runtime.node.usage_reports import UsageReports
from runtime.node.usage_shipper import UsageShipper
from runtime.node.watermark import Watermark
from runtime.wire import EngineEnvironment

REHEARSAL_MODEL = Path(snapshots.__file__).parent / "demo" / "model"


def assemble(settings: Settings, environment: EngineEnvironment) -> Agent:
    """An agent whose standbys are starting. Raises OSError."""
    paths, runtime = settings.paths, settings.runtime
    peers = Peers()
    background = Background()
    replicas = Replicas(peers.tell)
    staging = Staging.of(settings, in_use=replicas.digests)
    checks = DeployChecks(device=environment.device, settings=runtime)
    program = StandbyProgram(
        model=REHEARSAL_MODEL,
        environ=standby_environ(settings, environment.device),
        log_file=paths.logs / "standby.log",
        module=runtime.standby_module,
    )
    standbys = StandbyPool(
        count=runtime.standbys,
        launch=program.launch,
        on_change=peers.tell,
        on_checked=lambda checked: peers.tell(checks.answer(checked)),
    )
    orders = ForkOrders(standbys)
    counts = Counts(paths.journal)
    shipper = UsageShipper(paths.journal, peers.post_usage, unended=counts.unwritten)
    watermark = Watermark(shipper=shipper, counts=counts, living=replicas.born_ids)
    supervisor = ReplicaSupervisor(
        replicas,
        orders=orders,
        staging=staging,
        shipper=shipper,
        watermark=watermark,
        environment=environment,
        paths=paths,
        settings=runtime,
        background=background,
    )
    parts = Parts(
        peers=peers,
        replicas=replicas,
        supervisor=supervisor,
        standbys=standbys,
        orders=orders,
        standby_watch=StandbyWatch(
            standbys,
            background,
            silent_seconds=runtime.silent_seconds,
            rehearsal_seconds=runtime.rehearsal_seconds,
        ),
        staging=staging,
        usage=UsageReports(shipper=shipper, counts=counts, watermark=watermark),
        checks=checks,
    )
    standbys.fill()
    return Agent(node_id=socket.gethostname(), environment=environment, paths=paths, parts=parts)

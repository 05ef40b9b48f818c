"""`python -m activator`: starts the control plane. Composition only. Steps 6, 7 and 10."""

from __future__ import annotations

import sys

import structlog
import uvloop

from activator.errors import LeadershipLost
from activator.launchers.process import ProcessLauncher
from activator.service import lead
from pilotlight import logs
from pilotlight.database.errors import DatabaseError
from pilotlight.settings import SettingsError, load

EXIT_USAGE = 2  # settings: starting it again does not help
EXIT_AGAIN = 75  # EX_TEMPFAIL: start it again, and it waits in line

log = structlog.get_logger()


def main() -> int:
    logs.configure("activator")
    try:
        settings = load()
    except SettingsError as error:
        log.error(str(error), action="bad_settings")
        return EXIT_USAGE
    code = 0
    try:
        uvloop.run(lead(settings, ProcessLauncher.of(settings)))
    except* LeadershipLost as lost:
        log.warning("leadership lost", action="leadership_lost", reason=str(lost.exceptions[0]))
        code = EXIT_AGAIN
    except* DatabaseError as away:
        log.error("no database", action="no_database", reason=str(away.exceptions[0]))
        code = EXIT_AGAIN
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Pilotlight's ground floor, which every part stands on, and on the top floor its command line.

structlog imports rich where it finds it, to draw tracebacks in colours: 80 modules and 4 MB that no service uses. So it is
imported here, before anything else does, as if there were none; every package of ours imports this one first. Who wants
rich later has it.
"""

import sys

if not {"structlog", "rich"} & sys.modules.keys():
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401

    del sys.modules["rich"]

"""Logs: one JSON object a line on stderr, or readable lines where stderr is a terminal. Every process calls `configure`
first.

Log with `structlog.get_logger()`, a short sentence, `action=` and ids; never prompts, completions or keys. Should a key
slip in all the same, what leaves the process has its random part cut out. What libraries say through `logging`
(uvicorn, asyncio's lost exceptions) comes out in the same form. A broken stderr must not stop a process: lines are
lost.
"""

from __future__ import annotations

import logging
import os
import re
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_KEY = re.compile(r"(pl_[0-9A-Za-z]{2})[0-9A-Za-z]{24}(?=[0-9A-Za-z]{4})")


def configure(process: str, *, level: int = logging.INFO) -> None:
    """Set up logging for this process; `process` ("router", "activator", …) stands in every line. Repeating it is
    harmless.
    """

    def name_process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_process,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(foreign_pre_chain=shared, processors=_render(sys.stderr.isatty())))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a request otherwise
    logging.raiseExceptions = False  # a closed stderr is not worth a traceback on that same stderr
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _render(terminal: bool) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if terminal:
        # Plain tracebacks: the default prints local variables, and those are prompts.
        plain = structlog.dev.plain_traceback
        return [
            strip,
            structlog.dev.ConsoleRenderer(
                timestamp_key="time", colors="NO_COLOR" not in os.environ, exception_formatter=plain
            ),
        ]
    return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return _KEY.sub(r"\1…", super().format(record))

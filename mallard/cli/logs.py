"""How the server's log looks: a line an event, as text or as JSON.

Invariant: no address, User-Agent or query string of a visitor gets in. Mallard's own modules log
none, there is no access log, and libraries are heard from "info" on only.
"""

from __future__ import annotations

import logging
import sys
import time

import orjson

from mallard.config import LogConfig

# They say at "info" what the start banner and our own lines say already.
_QUIET = ("uvicorn", "uvicorn.error", "asyncio")


class _Line(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class _TextLine(_Line):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _JsonLine(_Line):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def set_up(config: LogConfig) -> None:
    """Send this process's log to standard error in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine() if config.format == "json" else _TextLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("mallard").setLevel(config.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)

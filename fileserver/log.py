"""The log: one line an event, as JSON or for people, with everything that could be a secret struck out.

Lines of libraries (standard `logging`) take the same way. Log what happened and the names of things; never bytes of
a file, never a credential.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from fileserver.errors import InvalidSpec

STRUCK: Final = "[struck]"

_SECRET_NAMES: Final = re.compile(
    r"(?i)(secret|password|passwd|access_?key|account_?key|authorization|cookie|credential|signature|session_?token"
    r"|\btoken\b|\bsas\b)"
)
_QUERY: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?#\"'<>]*)\?[^\s\"'<>]*")
_USER: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@")
_ASSIGNED: Final = re.compile(
    r"(?i)\b([\w-]*(?:secret|password|passwd|access_?key|authorization|cookie|signature)[\w-]*[\"']?\s*[=:]\s*)"
    r"(?:(?:bearer|basic|aws4-hmac-sha256)\s+)?[\"']?[^\s\"',;&}]+[\"']?"
)
_WEB_TOKEN: Final = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*")  # a JSON object in base64 begins so


def strike(text: str) -> str:
    """The text without query strings and user names of URLs, tokens, and values that are named like secrets."""
    text = _QUERY.sub(rf"\1?{STRUCK}", text)
    text = _WEB_TOKEN.sub(STRUCK, text)
    text = _USER.sub(rf"\1{STRUCK}@", text)
    return _ASSIGNED.sub(rf"\1{STRUCK}", text)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return strike(value)
    if isinstance(value, dict):
        return {k: STRUCK if _SECRET_NAMES.search(str(k)) else _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return strike(str(value))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The structlog processor before the renderer: nothing that looks like a secret gets past it."""
    return {k: STRUCK if _SECRET_NAMES.search(k) else _clean(v) for k, v in event.items()}


def configure(level: str = "info", output: Literal["json", "console"] = "json", file: Path | None = None) -> None:
    """Set up logging for this process, once more if called again.

    Args:
        level: "debug", "info", "warning" or "error".
        output: one JSON object a line, or lines for people.
        file: appended to; standard error if None.

    Raises:
        InvalidSpec: the file can't be written.
    """
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if output == "json"
        else structlog.dev.ConsoleRenderer(colors=file is None and sys.stderr.isatty())
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = _appending(file) if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _appending(file: Path) -> logging.FileHandler:
    try:
        return logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        what = f"{file} cannot be written ({error.strerror}): name a file in a folder that is there and yours"
        msg = f"log.file: {what}"
        raise InvalidSpec(msg, {"log.file": what}, path=str(file)) from error

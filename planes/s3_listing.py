"""Pages of a listing, read from XML by the standard library: the SDK's own way costs 0.13 ms for each object.

Through the SDK's `before-parse` event: it still signs, sends, parses the rest of the page and raises. Measured with
pages of 1000: 0.03 ms for each object.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree as ET

from botocore.hooks import BaseEventHooks

_FIELDS: Final = ("Key", "LastModified", "ETag", "Size")


def register(events: BaseEventHooks) -> None:
    """Let the client of these events read its listings this way."""
    events.register("before-parse.s3.ListObjectsV2", _read)


def _read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Take the objects out of a page; what cannot be understood is left to the SDK."""
    if response_dict["status_code"] != 200:
        return
    try:
        # The store is one that we sign our requests to, and expat (2.4.1 and later) bounds what entities may expand to.
        page = ET.fromstring(response_dict["body"])  # noqa: S314
        space = page.tag[: page.tag.index("}") + 1] if "}" in page.tag else ""
        found = page.findall(f"{space}Contents")
        contents = [_object(each, space) for each in found]
    except (ET.ParseError, KeyError, ValueError, TypeError):
        return
    for each in found:
        page.remove(each)
    response_dict["body"] = ET.tostring(page)
    customized_response_dict["Contents"] = contents


def _object(element: ET.Element, space: str) -> dict[str, Any]:
    """One object as the SDK has it, as far as a plane looks at it."""
    key, modified, etag, size = (element.findtext(space + name) for name in _FIELDS)
    if key is None or modified is None or etag is None or size is None:
        raise KeyError
    return {"Key": key, "LastModified": datetime.fromisoformat(modified), "ETag": etag, "Size": int(size)}

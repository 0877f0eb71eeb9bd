"""Names of logical files and the keys of their parts. Pure; asks nobody.

A logical name is `scope::scope::name`. It is normalised as HPCC Systems does: lower case, no space around the
elements. The key of a part is `<scope>/<name>/~<generation>/<name>._<p>_of_<n>`, so that generations never overwrite
each other; what a path cannot hold becomes %XX.
"""

from __future__ import annotations

import re
from typing import Final

from fileserver.errors import InvalidSpec

MANIFEST: Final = "_manifest.json"
"""Written beside the parts of a generation, last."""

_PLAIN: Final = re.compile(r"[^a-z0-9_.+=@()\- \u0080-\U0010ffff]")
_LONGEST: Final = 180  # of 255 bytes: room for the part suffix and for the prefix of temporary names


def normalise(name: str) -> str:
    """The one spelling of a logical name.

    Raises:
        InvalidSpec: the name is empty, has an empty element, an element that begins with `~`, or one that is too long.
    """
    elements = [element.strip().lower() for element in name.split("::")]
    for element in elements:
        if not element:
            msg = f"{name!r} is not a logical name: write scope::name, no element may be empty"
        elif element.startswith("~"):
            msg = f"{name!r} is not a logical name: no element may begin with ~"
        elif any(ord(c) < 32 or ord(c) == 127 for c in element):
            msg = f"{name!r} is not a logical name: it holds a control character"
        elif len(_quote(element).encode("utf-8", "surrogateescape")) > _LONGEST:
            msg = f"{name!r} is not a logical name: {element[:20]}… is longer than {_LONGEST} bytes"
        else:
            continue
        raise InvalidSpec(msg, {"file": msg}, name=name)
    return "::".join(elements)


def folder(name: str, generation: str) -> str:
    """The key of a generation's folder, without a trailing slash; `name` is normalised."""
    return "/".join([*map(_quote, name.split("::")), f"~{generation}"])


def part_key(name: str, generation: str, number: int, count: int) -> str:
    """The key of a part; `name` is normalised, `number` counts from 1."""
    last = _quote(name.rsplit("::", 1)[-1])
    return f"{folder(name, generation)}/{last}._{number}_of_{count}"


def _quote(element: str) -> str:
    quoted = _PLAIN.sub(lambda m: f"%{ord(m.group()):02X}", element)
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted

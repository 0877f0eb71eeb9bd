"""Facts in words for people: sizes, counts, and the last line of a transfer. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from client.errors import rename
from client.spool import is_spooled
from client.words import STDIN
from fileserver.v1 import transfer_pb2 as wire

_Value = TypeVar("_Value", bound=int)

_RUNS = 20  # of part numbers that are named for people; `--json` has all
_UNITS = ("KB", "MB", "GB", "TB", "PB", "EB")


def clean(text: str) -> str:
    """The text without anything that a terminal would obey; lines stay lines."""
    return "".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def count(number: int, noun: str) -> str:
    """`1 part`, `8 parts`, `1,000 parts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: float) -> str:
    """Bytes in decimal units with three digits: `999 bytes`, `31.0 MB`, `1.05 GB`."""
    if number < 1000:
        return count(round(number), "byte")
    value, unit = number, ""
    for unit in _UNITS:  # noqa: B007  # the last unit is used after the loop
        value /= 1000
        if value < 999.5:
            break
    return f"{value:.{_decimals(value, 3)}f} {unit}"


def rate(number: float) -> str:
    """Bytes a second in decimal units with two digits: `77 MB/s`, `1.2 GB/s`."""
    value, unit = number, "B"
    for larger in _UNITS:
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.{_decimals(value, 2)}f} {unit}/s"


def _decimals(value: float, digits: int) -> int:
    """How many decimals give so many digits, once the value is rounded to them."""
    before = 1
    while value >= 10**before - 0.5 * 10 ** -(max(digits - before, 0)):
        before += 1
    return max(digits - before, 0)


def seconds(number: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if number < 9.95 or not math.isfinite(number):
        return f"{number:.1f} s"
    whole = round(number)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def state(value: wire.Transfer.State.ValueType) -> str:
    """`SUCCEEDED` of STATE_SUCCEEDED; a state of a newer server is its number."""
    return named(wire.Transfer.State.Name, value).removeprefix("STATE_")


def named(name: Callable[[_Value], str], value: _Value) -> str:
    """A word of an enum of the wire, by the enum's `Name`; one of a newer server is its number."""
    try:
        return name(value)
    except ValueError:
        return str(value)


def verb(transfer: wire.Transfer) -> str:
    """`spray`, `despray`, `copy`, `replicate`, `sync` or `ingest`; empty for a verb of a newer server."""
    return transfer.spec.WhichOneof("verb") or ""


def target(transfer: wire.Transfer) -> str:
    """What the transfer writes: a logical name, plane:key, or a domain's path; empty for a verb of a newer server."""
    spec = transfer.spec
    targets: dict[str, str | wire.Location] = {
        "spray": spec.spray.file,
        "despray": spec.despray.target,
        "copy": spec.copy.new_file,
        "replicate": spec.replicate.file,
        "sync": spec.sync.target,
        "ingest": spec.ingest.domain,
    }
    found = targets.get(verb(transfer), "")
    return found if isinstance(found, str) else location(found)


def names(transfer: wire.Transfer) -> dict[str, str]:
    """What messages about a transfer should be given to `client.errors.rename`: our copy of standard input is that."""
    return {source.key: STDIN for source in transfer.spec.spray.sources if is_spooled(source.key)}


def warnings(transfer: wire.Transfer) -> list[str]:
    """The warnings of a transfer."""
    return [rename(warning, names(transfer)) for warning in transfer.warnings]


def location(place: wire.Location) -> str:
    """`plane:key`, or the path on this machine; the server keeps the key of such a one without its first slash."""
    return f"/{place.key.removeprefix('/')}" if place.plane == "local" else f"{place.plane}:{place.key}"


def routes(outcome: wire.Outcome) -> list[str]:
    """Which parts took which route, and why: `parts 1-3, 7 copied whole (one request copies the whole object)`."""
    lines = []
    for taken in outcome.routes:
        runs = [f"{run.first}" if run.first == run.last else f"{run.first}-{run.last}" for run in taken.parts]
        named = ", ".join(runs[:_RUNS]) + (", …" if len(runs) > _RUNS else "")
        noun = "object" if outcome.HasField("sync") else "part"
        which = f"{'part' if taken.part_count == 1 else 'parts'} {named}" if runs else count(taken.part_count, noun)
        lines.append(f"{which} {taken.route} ({taken.why})")
    return lines


def summary(transfer: wire.Transfer) -> str:
    """The last line of a transfer that succeeded: what, how fast, by which way, and what it proves."""
    outcome = transfer.outcome
    if verb(transfer) == "sync":
        return _synced(outcome)
    if verb(transfer) == "ingest":
        return _ingested(outcome)
    what = "1 file" if verb(transfer) == "despray" else count(transfer.progress.parts_total, "part")
    speed = f" ({rate(outcome.size / outcome.seconds)})" if outcome.seconds > 0 and outcome.size else ""
    route = f"; {outcome.route}" if outcome.route else ""
    return f"{what}, {size(outcome.size)} in {seconds(outcome.seconds)}{speed}{route}; evidence: {outcome.evidence}"


def _synced(outcome: wire.Outcome) -> str:
    done = outcome.sync
    others = ((done.equal, "equal"), (done.deleted, "deleted"), (done.failed, "failed"))
    counts = "".join(f", {number:,} {what}" for number, what in others if number)
    speed = f" ({rate(outcome.size / outcome.seconds)})" if outcome.seconds > 0 and outcome.size else ""
    rest = "".join(
        f"; {text}" for text in (outcome.route, outcome.evidence and f"evidence: {outcome.evidence}") if text
    )
    copied = count(done.copied, "object")
    return f"{copied} copied{counts}, {size(outcome.size)} in {seconds(outcome.seconds)}{speed}{rest}"


def _ingested(outcome: wire.Outcome) -> str:
    done = outcome.ingest
    if done.loaded and not (done.objects or done.partly or done.failed):
        return (
            f"nothing to load: {count(done.loaded, 'file')} {'is' if done.loaded == 1 else 'are'} in the domain already"
        )
    others = ((done.partly, "with exceptions"), (done.failed, "failed"))
    counts = "".join(f", {number:,} {what}" for number, what in others if number)
    speed = f" ({rate(outcome.size / outcome.seconds)})" if outcome.seconds > 0 and outcome.size else ""
    route = f"; {outcome.route}" if outcome.route else ""
    verified = f"; verified: {done.verified}" if done.verified else ""
    loaded = f"{count(done.loaded, 'file')} loaded{counts}, {count(done.objects, 'object')}"
    return f"{loaded}, {size(outcome.size)} in {seconds(outcome.seconds)}{speed}{route}{verified}"


def planned_sync(totals: wire.SyncTotals) -> str:
    """How much a sync would do: `3 objects to copy (12.3 MB), 1 to delete, 20 equal`."""
    sure, rest = totals.copy - totals.compare, totals.copy_bytes - totals.compare_bytes
    copies = f"{count(sure, 'object')} to copy ({size(rest)})"
    compares = f", {totals.compare:,} to be compared ({size(totals.compare_bytes)})" if totals.compare else ""
    fails = f", {totals.fail:,} will fail" if totals.fail else ""
    return f"{copies}{compares}, {totals.delete:,} to delete, {totals.equal:,} equal{fails}"

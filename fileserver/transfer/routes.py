"""The ways that bytes get into a part, cheapest first, with their names; the one place that has them. Pure.

Which way a part takes follows from its pieces, the plan's limits and what of the plan's routes was refused. Dry run,
execution and record ask here, so they say the same: a refusal discards all that was written and the manifest is packed
anew, so at the end every part has gone the way that the last plan gives.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fileserver.transfer.manifest import Extent, Literal, Part
from fileserver.transfer.plan import at_once, steps_of
from fileserver.transfer.record import Plan
from planes.pack import Step
from planes.plane import MIB

WHOLE: Final = "copied whole"
"""The provider copies a whole object by one request."""
RANGES: Final = "copied in ranges"
"""The provider copies byte ranges of its own objects."""
PULLED: Final = "pulled"
"""Azure fetches from S3, by an address that is signed for it."""
KERNEL: Final = "copied in the kernel"
"""The kernel moves bytes between files of its host."""
STREAMED: Final = "streamed"
"""Bytes are read and written by this machine."""
MIXED: Final = "mixed"
"""Some bytes of a part go one way, some another."""

BY_COST: Final = (WHOLE, RANGES, PULLED, KERNEL, STREAMED)
"""What is tried first comes first."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the bytes of a part go, and why so."""

    route: str
    why: str
    native: int
    """Bytes that the provider or the kernel copies."""
    through_us: int
    """Payload bytes that are read and written."""


def between(source: str, target: str) -> str:
    """The route by which planes of these kinds (as in `Ticket.kind`) copy ranges, if they can."""
    if source == "posix":
        return KERNEL
    return RANGES if source == target else PULLED


def copies(plan: Plan) -> Callable[[Extent], bool]:
    """Which extents the target copies itself, as steps of an upload."""
    return lambda e: plan.native.get(e.plane) == "" and e.of > plan.limits.min_copy_source


def copies_whole(plan: Plan) -> Callable[[str], bool]:
    """From which planes the target copies whole objects by one request."""
    return lambda plane: plan.whole.get(plane, plan.native.get(plane)) == ""


def steps(part: Part, plan: Plan) -> list[Step]:
    """The steps of a part: the same for whoever plans, writes, allows and proves."""
    return steps_of(part, plan.limits, copies(plan), plan.apart)


def close(plan: Plan, plane: str, route: str, why: str) -> Plan:
    """The plan without a route from a plane; only to copy whole and to copy ranges are refused each for itself."""
    if route == WHOLE:
        return replace(plan, whole={**plan.whole, plane: why})
    if route == RANGES:
        whole = {plane: plan.native.get(plane, why), **plan.whole}
        return replace(plan, native={**plan.native, plane: why}, whole=whole)
    return replace(plan, native={**plan.native, plane: why}, whole={**plan.whole, plane: why})


def without(plan: Plan, closed: Mapping[str, str], route: str) -> Plan:
    """The plan without a route from several planes, each for its reason."""
    for plane, why in closed.items():
        plan = close(plan, plane, route, why)
    return plan


def told(plane: str, route: str, why: str) -> str:
    """What the user is told of a route that was refused."""
    left = {WHOLE: f"{RANGES} where they are large enough, else {STREAMED}"}.get(route, STREAMED)
    return f"{plane}: {why}; what was to be {route or 'copied'} from there is {left}"


def route_of_step(plan: Plan, step: Step) -> str:
    """How one step of an upload goes."""
    return plan.means.get(step.pieces[0].source, RANGES) if step.native else STREAMED


def route_of_whole(plan: Plan, plane: str) -> str:
    """How a whole object comes from a plane by one request."""
    route = plan.means.get(plane, RANGES)
    return WHOLE if route == RANGES else route


def way_of(part: Part, plan: Plan) -> Way:
    """How a part goes under a plan."""
    found = steps(part, plan)
    if at_once(part, found, plan.limits, copies_whole(plan)) == "copy":
        plane = _extents(part)[0].plane
        route = route_of_whole(plan, plane)
        return Way(route, _reason(route, part, plan, plane), part.size, 0)
    reasons: dict[str, str] = {}
    for step in found:
        route = route_of_step(plan, step)
        if route not in reasons and route != STREAMED:
            reasons[route] = _reason(route, part, plan, step.pieces[0].source)
    streamed = [piece for step in found if not step.native for piece in step.pieces]
    if streamed or not reasons:
        reasons[STREAMED] = _streamed(part, plan, {piece.source for piece in streamed if piece.extent})
    native = sum(step.size for step in found if step.native)
    through = sum(piece.size for piece in streamed if piece.extent)
    if len(reasons) == 1:
        ((route, why),) = reasons.items()
        return Way(route, why, native, through)
    ordered = sorted(reasons.items(), key=lambda each: BY_COST.index(each[0]))
    return Way(MIXED, "; ".join(f"{route}: {why}" for route, why in ordered), native, through)


def _reason(route: str, part: Part, plan: Plan, plane: str) -> str:
    """Why a copy is what it is, and not a cheaper one."""
    if route == WHOLE:
        return "one request copies the whole object"
    if route == PULLED:
        return f"{plan.plane} fetches from {plane} by a signed address"
    if route == KERNEL:
        return "both are files of one host"
    refused = plan.whole.get(plane)
    if refused:
        return f"not whole: {refused}"
    if len(part.pieces) == 1 and _extents(part) and _extents(part)[0].whole:
        return "larger than one request copies well, so ranges of it are copied side by side"
    return "it is not one whole object"


def _streamed(part: Part, plan: Plan, sources: set[str]) -> str:
    """Why bytes have to travel."""
    found: dict[str, None] = {}
    for extent in _extents(part):
        if extent.plane not in sources:
            continue
        least = plan.limits.min_copy_source
        if why := plan.native.get(extent.plane, "no way to copy from there is known"):
            found[why] = None
        elif extent.of <= least:
            found[f"ranges are copied out of objects over {_size(least)} only"] = None
        elif plan.limits.min_step <= 1:
            found[f"more pieces than the {plan.limits.max_steps} steps of one object, so small ones are joined"] = None
        else:
            found[f"pieces too small for a copy of their own (below {_size(plan.limits.min_step)})"] = None
        if extent.whole and (refused := plan.whole.get(extent.plane)):
            found[refused] = None
    if not found:
        return "bytes that are added" if any(isinstance(p, Literal) for p in part.pieces) else "nothing to copy"
    return "; ".join(found)


def _extents(part: Part) -> list[Extent]:
    return [piece for piece in part.pieces if isinstance(piece, Extent)]


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size and size % MIB == 0 else f"{size} bytes"


@dataclass(frozen=True, slots=True)
class Taken:
    """A route, why it was taken, and by which parts: runs of their numbers, (first, last) each; size in bytes."""

    route: str
    why: str
    size: int
    part_count: int
    parts: Sequence[tuple[int, int]]


class Tally:
    """Adds up which route each part took: a few reasons, and for each the runs of part numbers.

    Parts come in order of their numbers. Adding is work for a thread: there may be many.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sizes: Counter[tuple[str, str]] = Counter()
        self._runs: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)

    def add(self, parts: Sequence[Part]) -> None:
        """Add the next parts."""
        for part in parts:
            way = way_of(part, self._plan)
            self._sizes[way.route, way.why] += part.size
            runs = self._runs[way.route, way.why]
            first = runs.pop()[0] if runs and runs[-1][1] == part.number - 1 else part.number
            runs.append((first, part.number))

    @property
    def taken(self) -> list[Taken]:
        """The routes so far, cheapest first."""
        return by_cost(
            Taken(*key, self._sizes[key], sum(last - first + 1 for first, last in runs), tuple(runs))
            for key, runs in self._runs.items()
        )


def by_cost(taken: Iterable[Taken]) -> list[Taken]:
    """Routes in order of their cost, cheapest first."""
    order = (*BY_COST, MIXED)
    return sorted(taken, key=lambda each: (order.index(each.route), each.why))


def phrase(routes: Sequence[Taken]) -> str:
    """How the parts went, in a phrase: "8 parts copied in ranges"; "5 parts copied whole, 3 streamed"."""
    counts: Counter[str] = Counter()
    for each in routes:
        counts[each.route] += each.part_count
    if not counts:
        return "0 parts"
    (route, count), *others = counts.items()
    first = f"{count} part{'s' if count != 1 else ''} {route}"
    return ", ".join([first, *(f"{number} {name}" for name, number in others)])

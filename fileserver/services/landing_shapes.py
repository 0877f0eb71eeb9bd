"""The messages of landing zones from our values and back, beside `shapes`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, get_args

from google.protobuf.duration_pb2 import Duration

from fileserver.auth import allow
from fileserver.errors import InvalidSpec, from_record, refuse
from fileserver.hdf5.hsds import address
from fileserver.landing.actions import domain_of
from fileserver.landing.watch import Arrival, Life, Load, Mode, Options, State, Watch
from fileserver.services.shapes import failure_message, moment
from fileserver.transfer.filters import problem, wanted
from fileserver.transfer.spec import Location
from fileserver.transfer.sync_plan import folder
from fileserver.v1 import landing_pb2 as pb
from fileserver.v1 import transfer_pb2

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MOST: Final = 1000
_LONGEST: Final = 30 * 24 * 3600.0
_MODES: Final[dict[int, Mode]] = {
    transfer_pb2.Ingest.MODE_UNSPECIFIED: "auto",
    transfer_pb2.Ingest.MODE_DIRECT: "direct",
    transfer_pb2.Ingest.MODE_REST: "rest",
    transfer_pb2.Ingest.MODE_LINK: "link",
}
assert set(_MODES.values()) == set(get_args(Mode))


def watch_of(message: pb.Watch, target: Callable[[str], str]) -> Watch:
    """A watch as it is asked for; `target` checks the name of an HSDS server.

    Raises:
        InvalidSpec: every field that is wrong.
        CallerDenied: who asks may not see that plane.
    """
    wrong: dict[str, str] = {}
    if not message.source.plane:
        wrong["watch.source"] = "a watch needs a plane, and a folder of it or nothing for all of it"
    allow(message.source.plane)
    options = _options(message, wrong)
    action = _load(message, target, wrong)
    prefix = folder(Location(message.source.plane, message.source.key))
    name = watch_id(message.name) or _named(message.source.plane, prefix, action)
    if not _NAME.fullmatch(name):
        wrong["watch.name"] = f"'{name}' is no name of a watch: up to 63 of a-z, 0-9, '.', '_' and '-'"
    refuse(wrong)
    return Watch(name, message.source.plane, prefix, options, action)


def watch_id(name: str) -> str:
    """The id of "watches/{id}", or of the id itself."""
    return name.removeprefix("watches/")


def _named(plane: str, prefix: str, action: Load) -> str:
    """The same name for the same source and folder, so that the same command is the same watch."""
    last = re.sub(r"[^a-z0-9._-]+", "-", (prefix.rstrip("/").rpartition("/")[2] or plane).lower()).strip("-._")
    digest = sha256(f"{plane}\0{prefix}\0{action.hsds}\0{action.folder}".encode()).hexdigest()[:6]
    return f"{last[:40] or 'watch'}-{digest}"


def _options(message: pb.Watch, wrong: dict[str, str]) -> Options:
    for field in ("include", "exclude"):
        for index, glob in enumerate(getattr(message, field)):
            if said := problem(glob):
                wrong[f"watch.{field}[{index}]"] = said
    if "/" in message.marker or message.marker.count("*") > 1 or message.marker == "*":
        wrong["watch.marker"] = "a marker is a name with at most one *, like *.done or _SUCCESS"
    usual = Options()
    return Options(
        tuple(message.include),
        tuple(message.exclude),
        _seconds(message, "settle", 0.0 if message.once or message.marker else usual.settle, 0.0, wrong),
        message.marker,
        _seconds(message, "interval", usual.every, 0.1, wrong),
        _number(message, "tries", usual.tries, wrong),
        _number(message, "at_once", usual.at_once, wrong),
        message.once,
    )


def _seconds(message: pb.Watch, field: str, usual: float, least: float, wrong: dict[str, str]) -> float:
    if not message.HasField(field):  # type: ignore[arg-type]  # one of the two fields that are durations
        return usual
    found: Duration = getattr(message, field)
    seconds = found.seconds + found.nanos / 1e9
    if not least <= seconds <= _LONGEST:
        wrong[f"watch.{field}"] = f"{field} is {least:g} s to 30 days"
    return seconds


def _number(message: pb.Watch, field: str, usual: int, wrong: dict[str, str]) -> int:
    value: int = getattr(message, field)
    if not 0 <= value <= _MOST:
        wrong[f"watch.{field}"] = f"{field} is 1 to {_MOST}, or 0 for {usual}"
    return value or usual


def _load(message: pb.Watch, target: Callable[[str], str], wrong: dict[str, str]) -> Load:
    load, path, hsds = message.load, "", ""
    try:
        path = address.parse(load.folder, "watch.load.folder")
        if path == "/":
            wrong["watch.load.folder"] = "domains do not lie at the top: name a folder like hdf5://home/user/folder/"
    except InvalidSpec as error:
        wrong |= error.violations
    try:
        hsds = target(load.target)
    except InvalidSpec as error:
        wrong["watch.load.target"] = error.message
    return Load(address.show(path), hsds, _MODES.get(load.mode, "auto"), load.public_read, load.overwrite)


def watch_message(watch: Watch, counts: Mapping[State, int] | None = None) -> pb.Watch:
    """A watch for the wire; without counts where they were not asked for."""
    options = watch.options
    message = pb.Watch(
        name=f"watches/{watch.name}",
        source=transfer_pb2.Location(plane=watch.plane, key=watch.prefix),
        include=options.include,
        exclude=options.exclude,
        settle=_duration(options.settle),
        marker=options.marker,
        interval=_duration(options.every),
        tries=options.tries,
        at_once=options.at_once,
        once=options.once,
        load=_load_message(watch.action),
        state=pb.Watch.State.Value(f"STATE_{Life(watch.state).name}"),
        create_time=moment(watch.created),
        look_time=moment(watch.looked),
        error=_failure(watch.error),
    )
    if counts is not None:
        message.counts.CopyFrom(pb.ArrivalCounts(**{state.value: count for state, count in counts.items()}))
    return message


def _load_message(load: Load) -> pb.LoadAction:
    mode = {name: number for number, name in _MODES.items()}[load.mode]
    return pb.LoadAction(
        folder=f"{load.folder}/",
        target=load.hsds,
        mode=transfer_pb2.Ingest.Mode.ValueType(mode),
        public_read=load.public_read,
        overwrite=load.overwrite,
    )


def arrival_message(watch: Watch, arrival: Arrival) -> pb.Arrival:
    """An arrival for the wire."""
    waits = arrival.state is State.SETTLED and arrival.not_before
    return pb.Arrival(
        watch=f"watches/{arrival.watch}",
        key=arrival.key,
        version=arrival.version,
        size=arrival.size,
        state=pb.Arrival.State.Value(f"STATE_{arrival.state.name}"),
        first_seen_time=moment(arrival.first_seen),
        last_seen_time=moment(arrival.last_seen),
        change_time=moment(arrival.changed),
        settle_time=moment(arrival.settled),
        start_time=moment(arrival.started),
        end_time=moment(arrival.ended),
        tries=arrival.tries,
        retry_time=moment(arrival.not_before) if waits else None,
        error=_failure(arrival.error),
        transfer=f"transfers/{arrival.transfer}" if arrival.transfer else "",
        loaded_version=arrival.loaded or "",
        domain=_domain(watch, arrival),
    )


def filter_of(message: pb.ArrivalFilter) -> tuple[list[State], Callable[[str], bool]]:
    """States and a test for keys; raises InvalidSpec for what is no state or no glob."""
    wrong: dict[str, str] = {}
    names = {value: name.removeprefix("STATE_") for name, value in pb.Arrival.State.items()}
    states = []
    for index, value in enumerate(message.states):
        if value and value in names:
            states.append(State[names[value]])
        else:
            wrong[f"filter.states[{index}]"] = "that is no state of an arrival"
    for index, glob in enumerate(message.keys):
        if said := problem(glob):
            wrong[f"filter.keys[{index}]"] = said
    refuse(wrong)
    return states, wanted(list(message.keys), ())


def messages(watch: Watch, found: Sequence[Arrival]) -> list[pb.Arrival]:
    """Arrivals of a watch for the wire."""
    return [arrival_message(watch, each) for each in found]


def _domain(watch: Watch, arrival: Arrival) -> str:
    try:
        return address.show(domain_of(watch, arrival.key))
    except InvalidSpec:
        return ""


def _failure(error: dict[str, Any] | None) -> transfer_pb2.Failure | None:
    if error is None:
        return None
    message = failure_message(from_record(error))
    message.reason = error["reason"]  # also one that is no error of ours, like what was loaded with exceptions
    return message


def _duration(seconds: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made

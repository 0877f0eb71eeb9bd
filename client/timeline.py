"""Which segment of a transfer ran where and when: as plain data, as lines of a table and as a drawing (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from client import phrases
from client.moments import moment
from client.shapes import JSON
from fileserver.v1.transfer_pb2 import SegmentSpan

HEADERS: Final = (">segment", ">first part", ">last part", ">bytes", ">tries", ">begun after", ">seconds", "server")

_WIDTH: Final = 960  # pixels
_NAME: Final = 240  # of them for the names of servers
_ROW: Final = 18
_HEAD: Final = 30
_TICKS: Final = 6
_COLOURS: Final = ("#4477aa", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#66ccee")


def shape(span: SegmentSpan) -> dict[str, JSON]:
    """One segment; times in UTC, `end_time` is null while it is not done."""
    return {
        "number": span.number,
        "first_part": span.first_part,
        "last_part": span.last_part,
        "size": span.size,
        "server": span.server,
        "tries": span.tries,
        "begin_time": moment(span.begin_time),
        "end_time": moment(span.end_time),
    }


def cells(span: SegmentSpan, start: float) -> tuple[str, ...]:
    """The line of a segment; `start` is when the first of all began, in seconds since 1970."""
    begun = _seconds(span.begin_time)
    lasted = f"{_seconds(span.end_time) - begun:.2f}" if span.HasField("end_time") else "-"
    numbers = (span.number, span.first_part, span.last_part)
    return (*map(str, numbers), phrases.size(span.size), str(span.tries), f"{begun - start:.2f}", lasted, span.server)


def start_of(spans: Sequence[SegmentSpan]) -> float:
    """When the first of them began, in seconds since 1970; 0.0 where there is none."""
    return min((_seconds(span.begin_time) for span in spans), default=0.0)


@dataclass(slots=True)
class _Lane:
    """Segments of one server of which no two overlap."""

    server: str
    free: float


def svg(title: str, spans: Sequence[SegmentSpan]) -> str:
    """A drawing with a bar for each segment, in lanes of the servers; of one that is not done yet a pale one."""
    start = start_of(spans)
    last = max((_seconds(s.end_time) if s.HasField("end_time") else _seconds(s.begin_time) for s in spans), default=0.0)
    length = max(last - start, 0.001)
    lanes, bars = list[_Lane](), list[str]()
    servers = list(dict.fromkeys(s.server for s in sorted(spans, key=lambda s: _seconds(s.begin_time))))
    for server in servers:
        for span in sorted((s for s in spans if s.server == server), key=lambda s: _seconds(s.begin_time)):
            begun = _seconds(span.begin_time)
            ended = _seconds(span.end_time) if span.HasField("end_time") else last
            row = next((n for n, lane in enumerate(lanes) if lane.server == server and lane.free <= begun), len(lanes))
            if row == len(lanes):
                lanes.append(_Lane(server, 0.0))
            lanes[row].free = ended
            bars.append(_bar(span, row, (begun - start) / length, (ended - begun) / length, servers.index(server)))
    names = [
        f'<text x="4" y="{_HEAD + n * _ROW + 13}">{escape(phrases.clean(lane.server))}</text>'
        for n, lane in enumerate(lanes)
        if n == 0 or lanes[n - 1].server != lane.server
    ]
    height = _HEAD + len(lanes) * _ROW + 8
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'{opening} font-family="sans-serif" font-size="11">',
            f"<title>{escape(phrases.clean(title))}</title>",
            *(_tick(number / (_TICKS - 1), length, height) for number in range(_TICKS)),
            *names,
            *bars,
            "</svg>",
            "",
        ]
    )


def _x(share: float) -> float:
    return _NAME + share * (_WIDTH - _NAME - 30)


def _tick(share: float, length: float, height: int) -> str:
    x = _x(share)
    return (
        f'<line x1="{x:.1f}" y1="{_HEAD - 6}" x2="{x:.1f}" y2="{height}" stroke="#dddddd"/>'
        f'<text x="{x:.1f}" y="16" text-anchor="middle">{share * length:.2f} s</text>'
    )


def _bar(span: SegmentSpan, row: int, begun: float, lasted: float, colour: int) -> str:
    told = f"segment {span.number}: parts {span.first_part} to {span.last_part}, {phrases.size(span.size)}"
    told += f", {span.tries} tries" if span.tries > 1 else ""
    opacity = 1 if span.HasField("end_time") else 0.4
    width = max(_x(begun + lasted) - _x(begun), 1.0)
    return (
        f'<rect x="{_x(begun):.1f}" y="{_HEAD + row * _ROW + 2}" width="{width:.1f}" height="{_ROW - 4}" '
        f'fill="{_COLOURS[colour % len(_COLOURS)]}" opacity="{opacity}"><title>{escape(told)}</title></rect>'
    )


def _seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9

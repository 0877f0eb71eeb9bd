"""Where and when segments ran, as data, lines and a drawing that any reader of SVG takes."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from google.protobuf.timestamp_pb2 import Timestamp

from client import timeline
from fileserver.v1.transfer_pb2 import SegmentSpan

SVG = "{http://www.w3.org/2000/svg}"


def at(seconds: float) -> Timestamp:
    return Timestamp(seconds=1_700_000_000 + int(seconds), nanos=round(seconds % 1 * 1e9))


SPANS = [
    SegmentSpan(number=1, first_part=1, last_part=50, size=5, server="one", tries=1, begin_time=at(0), end_time=at(2)),
    SegmentSpan(number=2, first_part=51, last_part=99, size=5, server="two", tries=2, begin_time=at(1), end_time=at(4)),
    SegmentSpan(number=3, first_part=100, last_part=100, size=9, server="one", tries=1, begin_time=at(1.5)),
]


def test_lines_tell_when_each_began_after_the_first_and_how_long_it_took():
    start = timeline.start_of(SPANS)
    lines = [timeline.cells(span, start) for span in SPANS]
    assert lines[1] == ("2", "51", "99", "5 bytes", "2", "1.00", "3.00", "two")
    assert lines[2][-3:] == ("1.50", "-", "one")
    assert timeline.shape(SPANS[2])["end_time"] is None
    assert timeline.shape(SPANS[0])["begin_time"] == "2023-11-14T22:13:20Z"


def test_the_drawing_has_a_bar_for_each_in_lanes_where_none_overlap():
    drawn = ET.fromstring(timeline.svg("t1", SPANS))
    bars = {bar[0].text: bar.attrib for bar in drawn.iter(f"{SVG}rect")}
    first, third, second = bars.values()
    assert [text for text in bars if text and "2 tries" in text] == ["segment 2: parts 51 to 99, 5 bytes, 2 tries"]
    assert len({first["y"], second["y"], third["y"]}) == 3
    assert first["fill"] == third["fill"] != second["fill"]
    assert (first["opacity"], third["opacity"]) == ("1", "0.4")
    assert float(second["x"]) + float(second["width"]) <= float(drawn.attrib["width"])


def test_names_from_outside_cannot_break_out_of_the_drawing():
    hostile = SegmentSpan(number=1, server="</text><script>\x1b]0;x\x07", begin_time=at(0), end_time=at(1))
    drawn = timeline.svg("<script>&\x00", [hostile])
    assert "<script" not in drawn
    assert not any(each < " " and each != "\n" for each in drawn)
    ET.fromstring(drawn)
    ET.fromstring(timeline.svg("nothing", []))

"""What agents are told and say, from the wire's messages to our values and back. Validates nothing, decides nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from fileserver.errors import to_record
from fileserver.transfer.book import Page
from fileserver.transfer.execute import Mine
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Extent, Literal, Part
from fileserver.transfer.record import Done, PartRow, Plan, Segment, StoredStep
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1 import part_pb2
from planes import checksum
from planes.errors import Error
from planes.plane import MIB, Info, StepReceipt

READ: Final = 4 * MIB
"""Bytes that one answer holds."""


def info_message(info: Info) -> pb.FileInfo:
    """Facts about a file."""
    return pb.FileInfo(key=info.key, size=info.size, version=info.version, modified=info.modified.timestamp())


def info_of(message: pb.FileInfo) -> Info:
    """The inverse of `info_message`."""
    return Info(message.key, message.size, message.version, datetime.fromtimestamp(message.modified, UTC))


def error_message(error: Error) -> pb.AgentError:
    """What went wrong; `fileserver.errors.from_record` makes the same of it."""
    record = to_record(error)
    return pb.AgentError(reason=record["reason"], message=record["message"], facts=record["facts"])


def step_message(stored: StoredStep) -> pb.StepDone:
    """A receipt of a step."""
    quotes = -1 if stored.quotes is None else stored.quotes
    return _receipt(stored.part, stored.receipt, quotes)


def done_message(done: Done, size: int) -> pb.StepDone:
    """A receipt of a part that was written at once."""
    receipt = StepReceipt(0, size, done.crc64nvme, done.version, compared=done.compared, other=done.other)
    return _receipt(done.number, receipt, -1)


def steps_of(messages: Iterable[pb.StepDone]) -> tuple[list[StoredStep], list[Done]]:
    """The inverse of both."""
    stored, done = list[StoredStep](), list[Done]()
    for m in messages:
        crc, other = _number(m.crc64nvme), _number(m.other)
        if m.number:
            receipt = StepReceipt(m.number, m.size, crc, m.etag, compared=m.compared, other=other)
            stored.append(StoredStep(m.part, receipt, None if m.quotes < 0 else m.quotes))
        else:
            done.append(Done(m.part, crc, other, m.compared, m.etag))
    return stored, done


def progress_message(live: Live, *, done: bool) -> part_pb2.SegmentProgress:
    """How far a segment is."""
    return part_pb2.SegmentProgress(
        bytes_done=live.done,
        bytes_through_us=live.through_us,
        bytes_native=live.native,
        bytes_checked=live.checked,
        parts_done=live.parts_done,
        done=done,
    )


def fill_message(
    transfer: str,
    page: Page,
    mine: Mine,
    *,
    shared: bool,
    token: Callable[[PartRow], str],
    grant: Callable[[PartRow], str],
) -> pb.FillWork:
    """A segment for an agent: what of it is the agent's and not done, and the right to carry that."""
    s = page.segment
    return pb.FillWork(
        segment=part_pb2.Segment(transfer=f"transfers/{transfer}", number=s.number),
        first_part=s.first_part,
        last_part=s.last_part,
        first_step=s.first_step,
        last_step=s.last_step,
        plan=json.dumps(page.plan.to_json()),
        parts=[
            pb.FillPart(
                number=row.part.number,
                key=row.part.key,
                pieces=map(_piece, row.part.pieces),
                token=token(row),
                grant=grant(row),
                steps=mine[row.part.number],
            )
            for row in page.rows
            if not row.done and row.part.number in mine
        ],
        stored=[step_message(each) for steps in page.have.values() for each in steps],
        target_shared=shared,
    )


def page_of(work: pb.FillWork) -> Page:
    """The inverse of `fill_message`."""
    plan = Plan.from_json(json.loads(work.plan))
    segment = Segment(work.segment.number, work.first_part, work.last_part, work.first_step, work.last_step, 0)
    rows = [
        PartRow(Part(p.number, p.key, tuple(map(_of_piece, p.pieces))), p.token, None, None, False, "", False)
        for p in work.parts
    ]
    return Page(plan, segment, rows, _by_part(steps_of(work.stored)[0]))


def mine_of(work: pb.FillWork) -> Mine:
    """Which steps of it are the agent's."""
    return {part.number: frozenset(part.steps) for part in work.parts}


def _by_part(stored: Sequence[StoredStep]) -> Mapping[int, Sequence[StoredStep]]:
    found: dict[int, list[StoredStep]] = {}
    for each in stored:
        found.setdefault(each.part, []).append(each)
    return found


def _piece(piece: Extent | Literal) -> pb.FillPiece:
    if isinstance(piece, Literal):
        return pb.FillPiece(literal=piece.data)
    p = piece
    return pb.FillPiece(plane=p.plane, key=p.key, version=p.version, start=p.start, end=p.end, of=p.of)


def _of_piece(m: pb.FillPiece) -> Extent | Literal:
    return Extent(m.plane, m.key, m.version, m.start, m.end, m.of) if m.plane else Literal(m.literal)


def _receipt(part: int, r: StepReceipt, quotes: int) -> pb.StepDone:
    return pb.StepDone(
        part=part,
        number=r.number,
        size=r.size,
        crc64nvme=_hex(r.crc64nvme),
        etag=r.etag,
        compared=r.compared,
        other=_hex(r.other),
        quotes=quotes,
    )


def _hex(value: int | None) -> str:
    return "" if value is None else checksum.to_hex(value)


def _number(text: str) -> int | None:
    return checksum.from_hex(text) if text else None

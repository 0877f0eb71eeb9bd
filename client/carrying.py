"""Transfers of files that the server does not see: this command carries them itself, as the agent of its machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

from client.agent import Agent, Asked, Files, Memory, plane_of
from client.errors import Code, Exit, Reason, ServerError, invalid
from client.words import LOCAL

if TYPE_CHECKING:
    from client.session import Session
    from fileserver.v1.transfer_pb2 import Location, Plan, Transfer, TransferSpec


def is_unseen(error: ServerError) -> bool:
    """Whether a server said that it does not see the files of this machine."""
    return error.reason == "CALLER_DENIED" and error.metadata.get("plane") == LOCAL


def run(
    session: Session, spec: TransferSpec, follow: Callable[[Transfer, Callable[[], None]], Exit | None]
) -> Exit | None:
    """Have the transfer accepted, and carry what it needs until it has ended.

    Args:
        session: the running command.
        spec: what is asked; the plane `local` in it is this machine.
        follow: waits for the transfer; calls back once it has ended.
    """
    server = session.client.access()
    words = server.address.encode() + b"\0" + spec.SerializeToString(deterministic=True)
    with Memory(session.state, words) as memory:
        asked = memory.asked()
        with _agent(session, spec, asked.key, memory):
            transfer = _accepted(session, spec, asked, memory)
            try:
                ended = follow(transfer, memory.forget)
            except ServerError:
                if memory.log.exists() and memory.log.stat().st_size:
                    session.show.note(f"what its agent says of it: {memory.log}")
                raise
            if ended is None:  # what went wrong on the way went well in the end
                memory.log.unlink(missing_ok=True)
            return ended


def plan(session: Session, spec: TransferSpec) -> Plan:
    """What the transfer would do."""
    with Memory(session.state, b"plan\0" + spec.SerializeToString(deterministic=True)) as memory:
        asked = memory.asked()
        with _agent(session, spec, asked.key, memory):
            try:
                return session.client.plan_transfer(spec, asked.key)
            finally:
                memory.forget()


def _agent(session: Session, spec: TransferSpec, key: str, memory: Memory) -> Agent:
    server, files = session.client.access(), _beside(session, spec, key)
    return Agent(server, key, files, memory.log, session.show.note, session.standby)


def _accepted(session: Session, spec: TransferSpec, asked: Asked, memory: Memory) -> Transfer:
    from client.api import ENDED  # noqa: PLC0415  # loaded with the client already
    from fileserver.v1.transfer_pb2 import Transfer  # noqa: PLC0415  # the same

    try:
        memory.is_told = True
        transfer = session.client.create_transfer(spec, asked.request, asked.key)
        if asked.again and transfer.state in ENDED and not transfer.HasField("outcome"):
            asked = memory.fresh(asked.key)  # it failed or was cancelled since: that was told, and this is a new try
            transfer = session.client.create_transfer(spec, asked.request, asked.key)
        elif asked.again:
            if transfer.state == Transfer.STATE_PAUSED:  # we were away for long
                transfer = session.client.resume_transfer(transfer.name)
            session.show.note(f"going on with {transfer.name}, which was broken off")
    except ServerError as error:
        if error.code not in {Code.UNAVAILABLE, Code.CANCELLED}:
            memory.forget()
        raise
    except KeyboardInterrupt:
        msg = "interrupted before the server answered: the same command, given again, goes on if it was accepted"
        raise ServerError(Reason.CANCELLED, Code.CANCELLED, msg) from None
    return transfer


def _beside(session: Session, spec: TransferSpec, key: str) -> Files:
    """Name this machine's files by the plane of the agent, in place; which files those are."""
    verb, plane = spec.WhichOneof("verb"), plane_of(key)
    reads: list[str] = []
    writes: list[str] = []

    def name(place: Location, paths: list[str]) -> None:
        if place.plane == LOCAL:
            place.plane = plane
            paths.append(place.key)

    if verb == "spray":
        for source in spec.spray.sources:
            name(source, reads)
    elif verb == "despray":
        for source in spec.despray.sources:
            name(source, reads)
        name(spec.despray.target, writes)
    if not reads and not writes:
        msg = "nothing in this command is a file of this machine: use it without --server, or name planes"
        raise invalid(msg)
    return Files(reads, writes, [astuple(each) for each in session.rates], spec.overwrite)


def refuse_no_wait() -> ServerError:
    """The error of who asks for a transfer that needs this command, and does not want to wait for it."""
    msg = "--no-wait: the server does not see the files of this machine, so this command has to carry them"
    return invalid(msg)

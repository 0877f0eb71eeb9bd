"""transfers list, show, watch, cancel, pause, resume; and how every command waits for a transfer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client import moments
from client.commands import options
from client.errors import Code, Exit, Reason, ServerError, from_failure, invalid, rename
from client.session import Session, command, forget_output

if TYPE_CHECKING:
    from fileserver.v1.transfer_pb2 import Transfer

_ID = Annotated[
    str, typer.Argument(metavar="TRANSFER", help="The transfer, as its id or transfers/id.", show_default=False)
]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "list")(list_transfers)
    command(app, "show")(show)
    command(app, "watch")(watch)
    command(app, "cancel")(cancel)
    command(app, "pause")(pause)
    command(app, "resume")(resume)


def list_transfers(
    session: Session,
    active: Annotated[bool, typer.Option("--active", help="List only transfers that have not ended.")] = False,
) -> None:
    """List the transfers of the last 30 days, newest first."""
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    def cells(transfer: Transfer) -> tuple[str, ...]:
        return (
            transfer.name.removeprefix("transfers/"),
            phrases.verb(transfer),
            phrases.state(transfer.state),
            phrases.size(transfer.progress.bytes_done),
            moments.brief(transfer.create_time),
            phrases.target(transfer),
        )

    headers = ("id", "verb", "state", ">done", "created", "target")
    session.show.listing(
        "transfers", session.client.list_transfers(active_only=active), shapes.transfer, headers, cells
    )


def show(
    session: Session,
    name: _ID,
    report: Annotated[
        bool, typer.Option("--report", help="Of an ingest, show what became of each object instead.")
    ] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Show instead which segment ran on which file server, and when.")
    ] = False,
    svg: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw that timeline into this file, as SVG.", show_default=False)
    ] = None,
) -> None:
    """Show one transfer, what it proved or why it failed."""
    if timeline or svg is not None:
        _show_timeline(session, name, svg)
        return
    if report:
        from client.commands.ingesting import show_report  # noqa: PLC0415  # it follows transfers with this module

        show_report(session, name)
        return
    _show(session, session.client.get_transfer(name))


def _show_timeline(session: Session, name: str, svg: str | None) -> None:
    from client import timeline  # noqa: PLC0415  # protobuf, not for help

    spans = session.client.list_segments(name)
    if svg is not None:
        try:
            Path(svg).write_text(timeline.svg(name, spans), encoding="utf-8")
        except OSError as error:
            msg = f"--svg: {svg} can't be written: {error.strerror}"
            raise invalid(msg, path=svg) from None
        session.show.note(f"the timeline of {len(spans)} segments is drawn in {svg}")
        return
    start = timeline.start_of(spans)
    session.show.listing("segments", spans, timeline.shape, timeline.HEADERS, lambda span: timeline.cells(span, start))


def watch(session: Session, name: _ID) -> Exit | None:
    """Watch a transfer until it has ended or is paused, and end as it did."""
    return follow(session, name, each=True)


def cancel(session: Session, name: _ID, no_wait: options.NoWait = False) -> None:
    """Stop a transfer for good and remove what it wrote."""
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    last = session.client.get_transfer(name)
    if phrases.state(last.state) == "CANCELLED":
        _show_state(session, last)
        session.show.note("it was cancelled already, so nothing was done")
        return
    _check_goes_on(last)
    last = session.client.cancel_transfer(name)
    if not no_wait:
        with session.show.progress() as update:
            for last in session.client.watch_transfer(last.name):  # noqa: B020  # the name is read once, before
                update(last)
    if phrases.state(last.state) != "CANCELLED":
        _check_goes_on(last)  # it ended by itself before it could be cancelled
    _show_state(session, last)


def pause(session: Session, name: _ID) -> None:
    """Let a transfer stand still; what is stored stays."""
    _steer(session, name, session.client.pause_transfer)


def resume(session: Session, name: _ID) -> None:
    """Let a paused transfer go on where it stopped."""
    _steer(session, name, session.client.resume_transfer)


def _steer(session: Session, name: str, ask: Callable[[str], Transfer]) -> None:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    _check_goes_on(session.client.get_transfer(name))
    last = ask(name)
    if phrases.state(last.state) == "CANCELLING":
        msg = f"{last.name} is being cancelled, and nothing else can be asked of it"
        raise _ended(last, msg)
    _check_goes_on(last)
    _show_state(session, last)


def _check_goes_on(transfer: Transfer) -> None:
    """Raise ServerError TRANSFER_ENDED for one that has ended: nothing can be asked of it any more."""
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.api import ENDED  # noqa: PLC0415  # loaded with the client already

    if transfer.state in ENDED:
        msg = f"{transfer.name} has ended already ({phrases.state(transfer.state)}), so nothing was done"
        raise _ended(transfer, msg)


def _ended(transfer: Transfer, message: str) -> ServerError:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    facts = {"transfer": transfer.name, "state": phrases.state(transfer.state)}
    return ServerError(Reason.TRANSFER_ENDED, Code.FAILED_PRECONDITION, message, facts)


def _show_state(session: Session, transfer: Transfer) -> None:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    if session.show.as_json:
        _show(session, transfer)
    else:
        session.show.line(f"{transfer.name}: {phrases.state(transfer.state)}")


def _show(session: Session, transfer: Transfer) -> None:
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    if session.show.as_json:
        session.show.object(shapes.transfer(transfer))
        return
    progress = transfer.progress
    facts = [
        ("name", transfer.name),
        ("verb", phrases.verb(transfer)),
        ("target", phrases.target(transfer)),
        ("state", phrases.state(transfer.state)),
        ("bytes", f"{progress.bytes_done:,} of {progress.bytes_total:,}"),
        ("parts", f"{progress.parts_done:,} of {progress.parts_total:,}"),
        ("through this machine", phrases.size(progress.bytes_through_us)),
        ("copied natively", phrases.size(progress.bytes_native)),
        ("read for checksums", phrases.size(progress.bytes_checked)),
        ("created", moments.whole(transfer.create_time)),
    ]
    if transfer.HasField("end_time"):
        facts.append(("ended", moments.whole(transfer.end_time)))
    if transfer.HasField("outcome"):
        facts += [("result", phrases.summary(transfer)), ("crc64nvme", transfer.outcome.crc64nvme)]
        facts += [("route", line) for line in phrases.routes(transfer.outcome)]
    if transfer.HasField("error"):
        message = rename(transfer.error.message, phrases.names(transfer))
        facts.append(("error", f"{transfer.error.reason}: {message}"))
    facts += [("warning", warning) for warning in phrases.warnings(transfer)]
    session.show.facts(facts)


def show_accepted(session: Session, transfer: Transfer) -> None:
    """A transfer that nobody waits for."""
    if session.show.as_json:
        _show(session, transfer)
        return
    session.show.line(f"{transfer.name} is accepted and goes on by itself")
    session.show.note(_ways_on(session, transfer.name))


def follow(
    session: Session,
    name: str,
    ended: Callable[[], None] = lambda: None,
    *,
    each: bool = False,
    carried: bool = False,
) -> Exit | None:
    """Wait for a transfer and tell how it ended or that it is paused; Ctrl-C detaches and leaves it running.

    Args:
        session: the running command.
        name: of the transfer.
        ended: called once the transfer has ended, however it did.
        each: with `--json`, print every state on the way, not only the last.
        carried: this command carries its bytes: without it, the transfer waits.

    Raises:
        ServerError: the error that is stored in the transfer, or CANCELLED.
    """
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    last: Transfer | None = None
    try:
        with session.show.progress() as update:
            for transfer in session.client.watch_transfer(name):
                if last is not None and each and session.show.as_json:
                    _show(session, last)
                last = transfer
                update(transfer)
    except KeyboardInterrupt:
        return _detach(session, last.name if last else name, carried=carried)
    assert last is not None, "a watch ends with a transfer that has ended or stands still"
    if phrases.state(last.state) == "PAUSED":
        _show_state(session, last)
        session.show.note(_ways_out(session, last.name))
        return None
    ended()
    return _finish(session, last)


def _finish(session: Session, transfer: Transfer) -> Exit | None:
    """The last line of a transfer, or its error; a sync also names the objects that it could not copy."""
    from client import phrases  # noqa: PLC0415  # loaded with the client already

    if session.show.as_json:
        try:
            _show(session, transfer)
        except BrokenPipeError:  # who reads no result still learns by the exit code how the transfer ended
            forget_output()
    for warning in phrases.warnings(transfer):
        session.show.note(f"warning: {warning}")
    if transfer.HasField("error"):
        raise from_failure(transfer.error, transfer.name).renamed(phrases.names(transfer))
    if phrases.state(transfer.state) == "CANCELLED":
        many = {"sync": "what it had copied stays", "ingest": "the domains that it had finished stay"}
        what = many.get(phrases.verb(transfer), "nothing that it wrote is left")
        msg = f"{transfer.name} was cancelled, and {what}"
        raise ServerError(Reason.CANCELLED, Code.CANCELLED, msg, {"transfer": transfer.name})
    if not session.show.as_json:
        session.show.line(phrases.summary(transfer))
    if phrases.state(transfer.state) != "PARTLY_SUCCEEDED":
        return None
    _show_exceptions(session, transfer)
    return Exit.EXCEPTIONS


def _show_exceptions(session: Session, transfer: Transfer) -> None:
    """The objects of many that failed."""
    verb = transfer.spec.WhichOneof("verb")
    done = transfer.outcome.ingest if verb == "ingest" else transfer.outcome.sync
    for each in done.exceptions:
        what = "partly" if each.reason == "PARTLY" else "failed"
        session.show.note(f"{what}: {each.key}: {each.message} ({each.reason})")
    number = done.failed + (transfer.outcome.ingest.partly if verb == "ingest" else 0)
    if number > len(done.exceptions):
        session.show.note(f"and {number - len(done.exceptions):,} more; the same {verb} tries what failed again")


def _detach(session: Session, name: str, *, carried: bool) -> Exit:
    msg = f"\n{name} goes on without you\n{_ways_on(session, name)}"
    if carried:
        cancel = f"cropduster transfers cancel {name.removeprefix('transfers/')}{session.settings.as_options()}"
        msg = f"\n{name} waits for you\n  go on:     give the same command again\n  cancel it: {cancel}"
    if session.show.as_json:
        session.show.error(ServerError("DETACHED", Code.CANCELLED, msg.strip(), {"transfer": name}))
    session.show.note(msg)
    return Exit.CANCELLED


def _ways_on(session: Session, name: str) -> str:
    number = name.removeprefix("transfers/")
    same = session.settings.as_options()
    ways = (("watch it:  ", "watch"), ("cancel it: ", "cancel"))
    return "\n".join(f"  {what}cropduster transfers {verb} {number}{same}" for what, verb in ways)


def _ways_out(session: Session, name: str) -> str:
    """What a person can do about a transfer that is paused."""
    number, same = name.removeprefix("transfers/"), session.settings.as_options()
    resume, cancel = (f"'cropduster transfers {verb} {number}{same}'" for verb in ("resume", "cancel"))
    return f"paused; {resume} lets it go on, {cancel} ends it"

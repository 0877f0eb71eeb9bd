"""The client library: one method a call of the wire, paged listings as iterators, a watch that outlives its server.

Busy is not broken: a server that says when to come back, and a connection that breaks, are waited out for up to a
minute; an embedded server that has gone is started again. All failures are `client.errors.ServerError`.

    connection = Connection(Loopback("127.0.0.1:7300"))
    with Client(connection) as client:
        for file in client.list_files("sales::*"):
            print(file.name, file.size)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar

import grpc

from client.connection import Connection
from client.errors import Code, Reason, ServerError, broken, from_rpc, unavailable
from client.patience import Patience
from fileserver.v1 import data_pb2, file_pb2, plane_pb2, transfer_pb2
from fileserver.v1.data_pb2_grpc import DataServiceStub
from fileserver.v1.file_pb2_grpc import FileServiceStub
from fileserver.v1.plane_pb2_grpc import PlaneServiceStub
from fileserver.v1.transfer_pb2_grpc import TransferServiceStub

PATIENCE_SECONDS: Final = 60.0
LOOKUP_SECONDS: Final = 60.0
"""Deadline of calls that only ask the store; calls that ask a plane take as long as the plane does."""

ENDED: Final = frozenset(
    {
        transfer_pb2.Transfer.STATE_SUCCEEDED,
        transfer_pb2.Transfer.STATE_PARTLY_SUCCEEDED,
        transfer_pb2.Transfer.STATE_FAILED,
        transfer_pb2.Transfer.STATE_CANCELLED,
    }
)
"""States that a transfer never leaves."""

_ELSEWHERE: Final = frozenset({"plane", "hsds"})
"""Facts of errors that are about what lies behind the server."""
_BUSY: Final = frozenset({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE})

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")
_Page = TypeVar("_Page", bound="_Paged")


class Caller(Protocol):
    """Makes a call until it is answered; see `Client`."""

    def __call__(
        self,
        method: Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Asked, _Answer]],
        request: _Asked,
        *,
        timeout: float | None = LOOKUP_SECONDS,
        again: bool = True,
    ) -> _Answer:
        """The answer; `again` says that twice does no harm. Raises ServerError."""
        ...


class _Paged(Protocol):
    @property
    def next_page_token(self) -> str: ...


class Client:
    """The calls of a file server. Not for several threads at once.

    Args:
        connection: to the server; closed with the client.
        told: gets a sentence when the client waits for the server, once a call.
        patience: seconds for which a busy or missing server is waited for.
        sleep: waits so many seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        told: Callable[[str], None] = lambda _: None,
        patience: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._told = told
        self._seconds = patience
        self._sleep = sleep
        self._clock = clock
        self._was_connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    @property
    def server_state(self) -> Path | None:
        """The state directory of a server that somebody else runs for us; asks it, None if it does not say."""
        self.list_planes()
        return self._connection.state

    # --- transfers

    def create_transfer(self, spec: transfer_pb2.TransferSpec, request_id: str = "") -> transfer_pb2.Transfer:
        """Have a transfer accepted, exactly once however often the call has to be repeated.

        Args:
            spec: what is asked; `client.specs` makes one of plain words.
            request_id: the same id with the same spec returns the same transfer; empty is a fresh one.
        """
        request = transfer_pb2.CreateTransferRequest(spec=spec, request_id=request_id or uuid.uuid4().hex)
        return self._call(lambda c: TransferServiceStub(c).CreateTransfer, request, timeout=None).transfer

    def plan_transfer(self, spec: transfer_pb2.TransferSpec) -> transfer_pb2.Plan:
        """What the transfer would do; reads what planning needs, writes nothing."""
        request = transfer_pb2.CreateTransferRequest(spec=spec, validate_only=True)
        return self._call(lambda c: TransferServiceStub(c).CreateTransfer, request, timeout=None).plan

    def plan_sync(self, spec: transfer_pb2.TransferSpec) -> Iterator[transfer_pb2.PlanSyncResponse]:
        """What a sync would do, many objects at a time; totals and warnings come with the first of them."""
        self.list_planes()  # waits for the server, and learns its cookie: a stream cannot be begun anew half-way
        request = transfer_pb2.PlanSyncRequest(spec=spec)
        yield from self._stream(lambda c: TransferServiceStub(c).PlanSync, request)

    def get_transfer(self, name: str) -> transfer_pb2.Transfer:
        """One transfer by "transfers/{id}" or the id."""
        request = transfer_pb2.GetTransferRequest(name=name)
        return self._call(lambda c: TransferServiceStub(c).GetTransfer, request).transfer

    def list_transfers(self, *, active_only: bool = False) -> Iterator[transfer_pb2.Transfer]:
        """Transfers of the last 30 days, newest first."""

        def page(token: str) -> transfer_pb2.ListTransfersResponse:
            request = transfer_pb2.ListTransfersRequest(page_token=token, active_only=active_only)
            return self._call(lambda c: TransferServiceStub(c).ListTransfers, request)

        return items_of(page, lambda answer: answer.transfers)

    def watch_transfer(self, name: str) -> Iterator[transfer_pb2.Transfer]:
        """The transfer now and whenever it changes, until it has ended or stands still (PAUSED).

        Attaches again when the server goes away.
        """
        request = transfer_pb2.WatchTransferRequest(name=name)
        patience = self._patience()
        while True:
            failure = broken("the server ended the watch")
            state = transfer_pb2.Transfer.STATE_UNSPECIFIED
            try:
                for answer in self._stream(lambda c: TransferServiceStub(c).WatchTransfer, request):
                    patience.renew()
                    state = answer.transfer.state
                    yield answer.transfer
                    if state in ENDED:
                        return
            except ServerError as error:
                failure = error
            else:
                if state == transfer_pb2.Transfer.STATE_PAUSED:  # the server has no more to tell until it is resumed
                    return
            self._recover(failure, patience, again=True)

    def cancel_transfer(self, name: str) -> transfer_pb2.Transfer:
        """Ask a transfer to stop for good and to clean up; answers before it has."""
        request = transfer_pb2.CancelTransferRequest(name=name)
        return self._call(lambda c: TransferServiceStub(c).CancelTransfer, request).transfer

    def pause_transfer(self, name: str) -> transfer_pb2.Transfer:
        """Ask a transfer to stand still."""
        request = transfer_pb2.PauseTransferRequest(name=name)
        return self._call(lambda c: TransferServiceStub(c).PauseTransfer, request).transfer

    def resume_transfer(self, name: str) -> transfer_pb2.Transfer:
        """Let a paused transfer go on."""
        request = transfer_pb2.ResumeTransferRequest(name=name)
        return self._call(lambda c: TransferServiceStub(c).ResumeTransfer, request).transfer

    # --- logical files

    def get_file(self, name: str, *, uris: bool = False) -> file_pb2.LogicalFile:
        """One logical file with its parts."""
        request = file_pb2.GetFileRequest(name=name, uris=uris)
        return self._call(lambda c: FileServiceStub(c).GetFile, request).file

    def list_files(self, mask: str = "") -> Iterator[file_pb2.LogicalFile]:
        """Files whose name matches a mask of * and ?, without their parts."""

        def page(token: str) -> file_pb2.ListFilesResponse:
            request = file_pb2.ListFilesRequest(mask=mask, page_token=token)
            return self._call(lambda c: FileServiceStub(c).ListFiles, request)

        return items_of(page, lambda answer: answer.files)

    def register_file(
        self,
        name: str,
        parts: Sequence[transfer_pb2.Location],
        record: transfer_pb2.Format | None = None,
        order: transfer_pb2.Spray.Order.ValueType = transfer_pb2.Spray.ORDER_UNSPECIFIED,
    ) -> file_pb2.LogicalFile:
        """Enter existing objects as the parts of a file, in the order given."""
        request = file_pb2.RegisterFileRequest(name=name, parts=parts, format=record, order=order)
        return self._call(lambda c: FileServiceStub(c).RegisterFile, request, timeout=None, again=False).file

    def rename_file(self, name: str, new_name: str) -> file_pb2.LogicalFile:
        """Give a file another name; no byte moves."""
        request = file_pb2.RenameFileRequest(name=name, new_name=new_name)
        return self._call(lambda c: FileServiceStub(c).RenameFile, request, again=False).file

    def delete_file(
        self, name: str, *, with_parts: bool = False, validate_only: bool = False
    ) -> file_pb2.DeleteFileResponse:
        """Drop a file and retire the parts that Cropduster wrote; `with_parts` destroys the others, too."""
        request = file_pb2.DeleteFileRequest(name=name, with_parts=with_parts, validate_only=validate_only)
        return self._call(lambda c: FileServiceStub(c).DeleteFile, request, timeout=None, again=validate_only)

    def verify_file(self, name: str, *, read: bool = False) -> file_pb2.VerifyFileResponse:
        """Check that the parts are what the catalogue says, from stored values or from every byte."""
        request = file_pb2.VerifyFileRequest(name=name, read=read)
        return self._call(lambda c: FileServiceStub(c).VerifyFile, request, timeout=None)

    def rebuild_files(self, plane: str, *, validate_only: bool = False) -> file_pb2.RebuildFilesResponse:
        """Restore the catalogue from the manifests that lie on a plane."""
        request = file_pb2.RebuildFilesRequest(plane=plane, validate_only=validate_only)
        return self._call(lambda c: FileServiceStub(c).RebuildFiles, request, timeout=None)

    def read_file(self, name: str, offset: int = 0, length: int = 0) -> Iterator[bytes]:
        """Bytes of a logical file from `offset`, in pieces of up to 1 MiB; a `length` of 0 is to the end.

        A connection that breaks after the first piece is not taken up again: another generation of the file may
        have been published since, and the rest of that is not the rest of this.

        Raises:
            ServerError: also OFFSET_MISMATCH, when a piece is missing in the stream.
        """
        request = data_pb2.ReadRequest(file=name, offset=offset, length=length)
        patience = self._patience()
        expected = offset
        while True:
            try:
                for answer in self._stream(lambda c: DataServiceStub(c).Read, request):
                    _check_offset(name, answer.offset, expected)
                    expected += len(answer.data)
                    yield answer.data
            except ServerError as error:
                self._recover(error, patience, again=expected == offset)
            else:
                return

    # --- planes

    def list_planes(self) -> plane_pb2.ListPlanesResponse:
        """All planes in order of the configuration, and the default one."""
        return self._call(lambda c: PlaneServiceStub(c).ListPlanes, plane_pb2.ListPlanesRequest())

    def get_plane(self, name: str) -> plane_pb2.Plane:
        """One plane."""
        return self._call(lambda c: PlaneServiceStub(c).GetPlane, plane_pb2.GetPlaneRequest(name=name)).plane

    def check_plane(self, name: str) -> plane_pb2.CheckPlaneResponse:
        """Try the contract on a plane, with small objects of its own."""
        return self._call(
            lambda c: PlaneServiceStub(c).CheckPlane, plane_pb2.CheckPlaneRequest(name=name), timeout=None
        )

    def update_limits(
        self, name: str, *, requests: int | None = None, bytes_per_second: int | None = None
    ) -> plane_pb2.Plane:
        """Change how hard a plane may be driven, until its server ends; what is None stays as it is."""
        request = plane_pb2.UpdateLimitsRequest(name=name, requests=requests, bytes_per_second=bytes_per_second)
        return self._call(lambda c: PlaneServiceStub(c).UpdateLimits, request).plane

    def sweep_plane(self, name: str, *, validate_only: bool = False) -> plane_pb2.SweepPlaneResponse:
        """End open uploads of transfers that have ended, or tell which."""
        asked = plane_pb2.SweepPlaneRequest(name=name, validate_only=validate_only)
        return self._call(lambda c: PlaneServiceStub(c).SweepPlane, asked, timeout=None)

    def list_objects(self, plane: str, prefix: str = "") -> Iterator[plane_pb2.Object]:
        """Objects of a plane whose key begins with a prefix, in byte order of keys."""

        def page(token: str) -> plane_pb2.ListObjectsResponse:
            request = plane_pb2.ListObjectsRequest(plane=plane, prefix=prefix, page_size=1000, page_token=token)
            return self._call(lambda c: PlaneServiceStub(c).ListObjects, request, timeout=None)

        return items_of(page, lambda answer: answer.objects)

    # --- how calls are made

    @property
    def caller(self) -> Caller:
        """How calls are made, for what has methods of its own (`client.domains`)."""
        return self._call

    def _call(
        self,
        method: Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Asked, _Answer]],
        request: _Asked,
        *,
        timeout: float | None = LOOKUP_SECONDS,
        again: bool = True,
    ) -> _Answer:
        """Make a call until it is answered; `again` says that twice does no harm."""
        patience = self._patience()
        while True:
            try:
                return method(self._channel())(request, timeout=timeout, metadata=self._connection.metadata)
            except grpc.RpcError as error:
                failure = from_rpc(error)
            except ServerError as error:
                failure = error
            self._recover(failure, patience, again=again)

    def _stream(
        self, method: Callable[[grpc.Channel], grpc.UnaryStreamMultiCallable[_Asked, _Answer]], request: _Asked
    ) -> Iterator[_Answer]:
        """The answers of one call, which is cancelled when the iterator is closed."""
        try:
            call = method(self._channel())(request, metadata=self._connection.metadata)
            try:
                yield from call
            finally:
                call.cancel()
        except grpc.RpcError as error:
            raise from_rpc(error) from None

    def _channel(self) -> grpc.Channel:
        """The connection's channel; a server that was there before may be on its way back."""
        try:
            channel = self._connection.channel
        except ServerError as error:
            if self._was_connected and error.code is Code.UNAVAILABLE:
                raise broken(error.message) from error
            raise
        self._was_connected = True
        return channel

    def _patience(self) -> Patience:
        return Patience(self._seconds, self._clock)

    def _recover(self, failure: ServerError, patience: Patience, *, again: bool) -> None:
        """Return when the call should be made again, else raise the failure."""
        if failure.reason == "CALLER_UNKNOWN":
            if self._connection.learn_cookie(failure.metadata.get("cookie", "")):
                return
            raise self._stranger(failure)
        gone = failure.code is Code.UNAVAILABLE and not failure.reason
        # The error of a plane is none of the server's own: the server has waited for that long enough itself.
        busy = failure.code in _BUSY and failure.retry_after is not None and not failure.metadata.keys() & _ELSEWHERE
        if not gone and not busy:
            raise failure
        if gone:
            self._connection.close()
            if not again:
                msg = f"the connection to the server broke, and what was asked may be done or not ({failure.message})"
                raise unavailable(msg)
        seconds = patience.wait(failure.retry_after)
        if seconds is None:
            raise unavailable(failure.message) if gone else failure
        if busy:
            self._told(f"waiting for the server: {failure.message}")
        self._sleep(seconds)

    def _stranger(self, failure: ServerError) -> ServerError:
        """The error of a caller who cannot prove to be the server's user, in words for whom it meets."""
        path = failure.metadata.get("cookie")
        why = f"and the cookie that proves it, {path}, cannot be read here" if path else "and names no cookie"
        msg = (
            f"the server at {self._connection.target} answers only to the user that it runs as, {why}: run this as "
            "that user, or leave out --server to use a server of your own"
        )
        return ServerError(failure.reason, failure.code, msg, failure.metadata)


def _check_offset(name: str, offset: int, expected: int) -> None:
    if offset != expected:
        msg = f"the stream of {name} goes on at byte {offset} instead of {expected}"
        raise ServerError(Reason.OFFSET_MISMATCH, Code.OUT_OF_RANGE, msg, {"file": name})


def items_of(page: Callable[[str], _Page], items: Callable[[_Page], Iterable[_Item]]) -> Iterator[_Item]:
    """The items of all pages, each page asked for when it is needed."""
    token = ""
    while True:
        answer = page(token)
        yield from items(answer)
        token = answer.next_page_token
        if not token:
            return

"""The client library: one method a call of the wire, paged listings as iterators, a watch that outlives its server.

Busy is not broken: a server that says when to come back, and a connection that breaks, are waited out for up to a
minute; an embedded server that has gone is started again. All failures are `client.errors.ServerError`.

    connection = Connection(Running("127.0.0.1:7300"))
    with Client(connection) as client:
        for file in client.list_files("sales::*"):
            print(file.name, file.size)
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from client.calls import Calls, pages
from client.errors import Code, Reason, ServerError, broken
from fileserver.v1 import data_pb2, file_pb2, plane_pb2, transfer_pb2
from fileserver.v1.data_pb2_grpc import DataServiceStub
from fileserver.v1.file_pb2_grpc import FileServiceStub
from fileserver.v1.plane_pb2_grpc import PlaneServiceStub
from fileserver.v1.transfer_pb2_grpc import TransferServiceStub

ENDED: Final = frozenset(
    {
        transfer_pb2.Transfer.STATE_SUCCEEDED,
        transfer_pb2.Transfer.STATE_PARTLY_SUCCEEDED,
        transfer_pb2.Transfer.STATE_FAILED,
        transfer_pb2.Transfer.STATE_CANCELLED,
    }
)
"""States that a transfer never leaves."""


class Client(Calls):
    """The calls of a file server. Not for several threads at once.

    It is made as `Calls` is.
    """

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
        return self.call(lambda c: TransferServiceStub(c).CreateTransfer, request, timeout=None).transfer

    def plan_transfer(self, spec: transfer_pb2.TransferSpec) -> transfer_pb2.Plan:
        """What the transfer would do; reads what planning needs, writes nothing."""
        request = transfer_pb2.CreateTransferRequest(spec=spec, validate_only=True)
        return self.call(lambda c: TransferServiceStub(c).CreateTransfer, request, timeout=None).plan

    def plan_sync(self, spec: transfer_pb2.TransferSpec) -> Iterator[transfer_pb2.PlanSyncResponse]:
        """What a sync would do, many objects at a time; totals and warnings come with the first of them."""
        self.list_planes()  # waits for the server, and learns its cookie: a stream cannot be begun anew half-way
        request = transfer_pb2.PlanSyncRequest(spec=spec)
        yield from self.stream(lambda c: TransferServiceStub(c).PlanSync, request)

    def get_transfer(self, name: str) -> transfer_pb2.Transfer:
        """One transfer by "transfers/{id}" or the id."""
        request = transfer_pb2.GetTransferRequest(name=name)
        return self.call(lambda c: TransferServiceStub(c).GetTransfer, request).transfer

    def list_transfers(self, *, active_only: bool = False) -> Iterator[transfer_pb2.Transfer]:
        """Transfers of the last 30 days, newest first."""

        def page(token: str) -> transfer_pb2.ListTransfersResponse:
            request = transfer_pb2.ListTransfersRequest(page_token=token, active_only=active_only)
            return self.call(lambda c: TransferServiceStub(c).ListTransfers, request)

        return pages(page, lambda answer: answer.transfers)

    def watch_transfer(self, name: str) -> Iterator[transfer_pb2.Transfer]:
        """The transfer now and whenever it changes, until it has ended or stands still (PAUSED).

        Attaches again when the server goes away.
        """
        request = transfer_pb2.WatchTransferRequest(name=name)
        patience = self.patience()
        while True:
            failure = broken("the server ended the watch")
            state = transfer_pb2.Transfer.STATE_UNSPECIFIED
            try:
                for answer in self.stream(lambda c: TransferServiceStub(c).WatchTransfer, request):
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
            self.recover(failure, patience, again=True)

    def cancel_transfer(self, name: str) -> transfer_pb2.Transfer:
        """Ask a transfer to stop for good and to clean up; answers before it has."""
        request = transfer_pb2.CancelTransferRequest(name=name)
        return self.call(lambda c: TransferServiceStub(c).CancelTransfer, request).transfer

    def pause_transfer(self, name: str) -> transfer_pb2.Transfer:
        """Ask a transfer to stand still."""
        request = transfer_pb2.PauseTransferRequest(name=name)
        return self.call(lambda c: TransferServiceStub(c).PauseTransfer, request).transfer

    def resume_transfer(self, name: str) -> transfer_pb2.Transfer:
        """Let a paused transfer go on."""
        request = transfer_pb2.ResumeTransferRequest(name=name)
        return self.call(lambda c: TransferServiceStub(c).ResumeTransfer, request).transfer

    # --- logical files

    def get_file(self, name: str, *, uris: bool = False) -> file_pb2.LogicalFile:
        """One logical file with its parts."""
        request = file_pb2.GetFileRequest(name=name, uris=uris)
        return self.call(lambda c: FileServiceStub(c).GetFile, request).file

    def list_files(self, mask: str = "") -> Iterator[file_pb2.LogicalFile]:
        """Files whose name matches a mask of * and ?, without their parts."""

        def page(token: str) -> file_pb2.ListFilesResponse:
            request = file_pb2.ListFilesRequest(mask=mask, page_token=token)
            return self.call(lambda c: FileServiceStub(c).ListFiles, request)

        return pages(page, lambda answer: answer.files)

    def register_file(
        self,
        name: str,
        parts: Sequence[transfer_pb2.Location],
        record: transfer_pb2.Format | None = None,
        order: transfer_pb2.Spray.Order.ValueType = transfer_pb2.Spray.ORDER_UNSPECIFIED,
    ) -> file_pb2.LogicalFile:
        """Enter existing objects as the parts of a file, in the order given."""
        request = file_pb2.RegisterFileRequest(name=name, parts=parts, format=record, order=order)
        return self.call(lambda c: FileServiceStub(c).RegisterFile, request, timeout=None, again=False).file

    def rename_file(self, name: str, new_name: str) -> file_pb2.LogicalFile:
        """Give a file another name; no byte moves."""
        request = file_pb2.RenameFileRequest(name=name, new_name=new_name)
        return self.call(lambda c: FileServiceStub(c).RenameFile, request, again=False).file

    def delete_file(
        self, name: str, *, with_parts: bool = False, validate_only: bool = False
    ) -> file_pb2.DeleteFileResponse:
        """Drop a file and retire the parts that Cropduster wrote; `with_parts` destroys the others, too."""
        request = file_pb2.DeleteFileRequest(name=name, with_parts=with_parts, validate_only=validate_only)
        return self.call(lambda c: FileServiceStub(c).DeleteFile, request, timeout=None, again=validate_only)

    def verify_file(self, name: str, *, read: bool = False) -> file_pb2.VerifyFileResponse:
        """Check that the parts are what the catalogue says, from stored values or from every byte."""
        request = file_pb2.VerifyFileRequest(name=name, read=read)
        return self.call(lambda c: FileServiceStub(c).VerifyFile, request, timeout=None)

    def rebuild_files(self, plane: str, *, validate_only: bool = False) -> file_pb2.RebuildFilesResponse:
        """Restore the catalogue from the manifests that lie on a plane."""
        request = file_pb2.RebuildFilesRequest(plane=plane, validate_only=validate_only)
        return self.call(lambda c: FileServiceStub(c).RebuildFiles, request, timeout=None)

    def read_file(self, name: str, offset: int = 0, length: int = 0) -> Iterator[bytes]:
        """Bytes of a logical file from `offset`, in pieces of up to 1 MiB; a `length` of 0 is to the end.

        A connection that breaks after the first piece is not taken up again: another generation of the file may
        have been published since, and the rest of that is not the rest of this.

        Raises:
            ServerError: also OFFSET_MISMATCH, when a piece is missing in the stream.
        """
        request = data_pb2.ReadRequest(file=name, offset=offset, length=length)
        patience = self.patience()
        expected = offset
        while True:
            try:
                for answer in self.stream(lambda c: DataServiceStub(c).Read, request):
                    _check_offset(name, answer.offset, expected)
                    expected += len(answer.data)
                    yield answer.data
            except ServerError as error:
                self.recover(error, patience, again=expected == offset)
            else:
                return

    # --- planes

    def list_planes(self) -> plane_pb2.ListPlanesResponse:
        """All planes in order of the configuration, and the default one."""
        return self.call(lambda c: PlaneServiceStub(c).ListPlanes, plane_pb2.ListPlanesRequest())

    def get_plane(self, name: str) -> plane_pb2.Plane:
        """One plane."""
        return self.call(lambda c: PlaneServiceStub(c).GetPlane, plane_pb2.GetPlaneRequest(name=name)).plane

    def check_plane(self, name: str) -> plane_pb2.CheckPlaneResponse:
        """Try the contract on a plane, with small objects of its own."""
        return self.call(lambda c: PlaneServiceStub(c).CheckPlane, plane_pb2.CheckPlaneRequest(name=name), timeout=None)

    def update_limits(
        self, name: str, *, requests: int | None = None, bytes_per_second: int | None = None
    ) -> plane_pb2.Plane:
        """Change how hard a plane may be driven, until its server ends; what is None stays as it is."""
        request = plane_pb2.UpdateLimitsRequest(name=name, requests=requests, bytes_per_second=bytes_per_second)
        return self.call(lambda c: PlaneServiceStub(c).UpdateLimits, request).plane

    def sweep_plane(self, name: str, *, validate_only: bool = False) -> plane_pb2.SweepPlaneResponse:
        """End open uploads of transfers that have ended, or tell which."""
        asked = plane_pb2.SweepPlaneRequest(name=name, validate_only=validate_only)
        return self.call(lambda c: PlaneServiceStub(c).SweepPlane, asked, timeout=None)

    def list_objects(
        self, plane: str, prefix: str = "", left_out: Callable[[plane_pb2.LeftOut], object] = lambda _: None
    ) -> Iterator[plane_pb2.Object]:
        """Objects of a plane whose key begins with a prefix, in byte order of keys; `left_out` is told what is none."""

        def page(token: str) -> plane_pb2.ListObjectsResponse:
            request = plane_pb2.ListObjectsRequest(plane=plane, prefix=prefix, page_size=1000, page_token=token)
            answer = self.call(lambda c: PlaneServiceStub(c).ListObjects, request, timeout=None)
            for each in answer.left_out:
                left_out(each)
            return answer

        return pages(page, lambda answer: answer.objects)


def _check_offset(name: str, offset: int, expected: int) -> None:
    if offset != expected:
        msg = f"the stream of {name} goes on at byte {offset} instead of {expected}"
        raise ServerError(Reason.OFFSET_MISMATCH, Code.OUT_OF_RANGE, msg, {"file": name})

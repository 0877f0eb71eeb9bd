"""A file server with scripted answers, in this process, on a port of the kernel's choice."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from fileserver.v1 import (
    data_pb2_grpc,
    domain_pb2_grpc,
    exchange_pb2_grpc,
    file_pb2_grpc,
    hdf5_pb2_grpc,
    landing_pb2_grpc,
    plane_pb2_grpc,
    transfer_pb2_grpc,
)

SERVICES = (
    (data_pb2_grpc.DataServiceServicer, data_pb2_grpc.add_DataServiceServicer_to_server),
    (domain_pb2_grpc.DomainServiceServicer, domain_pb2_grpc.add_DomainServiceServicer_to_server),
    (exchange_pb2_grpc.ExchangeServiceServicer, exchange_pb2_grpc.add_ExchangeServiceServicer_to_server),
    (file_pb2_grpc.FileServiceServicer, file_pb2_grpc.add_FileServiceServicer_to_server),
    (hdf5_pb2_grpc.Hdf5ServiceServicer, hdf5_pb2_grpc.add_Hdf5ServiceServicer_to_server),
    (landing_pb2_grpc.LandingServiceServicer, landing_pb2_grpc.add_LandingServiceServicer_to_server),
    (plane_pb2_grpc.PlaneServiceServicer, plane_pb2_grpc.add_PlaneServiceServicer_to_server),
    (transfer_pb2_grpc.TransferServiceServicer, transfer_pb2_grpc.add_TransferServiceServicer_to_server),
)
STREAMS = {
    *("Read", "WatchTransfer", "PlanSync", "PlanIngest", "ReportIngest", "CompareDomain", "ExportDomain", "CopyDomain")
}


class Fault(Exception):
    """An answer that is an error, with the details of google.rpc.Status."""

    def __init__(self, code, reason="", message="no", *, retry=None, violations=None, domain="cropduster", **facts):
        super().__init__(message)
        self.status = status_pb2.Status(code=code.value[0], message=message)
        details = []
        if reason:
            details.append(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=facts))
        if retry is not None:
            wait = duration_pb2.Duration()
            wait.FromNanoseconds(round(retry * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=wait))
        if violations:
            found = [error_details_pb2.BadRequest.FieldViolation(field=k, description=v) for k, v in violations.items()]
            details.append(error_details_pb2.BadRequest(field_violations=found))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self.status.details.append(packed)
        self.bare = not details


class Scripted:
    """Answers each method from its own queue and keeps the requests; the last answer of a queue stays.

    An answer is a message, a `Fault`, or a function of the request that makes one; for a stream a list of them.
    """

    def __init__(self):
        self.answers = defaultdict(deque)
        self.requests = defaultdict(list)
        self.metadata = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8))
        for servicer, add in SERVICES:
            methods = {name: self._method(name) for name in vars(servicer) if not name.startswith("_")}
            add(type("Scripted", (servicer,), methods)(), self._server)
        health = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\x08\x01")
        handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health})
        self._server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def on(self, method, *answers):
        self.answers[method].extend(answers)
        return self

    def stop(self):
        self._server.stop(None).wait()

    def _next(self, method, request, context):
        with self._lock:
            self.requests[method].append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            queue = self.answers[method]
            assert queue, f"nobody expected {method}"
            answer = queue.popleft() if len(queue) > 1 else queue[0]
        return answer(request) if callable(answer) and not isinstance(answer, Fault) else answer

    def _method(self, name):
        def unary(_self, request, context):
            return self._give(self._next(name, request, context), context)

        def stream(_self, request, context):
            for answer in self._next(name, request, context):
                yield self._give(answer() if isinstance(answer, Callable) else answer, context)

        return stream if name in STREAMS else unary

    def _give(self, answer, context):
        if isinstance(answer, Fault):
            if answer.bare:
                code = next(c for c in grpc.StatusCode if c.value[0] == answer.status.code)
                context.abort(code, answer.status.message)
            context.abort_with_status(rpc_status.to_status(answer.status))
        return answer

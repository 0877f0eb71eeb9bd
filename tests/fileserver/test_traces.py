"""What a collector of traces receives, by OTLP over HTTP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fileserver import config, traces


def test_a_collector_receives_what_was_done_and_one_that_is_away_hinders_nothing(tmp_path):
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    (tmp_path / "c.yaml").write_text(f"traces: {{endpoint: 'http://127.0.0.1:{server.server_port}/'}}")
    settings = config.load(tmp_path / "c.yaml", {}, tmp_path / "state").traces
    assert settings is not None
    traces.start(settings.endpoint)
    with traces.span("segment", "t1", segment=3) as told:
        told["end"] = "ok"
    traces.stop()
    server.shutdown()
    server.server_close()
    thread.join()
    [(path, request)] = received
    assert path == "/v1/traces"
    [span] = request.resource_spans[0].scope_spans[0].spans
    facts = {each.key: each.value for each in span.attributes}
    assert (span.name, facts["cropduster.transfer"].string_value, facts["cropduster.segment"].int_value) == (
        "segment",
        "t1",
        3,
    )
    assert facts["cropduster.end"].string_value == "ok"

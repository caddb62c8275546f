"""One backend in a process of its own, to be restarted: PORT JOURNAL SECONDS. Notes in its journal
each call that it begins, by `+` and its x-call, and that it has finished, by `-`. On SIGTERM it
stops at once, without a warning, and lets what runs end within so many seconds."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from suite import TRACES

# How long a call takes, in seconds: at any time some are under way.
TAKES = 0.002
REPLY = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()


def main(port: str, journal: str, grace: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # Written by the kernel at once, so that what a killed process began is known.
    notes = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        calls = [value for key, value in context.invocation_metadata() if key == "x-call"]
        for call in calls:
            os.write(notes, f"+{call}\n".encode())
            time.sleep(TAKES)
            os.write(notes, f"-{call}\n".encode())
        return REPLY

    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(export)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(TRACES, {"Export": handler})]
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.stop(float(grace)).wait()


main(*sys.argv[1:])

"""OpenTelemetry traces: a span per request, and one for each of its parts.

A request records its parts as plain numbers (`common.spans`). They become OpenTelemetry's spans once it has
been answered, and a thread sends them. Without ``LIMEN_TRACES`` none of its packages is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter, time
from typing import TYPE_CHECKING

from common.errors import needs
from common.spans import Span
from service import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_NANOSECONDS = 1_000_000_000


def build_tracer(address: str | None, share: float) -> Tracer | None:
    """What sends a share of the traces to the collector at an address; None without one.

    Raises MissingExtra where the packages are not installed.
    """
    if address is None:
        return None
    with needs("LIMEN_TRACES", "otel"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    exporter = OTLPSpanExporter(f"{address.rstrip('/')}/v1/traces")
    return Tracer(BatchSpanProcessor(exporter), share)


class Tracer:
    """Gives answered requests to a span processor of OpenTelemetry.

    A request that comes with a trace (W3C ``traceparent``) is kept if its sender keeps it, and ``share`` of
    the others.
    """

    def __init__(self, processor: SpanProcessor, share: float) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "limen", "service.version": VERSION})
        # the service ends its own threads: nothing of this may wait for the interpreter to exit
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(share), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("limen", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._set_span, self._server = set_span_in_context, SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def keep(
        self,
        root: Span,
        parts: Sequence[Span],
        headers: Mapping[bytes, bytes],
        attributes: Mapping[str, str | int],
        failed: bool,
    ) -> None:
        """Keep a request with its parts and what is known of it; ``headers`` may name its trace."""
        to_epoch = time() - perf_counter()

        def convert(seconds: float) -> int:
            return int((to_epoch + seconds) * _NANOSECONDS)

        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in self._propagator.fields
            if name.encode() in headers
        }
        request = self._tracer.start_span(
            root.name,
            context=self._propagator.extract(carrier) if carrier else None,
            kind=self._server,
            attributes=dict(attributes),
            start_time=convert(root.start),
        )
        if request.is_recording():
            if failed:
                request.set_status(self._failed)
            context = self._set_span(request)
            for name, start, end in parts:
                part = self._tracer.start_span(name, context=context, start_time=convert(start))
                part.end(convert(end))
        request.end(convert(root.end))

    def close(self) -> None:
        """Send what has not been sent yet."""
        self._provider.shutdown()

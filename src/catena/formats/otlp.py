"""Log records in OTLP's JSON encoding (OpenTelemetry Protocol 1.x, ``ExportLogsServiceRequest``).

64-bit integers are decimal strings, as protobuf's JSON mapping has them. A receiver answers with an
``ExportLogsServiceResponse``, whose ``partialSuccess`` says how many records it rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import msgspec

from catena.errors import FormatError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SeverityNumber(IntEnum):
    """The two of the logs data model that are used."""

    INFO = 9
    WARN = 13


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record; ``at`` has a time zone."""

    at: datetime
    severity: SeverityNumber
    body: str
    attributes: Mapping[str, str | int]


class PartialSuccess(msgspec.Struct, frozen=True, rename="camel"):
    """What a receiver did not take."""

    rejected_log_records: str | int = 0
    error_message: str = ""


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    partial_success: PartialSuccess | None = None


def encode(resource: Mapping[str, str | int], scope: str, records: Sequence[LogRecord]) -> bytes:
    """The body of a request to ``/v1/logs``."""
    logs = {"scope": {"name": scope}, "logRecords": [_record(one) for one in records]}
    return msgspec.json.encode(
        {"resourceLogs": [{"resource": {"attributes": _attributes(resource)}, "scopeLogs": [logs]}]}
    )


def rejected(body: bytes) -> tuple[int, str]:
    """How many records an answer rejects, and why. Raises ``FormatError``."""
    try:
        answer = msgspec.json.decode(body or b"{}", type=_Answer)
        partial = answer.partial_success or PartialSuccess()
        return int(partial.rejected_log_records), partial.error_message
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FormatError("not an OTLP answer in JSON") from error


def _record(record: LogRecord) -> dict[str, object]:
    nanoseconds = str((record.at - _EPOCH) // timedelta(microseconds=1) * 1000)
    return {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": int(record.severity),
        "severityText": record.severity.name,
        "body": {"stringValue": record.body},
        "attributes": _attributes(record.attributes),
    }


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, object]]:
    return [
        {
            "key": key,
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in values.items()
    ]

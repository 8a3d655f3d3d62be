"""Entries are exported in order and at least once, whatever fails, and no decision waits."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import socket
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber

import small_audit
from catena.audit.entries import Entry, NodeEntry
from catena.audit.folder import LogFolder
from catena.audit.hashes import read_bundle
from catena.audit.leaf import open_entry, seal_entry
from catena.keys.hierarchy import KeyName
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from catena.server import export_target
from catena.server.config import BadConfig
from catena.server.export_target import BadExport
from catena.server.exporting import Cursor, CursorUnusable
from catena.service.views import ExportsReport, SecretRequest
from server.exports import *  # noqa: F403 - fixtures
from server.exports import ORIGIN, denial, only, wait_for
from server.live import *  # noqa: F403 - fixtures
from server.live import lifetime
from server.receivers import HttpReceiver, SyslogListener
from server.rsyslog import Rsyslog, needs_rsyslog
from service.fixtures import make_server


def syslog_socket(kind: str, tmp_path, port: int = 0) -> tuple[socket.socket, str]:
    if kind.startswith("unix"):
        style = socket.SOCK_STREAM if kind == "unix-stream" else socket.SOCK_DGRAM
        listening = socket.socket(socket.AF_UNIX, style)
        (tmp_path / "dev-log").unlink(missing_ok=True)
        listening.bind(str(tmp_path / "dev-log"))
        address = f"syslog {kind}:{tmp_path / 'dev-log'}"
    else:
        style = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        listening = socket.socket(socket.AF_INET, style)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        address = f"syslog {kind}:127.0.0.1:{listening.getsockname()[1]}"
    if style == socket.SOCK_STREAM:
        listening.listen()
    return listening, address


@pytest.mark.parametrize("kind", ["unix", "unix-stream", "udp", "tcp"])
def test_syslog_gets_each_entry_as_one_message_that_another_reader_understands(
    tmp_path, append, exporting_to, kind
):
    append(3, 'a]"\\\n<34>1 - forged \x1b[2J\u202e')
    listening, address = syslog_socket(kind, tmp_path)
    listener = SyslogListener(listening)
    exporters = exporting_to(address)
    wait_for(lambda: only(exporters).exported == 3)
    wait_for(lambda: len(listener.raw) == 3)
    first, *_ = listener.messages
    assert listener.indices == [0, 1, 2]
    assert (first.priority, first.hostname, first.app) == (108, "trust.example.org", "catena")
    assert (first.message_id, first.data_id) == ("denial", "catena@32473")
    assert first.data["origin"] == ORIGIN
    assert "forged" in first.text
    assert first.text.isprintable()
    assert all(min(one) >= 0x20 for one in listener.raw)
    listener.close()


@pytest.mark.parametrize("kind", ["unix", "unix-stream", "tcp"])
def test_a_syslog_receiver_that_was_down_gets_what_it_missed(tmp_path, append, exporting_to, kind):
    append(2)
    listening, address = syslog_socket(kind, tmp_path)
    port = 0 if kind.startswith("unix") else listening.getsockname()[1]
    first = SyslogListener(listening)
    exporters = exporting_to(address)
    wait_for(lambda: len(first.raw) == 2)
    first.close()
    append(300)
    wait_for(lambda: only(exporters).code == "export-unreachable")
    second = SyslogListener(syslog_socket(kind, tmp_path, port)[0])
    wait_for(lambda: only(exporters).exported == 302 and only(exporters).code is None)
    wait_for(lambda: len(second.raw) >= 300)
    assert list(dict.fromkeys(first.indices + second.indices)) == list(range(302))
    second.close()


def every_kind(count: int) -> list[Entry]:
    """Entries as a log has them, several kinds, some of whose texts try to be more than text."""
    wild = denial(0, 'a]"\\\n<34>1 - forged \x1b[2J\u202e {"x": 1}')
    return list(itertools.islice(itertools.cycle((*small_audit.ENTRIES, wild)), count))


def spelled_out(text: str) -> str:
    """Control characters as they are sent: a message is one line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


@needs_rsyslog
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_rsyslog_understands_every_entry_and_writes_each_once_in_order(
    tmp_path, log, signer, exporting_to, transport
):
    entries = every_kind(600)
    leaves = [seal_entry(signer, entry) for entry in entries]
    log.append(leaves[:300])
    with Rsyslog(tmp_path / "rsyslog", transport) as rsyslog:
        exporters = exporting_to(rsyslog.address)
        log.append(leaves[300:])
        wait_for(lambda: only(exporters).exported == len(entries))
        wait_for(lambda: len(rsyslog.lines) >= len(entries))
    received = rsyslog.received
    assert len(received) == len(entries)
    for index, (one, entry, leaf) in enumerate(zip(received, entries, leaves, strict=True)):
        data = {
            "origin": ORIGIN,
            "index": str(index),
            "sha256": hashlib.sha256(leaf).hexdigest(),
            "actor": entry.actor,
        }
        if isinstance(entry, NodeEntry):
            data["node"] = entry.node_id
        assert one.data == {"catena@32473": data}
        assert (one.host, one.app, one.kind) == ("trust.example.org", "catena", entry.kind)
        assert (one.at, one.priority >> 3) == (entry.at, 13)
        assert one.text == f"\ufeff{spelled_out(entry.summary())}"


def test_opentelemetry_reads_every_record_as_the_entry_that_it_is(log, signer, exporting_to):
    """By OpenTelemetry's own definition of a request, and its answer by that of an answer."""
    entries = every_kind(150)
    leaves = [seal_entry(signer, entry) for entry in entries]
    log.append(leaves)
    nothing_rejected = json_format.MessageToJson(ExportLogsServiceResponse()).encode()
    with HttpReceiver(answer=nothing_rejected) as receiver:
        exporters = exporting_to(f"otlp {receiver.url}")
        wait_for(lambda: only(exporters).exported == len(entries))
        posts = list(receiver.posts)
    records = []
    for headers, body in posts:
        assert headers["content-type"] == "application/json"
        request = json_format.Parse(body, ExportLogsServiceRequest())
        (resource,) = request.resource_logs
        assert values(resource.resource.attributes) == {
            "service.name": "catena",
            "service.instance.id": "trust.example.org",
            "catena.log.origin": ORIGIN,
        }
        (scope,) = resource.scope_logs
        assert scope.scope.name == "catena.audit"
        records += scope.log_records
    assert len(records) == len(entries)
    for index, (record, entry, leaf) in enumerate(zip(records, entries, leaves, strict=True)):
        attributes = values(record.attributes)
        assert open_entry(attributes["catena.leaf"].encode(), signer.public_key) == entry
        assert attributes == {
            "catena.kind": entry.kind,
            "catena.index": index,
            "catena.actor": entry.actor,
            "catena.leaf.sha256": hashlib.sha256(leaf).hexdigest(),
            "catena.leaf": leaf.decode(),
            **({"catena.node": entry.node_id} if isinstance(entry, NodeEntry) else {}),
        }
        alarming = entry.kind == "denial" or getattr(entry, "verdict", "") == "untrusted"
        expected = SeverityNumber.SEVERITY_NUMBER_WARN if alarming else SeverityNumber.SEVERITY_NUMBER_INFO  # fmt: skip
        assert record.severity_number == expected
        assert record.body.string_value == entry.summary()
        seconds, rest = divmod(record.time_unix_nano, 10**9)
        at = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=rest // 1000)
        assert at == entry.at


def values(attributes) -> dict[str, str | int]:
    """Attributes by name, each of the one type that it has."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def test_a_rejection_that_opentelemetry_writes_is_understood(append, exporting_to):
    append(1)
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 1
    answer.partial_success.error_message = "full"
    with HttpReceiver(answer=json_format.MessageToJson(answer).encode()) as receiver:
        exporters = exporting_to(f"otlp {receiver.url}")
        wait_for(lambda: only(exporters).code == "export-refused")
        assert only(exporters).exported == 0


def test_a_thousand_entries_arrive_in_order_and_as_they_are(
    tmp_path, append, exporting_to, signer, log
):
    with HttpReceiver() as receiver:
        exporters = exporting_to(f"http {receiver.url}")
        for _ in range(10):
            append(100)
            exporters.wake()
        wait_for(lambda: only(exporters).exported == 1000)
        indices = [int(headers["catena-log-index"]) for headers, _ in receiver.posts]
        assert indices == list(range(1000))
        leaves = [
            leaf for one in range(4) for leaf in read_bundle(LogFolder(tmp_path / "log"), one, 1000)
        ]
        assert [body for _, body in receiver.posts] == leaves
        assert {headers["catena-log-origin"] for headers, _ in receiver.posts} == {ORIGIN}
        assert open_entry(receiver.posts[7][1], signer.public_key).kind == "denial"


def test_a_receiver_that_refuses_gets_the_same_entry_until_it_takes_it(append, exporting_to):
    append(5)
    with HttpReceiver(status=503) as receiver:
        exporters = exporting_to(f"http {receiver.url}")
        wait_for(lambda: receiver.seen > 3)
        assert only(exporters).code == "export-refused"
        assert only(exporters).exported == 0
        receiver.status = 200
        wait_for(lambda: only(exporters).exported == 5)
        assert [int(one["catena-log-index"]) for one, _ in receiver.posts] == [0, 1, 2, 3, 4]
        assert len(exporting_to.lines) == 1  # one line for one fault, however often it is met


def test_otlp_records_hold_the_entry_and_its_leaf(append, exporting_to, signer):
    append(70)
    with HttpReceiver() as receiver:
        exporters = exporting_to(f"otlp {receiver.url}")
        wait_for(lambda: only(exporters).exported == 70)
        records = []
        for headers, body in receiver.posts:
            assert headers["content-type"] == "application/json"
            (resource,) = json.loads(body)["resourceLogs"]
            (scope,) = resource["scopeLogs"]
            records += scope["logRecords"]
    values = [{one["key"]: one["value"] for one in record["attributes"]} for record in records]
    assert [int(one["catena.index"]["intValue"]) for one in values] == list(range(70))
    assert int(records[0]["timeUnixNano"]) == 1_767_323_045_678_900_000
    assert (records[0]["severityNumber"], records[0]["severityText"]) == (13, "WARN")
    assert records[0]["body"]["stringValue"].startswith("request-0 denied: bad")
    leaf = values[0]["catena.leaf"]["stringValue"].encode()
    assert open_entry(leaf, signer.public_key) == denial(0)


@pytest.mark.parametrize(
    "answer", [b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"full"}}', b"<html>"]
)
def test_otlp_records_that_were_rejected_are_not_taken_for_sent(append, exporting_to, answer):
    append(2)
    with HttpReceiver(answer=answer) as receiver:
        exporters = exporting_to(f"otlp {receiver.url}")
        wait_for(lambda: only(exporters).code == "export-refused")
        assert only(exporters).exported == 0
        receiver.answer = b'{"partialSuccess":{}}'
        wait_for(lambda: only(exporters).exported == 2)


def test_a_file_gets_lines_also_behind_one_that_a_crash_cut_off(tmp_path, append, exporting_to):
    append(2)
    exported = tmp_path / "out.jsonl"
    exported.write_bytes(b'{"origin":"lo')
    exporters = exporting_to("file out.jsonl")
    wait_for(lambda: only(exporters).exported == 2)
    cut, *lines = exported.read_text().splitlines()
    assert cut == '{"origin":"lo'
    assert [json.loads(line)["index"] for line in lines] == [0, 1]


def test_a_restart_goes_on_where_the_last_one_ended(tmp_path, append, exporting_to):
    append(3)
    first = exporting_to("file out.jsonl")
    wait_for(lambda: only(first).exported == 3)
    first.stop()
    append(2)
    second = exporting_to("file out.jsonl")
    wait_for(lambda: only(second).exported == 5)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3, 4]


def test_a_leaf_that_another_key_signed_is_not_exported(tmp_path, log, exporting_to):
    other = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    log.append([seal_entry(other, denial(0))])
    exporters = exporting_to("file out.jsonl")
    wait_for(lambda: only(exporters).code)
    assert only(exporters).exported == 0
    assert not (tmp_path / "out.jsonl").exists()


def test_a_log_that_is_smaller_than_its_export_is_told_of(tmp_path, append, exporting_to):
    append(2)
    Cursor(tmp_path, export_target.parse("file out.jsonl"), ORIGIN).save(3)
    exporters = exporting_to("file out.jsonl")
    wait_for(lambda: only(exporters).code == "export-ahead")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"target":"x","origin":"y","next":1}'])
def test_a_cursor_that_is_damaged_or_foreign_is_refused(tmp_path, content):
    cursor = Cursor(tmp_path, export_target.parse("file out.jsonl"), ORIGIN)
    cursor.save(1)
    (path,) = (tmp_path / "exports").iterdir()
    path.write_bytes(content)
    with pytest.raises(CursorUnusable):
        cursor.load()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mail a@b",
        "syslog",
        "syslog udp:host",
        "syslog udp:host:0",
        "syslog tcp:host:65536",
        "syslog tls:host:6514",
        "syslog unix:",
        "otlp ftp://host",
        "otlp http://user@host/v1/logs",
        "http http://host/?token=x",
        "file ",
        "file a\nb",
    ],
)
def test_a_target_that_cannot_be_is_refused(text):
    with pytest.raises(BadExport):
        export_target.parse(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"exports": ("mail a@b",)},
        {"exports": ("file a", "file a")},
        {"exports": ("file a",), "export_ca": "server.toml"},
    ],
)
def test_exports_that_cannot_be_are_refused_before_the_server_starts(tmp_path, keys, settings):
    with pytest.raises(BadConfig):
        make_server(tmp_path / "server", keys, **settings)


def test_a_decision_does_not_wait_for_a_receiver_that_hangs(tmp_path, keys):
    with HttpReceiver(hold=threading.Event()) as receiver:
        server = make_server(tmp_path / "server", keys, exports=(f"http {receiver.url}",))
        server.opened.exporters.start()
        wait_for(lambda: receiver.seen)
        size = server.opened.log.size
        server.service.secrets.put("s", SecretRequest(roles=("node",), value=b"x"), "admin")
        assert server.opened.log.size > size
        assert only(server.opened.exporters).exported == 0  # it hangs still
        receiver.hold.set()
        wait_for(lambda: only(server.opened.exporters).exported == server.opened.log.size)
        server.opened.close()


def test_an_entry_comes_twice_if_the_server_is_killed_before_it_noted_the_first(tmp_path, keys):
    with HttpReceiver(hold=threading.Event()) as receiver:
        server = make_server(tmp_path / "server", keys, exports=(f"http {receiver.url}",))
        for running in lifetime(server):
            wait_for(lambda: len(receiver.posts) == 1)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        receiver.hold.set()
        for _ in lifetime(server):
            wait_for(lambda: len(receiver.posts) >= 2)
    assert receiver.posts[0] == receiver.posts[1]
    assert receiver.posts[0][0]["catena-log-index"] == "0"
    assert open_entry(receiver.posts[0][1], keys.public_key(KeyName.LOG)).kind == "admin-token"


def test_the_server_says_how_far_an_export_is(tmp_path, keys):
    server = make_server(tmp_path / "server", keys, exports=("file out.jsonl",))
    for running in lifetime(server):
        with running.http() as http:
            assert http.get("/v1/admin/export").status_code == 401
            http.headers["authorization"] = f"Bearer {running.token}"

            def report(http=http):
                answer = http.get("/v1/admin/export")
                return msgspec.json.decode(answer.content, type=ExportsReport).exports[0]

            # The token, three keys of the first start, and that this token asks.
            found = wait_for(lambda: (one := report()).exported == 5 and one)
            assert (found.target, found.log_size, found.code) == ("file out.jsonl", 5, None)
    assert (tmp_path / "server/out.jsonl").read_text().count("\n") == 5

"""Metrics: what the manual promises is there, counts what happened, and tells nobody who."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from catena.server import metrics as counting
from catena.server.metrics import Metrics, State
from catena.server.metrics_door import MetricsDoor
from catena.server.run import listen
from server.live import *  # noqa: F403 - fixtures
from service.fixtures import make_server
from service.machine import Call
from swtpm import needs_swtpm

MANUAL = (Path(__file__).parents[2] / "docs/manual.md").read_text()


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return f"127.0.0.1:{door.getsockname()[1]}"


def read(address: str, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def families(text: str):
    return {one.name: one for one in text_string_to_metric_families(text)}


def sample(text: str, name: str, **labels: str) -> float:
    return sum(
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


@pytest.fixture
def measured(tmp_path, keys, trusting):
    """A server process whose metrics can be read, and where."""
    trusting.opened.close()
    address = free_address()
    settings = trusting.folder / "server.toml"
    settings.write_text(
        settings.read_text().replace("# metrics_listen =", f'metrics_listen = "{address}"')
    )
    for running in lifetime(trusting):  # noqa: F405 - of server.live
        yield running, address


def documented() -> dict[str, tuple[str, set[str]]]:
    table = MANUAL.split("| metric | type | labels | meaning |\n|---|---|---|---|\n")[1]
    rows = [line.strip("|").split("|") for line in table.split("\n\n")[0].splitlines()]
    return {
        row[0].strip().strip("`"): (row[1].strip(), set(re.findall(r"`(\w+)`", row[2])))
        for row in rows
    }


@needs_swtpm
@pytest.mark.tpm
def test_a_whole_server_tells_what_the_manual_says_and_no_names(measured, machine):
    running, address = measured
    with running.http() as client:
        call: Call = running.call(client)
        machine.enrol(call)
        machine.attest(call)
        assert client.get("/v1/nothing").status_code == 404
        assert client.get("/v1/admin/nodes/secret-name").status_code == 401
    status, text = read(address)
    assert status == 200
    found = families(text)
    told = documented()
    assert {name.removesuffix("_total") for name in told} == set(found)
    for name, (kind, labels) in told.items():
        family = found[name.removesuffix("_total")]
        assert family.type == kind, name
        for one in family.samples:
            assert set(one.labels) - {"le"} == labels, name
    assert machine.node_id not in text
    assert "secret-name" not in text
    assert sample(text, "catena_verdicts_total") == 1
    assert sample(text, "catena_requests_total", route="/v1/attest", status="200") == 1
    assert sample(text, "catena_requests_total", route="none", status="404") == 1
    assert sample(text, "catena_refusals_total", code="unauthenticated") == 1
    for step in ("judge", "evidence", "log", "database"):
        assert sample(text, "catena_attestation_step_seconds_count", step=step) == 1
    assert sample(text, "catena_nodes", state="pending") == 1
    assert sample(text, "catena_log_entries") >= sample(text, "catena_log_appends_total") > 0
    assert sample(text, "process_resident_memory_bytes") > 1e6
    assert read(address, "/")[0] == 404


def test_without_the_setting_there_are_no_metrics(running):
    with running.http() as client:
        assert client.get("/metrics").status_code == 404


def state_of(server, **changes) -> State:
    opened = server.opened
    parts = {
        "log": opened.log,
        "database": opened.database,
        "collector": None,
        "exporters": None,
    }
    return State(**{**parts, **changes})


def test_lags_of_witnesses_and_receivers(tmp_path, keys):
    exported = tmp_path / "out.jsonl"
    server = make_server(
        tmp_path / "server",
        keys,
        exports=(f"file {exported}", f"file {tmp_path / 'none/out'}"),
        metrics_listen="127.0.0.1:0",
    )
    server.opened.exporters.start()
    metrics = server.opened.metrics
    metrics.watch(state_of(server, exporters=server.opened.exporters))
    while sample(text := metrics.text().decode(), "catena_export_lag_entries", export="0"):
        pass
    assert sample(text, "catena_export_lag_entries", export="1") == server.opened.log.size
    server.opened.close()


def test_a_database_that_is_gone_does_not_end_the_door(server):
    metrics, lines = Metrics(), []
    metrics.watch(state_of(server))
    door = MetricsDoor(listen("127.0.0.1:0"), metrics, lines.append)
    try:
        assert read(f"127.0.0.1:{door.port}")[0] == 200
        server.opened.database.close()
        (server.folder / "catena.db").rename(server.folder / "gone")
        (server.folder / "catena.db").mkdir()
        door_state = state_of(server)
        again = Metrics()
        again.watch(door_state)
        other = MetricsDoor(listen("127.0.0.1:0"), again, lines.append)
        assert read(f"127.0.0.1:{other.port}")[0] == 503
        other.close()
        assert "DatabaseGone" in lines[-1]
        (server.folder / "catena.db").rmdir()
        (server.folder / "gone").rename(server.folder / "catena.db")
    finally:
        door.close()


def test_nodes_are_not_counted_at_each_reading(server, monkeypatch):
    class Ticks:
        time = 0.0

        def __call__(self):
            return self.time

    clock, metrics = Ticks(), Metrics()
    metrics.watch(state_of(server, clock=clock))
    calls = []
    count = type(server.opened.database).snapshot

    def counted(self):
        calls.append(1)
        return count(self)

    monkeypatch.setattr(type(server.opened.database), "snapshot", counted)
    for _ in range(5):
        metrics.text()
    assert len(calls) == 1
    clock.time = counting.RECOUNT
    metrics.text()
    assert len(calls) == 2


def test_a_reader_that_says_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr("catena.server.metrics_door.TIMEOUT", 0.2)
    door = MetricsDoor(listen("127.0.0.1:0"), Metrics(), print)
    try:
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as idle:
            assert read(f"127.0.0.1:{door.port}")[0] == 200
            assert idle.recv(10) == b""
    finally:
        door.close()

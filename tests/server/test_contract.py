"""The API keeps to its description, whatever it is asked: Schemathesis against a real server.

Schemathesis makes requests from the document alone, right and wrong ones, and holds each answer against it. Seed and
number of requests are fixed, so that a run finds what the last one found.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from catena.formats import eventstream
from catena.server.app import OPERATIONS
from catena.server.openapi import describe
from server.live import *  # noqa: F403 - fixtures
from server.live import Running, lifetime
from server.test_pages import node
from service.fixtures import make_server, put_secret

CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
REFUSED = ["400", "401", "403", "404", "405", "409", "413", "422"]
CONFIG = SchemathesisConfig.from_dict(
    {"seed": 1, "checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
)
DOCUMENT = json.loads(describe(OPERATIONS).encode())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
ENDLESS = [one.path for one in OPERATIONS if one.media == eventstream.MEDIA_TYPE]

session = requests.Session()


@pytest.fixture(scope="module")
def asked(tmp_path_factory, keys) -> Iterator[Running]:
    """A server that knows something, and is asked so much that its lines have to be read meanwhile."""
    server = make_server(tmp_path_factory.mktemp("asked") / "server", keys)
    with server.opened.database.transaction() as rows:
        for number in range(3):
            rows.nodes.insert(node(number))
    put_secret(server.service, "db", "web")
    with contextlib.contextmanager(lifetime)(server) as running:
        reading = threading.Thread(target=running.process.stderr.read, daemon=True)
        reading.start()
        yield running
        running.process.kill()
        reading.join(20)


@SCHEMA.exclude(path=ENDLESS).parametrize()
@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_was_described(case, asked: Running):
    response = case.call(
        base_url=asked.url,
        session=session,
        headers={"authorization": f"Bearer {asked.token}"},
        verify=str(asked.folder / "ca.crt"),
    )
    case.validate_response(response, checks=CHECKS)

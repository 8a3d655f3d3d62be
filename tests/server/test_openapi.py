"""The API's description holds for the application, follows OpenAPI 3.1, and is what people read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import jsonschema_rs
import pytest
import schemathesis
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.routing import Route

from catena.audit.folder import LogFolder
from catena.cli.main import catena
from catena.server.app import OPERATIONS, build_app
from catena.server.faults import status_of
from catena.server.feed import Feed
from catena.server.openapi import describe, refusals

DOCUMENT = json.loads(describe(OPERATIONS).encode())


def routes_of(application) -> set[tuple[str, str]]:
    while not isinstance(application, Starlette):
        application = application._app
    assert all(isinstance(route, Route) for route in application.routes)
    return {
        (method, route.path) for route in application.routes for method in route.methods - {"HEAD"}
    }


def test_each_route_is_described_and_each_described_route_exists(server):
    opened = server.opened
    log = LogFolder(opened.folder / opened.config.log)
    feed = Feed(log, server.service.setting.journal.public_key, opened.config.log_origin, 1)
    routes = routes_of(build_app(server.service, opened.config, log=log, feed=feed))
    assert routes == {(one.method, one.path) for one in OPERATIONS}
    described = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert described == {(method, path.replace(":path}", "}")) for method, path in routes}


def objects(value):
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from objects(one)


def test_the_document_is_loaded_by_another_reader():
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    loaded = {(one.ok().method.upper(), one.ok().path) for one in schema.get_all_operations()}
    assert len(loaded) == len(OPERATIONS)


def test_every_reference_leads_somewhere_and_every_shape_is_a_schema():
    for one in objects(DOCUMENT):
        if "$ref" in one:
            assert one["$ref"].rpartition("/")[2] in DOCUMENT["components"]["schemas"]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.Draft202012Validator(whole)


def test_names_of_operations_differ():
    names = [one["operationId"] for one in operations().values()]
    assert len(set(names)) == len(names)


def operations() -> dict[tuple[str, str], dict]:
    return {
        (method.upper(), path): one
        for path, methods in DOCUMENT["paths"].items()
        for method, one in methods.items()
    }


def test_who_may_ask_is_said_and_refusals_are_problem_details():
    for one in OPERATIONS:
        told = operations()[one.method, one.path.replace(":path}", "}")]
        assert ("security" in told) == (one.right is not None)
        assert ("401" in told["responses"]) == (one.right is not None)
        wanted = {str(int(status_of(kind.__new__(kind)))) for kind in refusals(one)}
        assert wanted <= set(told["responses"])
        for status, answer in told["responses"].items():
            if status != "200":
                (content,) = answer["content"].items()
                assert content[0] == "application/problem+json"
                assert content[1]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}


def test_patterns_are_those_of_other_languages():
    patterns = [one["pattern"] for one in objects(DOCUMENT) if isinstance(one.get("pattern"), str)]
    assert patterns
    assert not any(r"\Z" in pattern for pattern in patterns)
    for pattern in patterns:
        re.compile(pattern)


def test_anybody_may_read_the_description(api):
    answer = api.http.get("/v1/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


@pytest.mark.parametrize("options", [[], ["-o", "json"]])
def test_the_command_prints_what_the_server_serves(options):
    printed = CliRunner().invoke(catena, ["server", "openapi", *options])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == DOCUMENT


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            if name in {"href", "src", "style"} or name.startswith("on"):
                self.links.append(value if name == "href" else name)

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_every_operation_and_loads_nothing(api):
    answer = api.http.get("/v1/docs")
    page = Page(answer.text)
    for one in OPERATIONS:
        assert f"{one.method} {one.path.replace(':path}', '}')}" in page.text
        assert one.summary.split("`")[0] in page.text
    assert not {"script", "img", "link", "iframe", "form"} & set(page.tags)
    assert all(link == "openapi.json" or link[1:] in page.ids for link in page.links)


def test_the_page_allows_its_own_style_alone(api):
    answer = api.http.get("/v1/docs")
    style = answer.text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/v1/openapi.json", "/v1/docs"])
def test_the_description_holds_nothing_of_this_server(api, path):
    text = api.http.get(path).text
    config = api.server.opened.config
    for told in (config.trust_domain, config.log_origin, str(api.server.folder), api.server.token):
        assert told not in text

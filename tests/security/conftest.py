"""What the attacks on the trust decisions are made against: the fixtures of ``service``, shared."""

from __future__ import annotations

import pytest

from appraise.forged import Exchange, references_of
from server.conftest import *  # noqa: F403 - one set of fixtures for service, server and attacks
from service.fixtures import put_secret


@pytest.fixture(scope="session")
def references(boot):
    return references_of(boot)


@pytest.fixture
def exchange(boot) -> Exchange:
    return Exchange(boot)


@pytest.fixture
def admitted(trusting, machine):
    """A server, and the machine as a node that received its first certificate."""
    put_secret(trusting.service, "db-password", "web")
    trusting.admit(machine)
    assert machine.attest(trusting.call).state == "trusted"
    trusting.clock.pass_(1)
    return trusting

from __future__ import annotations

import pytest
from store_samples import make_node

from catena.store.database import Database


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'catena.db'}"


@pytest.fixture
def database(url):
    opened = Database.create(url)
    yield opened
    opened.close()


@pytest.fixture
def node(database):
    """A node that is in the database."""
    stored = make_node(1)
    with database.transaction() as tx:
        tx.nodes.insert(stored)
    return stored

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from catena.keys import hierarchy

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enterprise") / "keys"
    return hierarchy.init(folder, organisation="Example", now=NOW)

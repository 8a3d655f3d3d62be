"""One real registry for all tests of a session that need one."""

import pytest

from container_images import registry


@pytest.fixture(scope="session")
def local_registry(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running

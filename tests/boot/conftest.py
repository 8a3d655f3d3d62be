"""One run of the demo, with real firmware and kernels, that many tests look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from told_story import Story

DEMO_SECONDS = 1500


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The demo, run once; whatever a test leaves running is ended afterwards."""
    folder = tmp_path_factory.mktemp("story")
    home, log = folder / "lab", folder / "log-of-the-demo"
    lab = Story(home, {}, "", log)
    try:
        told = lab.catena("lab", "demo", seconds=DEMO_SECONDS)
        assert told.status == 0, told.errors[-3000:]
        shutil.copytree(home / "server/log", log)
        yield Story(home, told.document, told.errors, log)
    finally:
        lab.catena("lab", "down")
        shutil.rmtree(home, ignore_errors=True)

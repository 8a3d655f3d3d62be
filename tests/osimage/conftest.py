from __future__ import annotations

from datetime import UTC, datetime

import pytest

from catena.keys import hierarchy
from catena.osimage.build import Recipe, build
from catena.osimage.tool import BUILD_TOOLS
from catena.osimage.tree import Tree
from small_images import make_modules, make_tree, small_kernel, small_stub

MISSING = [tool.name for tool in BUILD_TOOLS if tool.find() is None]


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enterprise") / "keys"
    return hierarchy.init(folder, organisation="Example", now=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return Tree(make_tree(tmp_path_factory.mktemp("tree")))


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    return make_modules(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="session")
def recipe(tree, modules, tmp_path_factory):
    inputs = tmp_path_factory.mktemp("inputs")
    (inputs / "vmlinuz").write_bytes(small_kernel())
    (inputs / "stub").write_bytes(small_stub())
    return Recipe(
        name="edge",
        version="1.0",
        security_version=3,
        kernel=inputs / "vmlinuz",
        modules=modules,
        tree=tree.root,
        stub=inputs / "stub",
        module_names=("disk", "net", "tpm"),
    )


@pytest.fixture(scope="session")
def built(recipe, keys, tmp_path_factory):
    """One finished release, to be read only."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("release") / "edge-1.0"
    return folder, build(recipe, keys, folder)

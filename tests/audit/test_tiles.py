"""Names and contents of tiles."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.audit import merkle, tiles
from catena.audit.tiles import Tile
from catena.audit.tree import EMPTY_TREE, TileNodes, load_tree
from catena.errors import FormatError

TESSERA = (
    Path(__file__).resolve().parents[2].parent
    / "shared/corpus/tlog/transparency-dev+tessera/testdata/log"
)
needs_corpus = pytest.mark.skipif(not TESSERA.is_dir(), reason="the shared corpus is not here")


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 5, 7), "tile/1/005.p/7"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(None, 1000, 255), "tile/entries/x001/000.p/255"),
    ],
)
def test_paths_are_those_of_the_specification(tile, path):
    assert tile.path == path
    assert tiles.parse_path(path) == tile


@given(
    level=st.none() | st.integers(0, 63),
    index=st.integers(0, 10**18),
    width=st.integers(1, 256),
)
def test_every_path_names_its_tile(level, index, width):
    tile = Tile(level, index, width)
    assert tiles.parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/00/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/07",
        "tile/0/001.p/999",
        "tile/0/001/",
        "tile/-1/001",
        "tile/100/001",
        "tile/data/001",
        "tile/0/../0/001",
        "/tile/0/001",
        "tile/0/001\n",
        "tile/0/٠٠١",
    ],
)
def test_any_other_path_is_refused(path):
    with pytest.raises(FormatError):
        tiles.parse_path(path)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_every_bundle_survives_its_encoding(entries):
    assert tiles.parse_bundle(tiles.encode_bundle(entries), len(entries)) == tuple(entries)


def test_a_bundle_cut_at_any_byte_is_refused():
    data = tiles.encode_bundle([b"one", b"", b"three"])
    for end in range(len(data)):
        with pytest.raises(FormatError):
            tiles.parse_bundle(data[:end], 3)


def test_a_bundle_with_too_much_in_it_is_refused():
    with pytest.raises(FormatError, match="trailing"):
        tiles.parse_bundle(tiles.encode_bundle([b"one", b"two"]), 1)


@given(st.binary(max_size=60), st.integers(0, 5))
def test_arbitrary_bytes_raise_nothing_but_format_errors(data, width):
    with contextlib.suppress(FormatError):
        assert tiles.encode_bundle(tiles.parse_bundle(data, width)) == data


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 65536 + 300])
def test_a_tree_grown_at_once_or_in_steps_needs_the_same_files(size):
    entries = [b"%d" % number for number in range(size)]
    at_once = EMPTY_TREE.grow(entries)
    half = EMPTY_TREE.grow(entries[: size // 2]).tree.grow(entries[size // 2 :])
    assert half.tree == at_once.tree
    files = dict(at_once.files)
    assert all(files[tile] == content for tile, content in half.files)
    assert all(tile.width == tiles.width_at(tile.level, tile.index, size) for tile in files)


def test_higher_tiles_hold_the_roots_of_lower_ones():
    size = 256 * 3 + 5
    entries = [b"%d" % number for number in range(size)]
    growth = EMPTY_TREE.grow(entries)
    files = dict(growth.files)
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    assert files[Tile(1, 0, 3)] == b"".join(
        merkle.subtree_root(hashes[start : start + 256]) for start in (0, 256, 512)
    )
    assert growth.tree.frontier.root() == merkle.subtree_root(hashes)


@needs_corpus
def test_the_log_of_another_implementation_has_the_same_tiles():
    entries = tiles.parse_bundle((TESSERA / "tile/entries/000.p/15").read_bytes(), 15)
    for size in range(1, 16):
        for tile, content in EMPTY_TREE.grow(entries[:size]).files:
            assert (TESSERA / tile.path).read_bytes() == content, tile.path


class Files:
    """A log's files in memory."""

    def __init__(self, growth):
        self.files = {tile.path: content for tile, content in growth.files}

    def read(self, name, limit):
        return self.files.get(name)


SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 1000, 65536, 65536 + 300]


@pytest.mark.parametrize("size", SIZES)
def test_the_right_edge_is_read_back_from_the_tiles(size):
    growth = EMPTY_TREE.grow([b"%d" % number for number in range(size)])
    assert load_tree(Files(growth), size) == growth.tree


@pytest.mark.parametrize("size", [3, 257, 300])
def test_a_missing_or_short_file_on_the_right_edge_is_refused(size):
    growth = EMPTY_TREE.grow([b"%d" % number for number in range(size)])
    for tile in (Tile(0, size // 256, size % 256), Tile(None, size // 256, size % 256)):
        files = Files(growth)
        content = files.files.pop(tile.path)
        with pytest.raises(FormatError, match="missing"):
            load_tree(files, size)
        files.files[tile.path] = content[:-1]
        with pytest.raises(FormatError):
            load_tree(files, size)


@pytest.mark.parametrize("size", [3, 300])
def test_last_entries_that_the_last_tile_does_not_have_are_refused(size):
    growth = EMPTY_TREE.grow([b"%d" % number for number in range(size)])
    files = Files(growth)
    path = Tile(None, size // 256, size % 256).path
    files.files[path] = files.files[path][:-1] + b"!"
    with pytest.raises(FormatError, match="hash"):
        load_tree(files, size)


@pytest.mark.parametrize("size", SIZES)
def test_proofs_from_tiles_hold(size):
    growth = EMPTY_TREE.grow([b"%d" % number for number in range(size)])
    root = growth.tree.frontier.root()
    for index in {0, size // 2, max(0, size - 2), size - 1}:
        proof = merkle.inclusion_proof(index, size, TileNodes(Files(growth), size))
        merkle.verify_inclusion(merkle.leaf_hash(b"%d" % index), index, size, proof, root)


@pytest.mark.parametrize(("old", "new"), [(0, 1), (1, 2), (5, 13), (255, 258), (256, 700)])
def test_an_append_proves_its_own_entries(old, new):
    entries = [b"%d" % number for number in range(new)]
    growth = EMPTY_TREE.grow(entries[:old]).tree.grow(entries[old:])
    proofs = dict(growth.proofs())
    assert sorted(proofs) == list(range(old, new))
    for index, proof in proofs.items():
        leaf, root = growth.leaf_hash(index), growth.tree.frontier.root()
        assert leaf == merkle.leaf_hash(entries[index])
        merkle.verify_inclusion(leaf, index, new, proof, root)

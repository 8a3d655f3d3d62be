"""Trees: one listing for one content, and layers on top of each other."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.containers.rootfs import tree as trees
from catena.containers.rootfs.layer import aci_tree, layer_tree
from catena.containers.rootfs.refusals import AmbiguousLayer
from catena.containers.rootfs.tree import IMPLIED, WHITEOUT, Entry, Kind, completed
from catena.errors import FormatError
from catena.formats import layertar
from changed import replace
from small_tars import device, file, folder, hard_link, link, tar, whiteout


def tree_of(members, read=layer_tree):
    return read(layertar.parse(tar(members)))


def paths(tree):
    return [path.decode() for path in tree]


ENTRIES = st.builds(
    Entry,
    st.sampled_from(list(Kind)),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    size=st.integers(0, 1 << 40),
    content=st.binary(max_size=40),
    device=st.tuples(st.integers(0, 4095), st.integers(0, 1 << 20)),
    attributes=st.lists(
        st.tuples(st.sampled_from(trees.ATTRIBUTES), st.binary(max_size=30)), max_size=3
    ).map(tuple),
    opaque=st.booleans(),
    implied=st.booleans(),
)
TREES = st.dictionaries(st.binary(min_size=1, max_size=8), ENTRIES, max_size=6).map(
    lambda found: dict(sorted(found.items()))
)


@given(TREES)
def test_a_listing_reads_back(tree):
    assert trees.decode(trees.encode(tree)) == tree


@given(TREES, TREES)
def test_different_trees_have_different_listings(one, other):
    assert (trees.encode(one) == trees.encode(other)) == (one == other)


@given(TREES, st.data())
def test_a_listing_cut_anywhere_is_refused_or_a_shorter_one(tree, data):
    listing = trees.encode(tree)
    cut = listing[: data.draw(st.integers(0, max(len(listing) - 1, 0)))]
    with contextlib.suppress(FormatError):
        assert trees.encode(trees.decode(cut)) == cut


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 0o755}, {"uid": 1}, {"gid": 1}, {"size": 2}, {"content": b"y" * 32},
        {"kind": Kind.FIFO}, {"attributes": (("security.capability", b"\1"),)}, {"device": (1, 0)},
    ],
    ids=str,
)  # fmt: skip
def test_everything_that_is_compared_is_in_the_digest(change):
    entry = Entry(Kind.FILE, 0o644, 0, 0, 1, b"x" * 32)
    assert trees.digest({b"a": entry}) != trees.digest({b"a": replace(entry, **change)})


def test_the_outline_leaves_out_owners_and_modes_of_folders_only():
    loose = tree_of({"a/": folder(0o700, 1, 2), "a/b": file(b"x")})
    assert trees.outline(loose) == trees.outline(tree_of({"a/b": file(b"x")}))
    assert trees.outline(loose) != trees.outline(tree_of({"a/b": file(b"x", 0o600)}))
    assert trees.outline(loose) != trees.outline(tree_of({"a/": folder()}))


# Layers ------------------------------------------------------------------------------------


def test_folders_on_the_way_are_implied():
    tree = tree_of({"a/b/c": file(), "a/": folder(0o700)})
    assert paths(tree) == ["", "a", "a/b", "a/b/c"]
    assert [tree[one].implied for one in (b"", b"a", b"a/b")] == [True, False, True]


def test_marks_take_the_form_of_overlays():
    tree = tree_of({"a/.wh.gone": whiteout(), "b/.wh..wh..opq": whiteout(), "b/new": file()})
    assert tree[b"a/gone"] == WHITEOUT
    assert (tree[b"b"].opaque, tree[b"b"].implied) == (True, True)
    assert b"b/.wh..wh..opq" not in tree


def test_a_hard_link_is_its_file_once_more():
    tree = tree_of({"a": file(b"x", 0o755), "b": hard_link("a", 0o755)})
    assert tree[b"a"] == tree[b"b"]
    assert tree[b"b"].content == hashlib.sha256(b"x").digest()


def test_a_folder_that_comes_again_counts_as_it_came_last():
    tree = layer_tree(layertar.parse(tar([("a/", folder(0o700)), ("a/", folder(0o711))])))
    assert tree[b"a"].mode == 0o711


AMBIGUOUS = {
    "a file twice": [("a", file()), ("a", file())],
    "a file, then a folder": [("a", file()), ("a/", folder())],
    "a file and its whiteout": [("a", file()), (".wh.a", whiteout())],
    "a whiteout and a path below": [(".wh.a", whiteout()), ("a/b", file())],
    "a path below a file": [("a", file()), ("a/b", file())],
    "a path through a link": [("a", link("b")), ("a/c", file())],
    "a hard link to nothing": [("a", hard_link("b"))],
    "a hard link to something later": [("a", hard_link("b")), ("b", file())],
    "a hard link to a folder": [("b/", folder()), ("a", hard_link("b"))],
    "a hard link with another mode": [("b", file(mode=0o755)), ("a", hard_link("b"))],
    "a whiteout with content": [(".wh.a", file(b"x"))],
    "a whiteout that is a folder": [(".wh.a/", folder())],
    "a whiteout of nothing": [(".wh.", whiteout())],
    "a whiteout of the parent": [("a/.wh...", whiteout())],
    "marks of AUFS": [(".wh..wh.plnk", whiteout())],
    "an opaque file": [("a", file()), ("a/.wh..wh..opq", whiteout())],
    "a device like a whiteout": [("a", device(0, 0))],
    "an attribute of overlayfs": [
        ("a/", folder()), ("a/b", file(xattrs={"trusted.overlay.redirect": b"/c"})),
    ],
    "an attribute of unprivileged overlayfs": [("b", file(xattrs={"user.overlay.metacopy": b""}))],
    "deeper than can be unpacked": [("d/" * 201 + "f", file())],
}  # fmt: skip


@pytest.mark.parametrize("members", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_layer_that_runtimes_unpack_in_different_ways_is_refused(members):
    with pytest.raises(AmbiguousLayer):
        layer_tree(layertar.parse(tar(members)))


def test_a_tree_of_too_many_files_is_refused(monkeypatch):
    monkeypatch.setattr(trees, "MAX_FILES", 10)
    with pytest.raises(AmbiguousLayer):
        tree_of({f"{number}/a/b": file() for number in range(10)})


# ACIs --------------------------------------------------------------------------------------


def test_an_acis_root_file_system_is_what_lies_below_rootfs():
    members = {
        "manifest": file(b"{}"),
        "rootfs/": folder(0o700),
        "rootfs/a": file(b"x"),
        "rootfs/b": hard_link("rootfs/a"),
        "rootfs/.wh.c": file(b"no mark here"),
    }
    tree = tree_of(members, aci_tree)
    assert paths(tree) == ["", ".wh.c", "a", "b"]
    assert (tree[b""].mode, tree[b"a"]) == (0o700, tree[b"b"])


@pytest.mark.parametrize(
    "members",
    [
        {"manifest": file(), "other": file()},
        {"rootfs": file()},
        {"manifest": file(), "rootfs/a": hard_link("manifest")},
    ],
)
def test_an_aci_of_another_shape_is_refused(members):
    with pytest.raises(AmbiguousLayer):
        tree_of(members, aci_tree)


# Merging -----------------------------------------------------------------------------------


def merged(*layers):
    return trees.merged([tree_of(one) for one in layers])


def test_a_whiteout_hides_what_lies_below():
    lower = {"a/b/c": file(), "a/d": file()}
    assert paths(merged(lower, {"a/.wh.b": whiteout()})) == ["", "a", "a/d"]
    assert paths(merged(lower, {".wh.a": whiteout()})) == [""]


def test_an_opaque_folder_hides_the_content_of_the_one_below():
    lower = {"a/b/c": file(), "a/d": file(), "e": file()}
    upper = {"a/": folder(0o700), "a/.wh..wh..opq": whiteout(), "a/new": file()}
    found = merged(lower, upper)
    assert paths(found) == ["", "a", "a/new", "e"]
    assert (found[b"a"].mode, found[b"a"].opaque) == (0o700, False)


def test_an_opaque_root_hides_everything():
    assert paths(merged({"a/b": file()}, {".wh..wh..opq": whiteout(), "c": file()})) == ["", "c"]


def test_a_file_replaces_a_folder_and_a_folder_a_file():
    assert paths(merged({"a/b": file()}, {"a": file(b"x")})) == ["", "a"]
    assert paths(merged({"a": file()}, {"a/": folder(), "a/b": file()})) == ["", "a", "a/b"]


def test_what_a_file_hid_does_not_come_back_with_a_folder():
    layers = ({"a/b": file()}, {"a": file()}, {"a/": folder(), "a/c": file()})
    assert paths(merged(*layers)) == ["", "a", "a/c"]


def test_a_whiteout_of_nothing_leaves_nothing():
    assert paths(merged({"a": file()}, {".wh.b": whiteout()})) == ["", "a"]


def test_an_implied_folder_keeps_what_is_below_and_an_explicit_one_does_not():
    lower = {"a/": folder(0o700, 5, 5)}
    assert merged(lower, {"a/b": file()})[b"a"].mode == 0o700
    assert merged(lower, {"a/": folder(0o711), "a/b": file()})[b"a"].mode == 0o711
    assert merged({"a/b": file()}, {"a/c": file()})[b"a"] == IMPLIED


def test_a_path_through_a_link_below_is_refused():
    with pytest.raises(AmbiguousLayer, match="through"):
        merged({"lib": link("usr/lib"), "usr/lib/": folder()}, {"lib/x": file()})


def test_a_tree_lists_its_parents_and_is_sorted():
    assert list(completed({b"b/c": IMPLIED, b"a": IMPLIED})) == [b"", b"a", b"b", b"b/c"]

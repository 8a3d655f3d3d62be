"""Images at hand that explain digests: which section of a PE file, and which of its bytes, differ.

A log has only digests. Whoever holds the files can say more, but only of files that *are* what
was measured: each is found by its own Authenticode digest, or its sections' digests, in the bank
of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from catena.formats import pe
from catena.formats.pe import PeImage
from catena.ids import HashAlg

_TEXT_SECTIONS = frozenset({".cmdline", ".osrel", ".uname", ".sbat"})
_WORDS = frozenset({".cmdline"})


@dataclass(frozen=True, slots=True)
class KnownImages:
    """Images by Authenticode digest, and section contents by digest, both in hex.

    ``digests`` are all by which each image can have been measured.
    """

    images: Mapping[str, PeImage] = field(default_factory=dict)
    sections: Mapping[str, bytes] = field(default_factory=dict)
    digests: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def strangers(self, measured: Collection[str]) -> tuple[str, ...]:
        """Images of which nothing is among the digests that were ``measured``."""
        return tuple(one for one, held in self.digests.items() if held.isdisjoint(measured))

    def compare_images(self, old: str, new: str, others: KnownImages) -> Iterator[str]:
        """How the image ``new`` among ``others`` differs from ``old`` here, if both are known."""
        before, after = self.images.get(old), others.images.get(new)
        if before is None or after is None:
            return
        yield f"digest differs from byte {_first_difference(before.data, after.data):#x}"
        names = dict.fromkeys(one.name for one in (*before.sections, *after.sections))
        for name in names:
            mine, theirs = _content(before, name), _content(after, name)
            if mine != theirs:
                yield from _section_changes(name, mine, theirs)

    def compare_sections(self, name: str, old: str, new: str, others: KnownImages) -> Iterator[str]:
        """How the content of one section differs, if both contents are known."""
        before, after = self.sections.get(old), others.sections.get(new)
        if before is not None and after is not None:
            yield from _section_changes(name, before, after)


def known_images(files: Iterable[bytes], bank: HashAlg) -> KnownImages:
    """Index PE files. Raises ``FormatError`` for one that is none."""
    images: dict[str, PeImage] = {}
    sections: dict[str, bytes] = {}
    digests: dict[str, frozenset[str]] = {}
    for content in files:
        image = pe.parse(content)
        own = image.authenticode(bank).hex()
        held = {bank.digest(one).hex(): one for one in map(image.content, image.sections)}
        images[own] = image
        sections |= held
        digests[own] = frozenset({own, *(one for one, section in held.items() if section)})
    return KnownImages(images, sections, digests)


def _content(image: PeImage, name: str) -> bytes | None:
    section = next((one for one in image.sections if one.name == name), None)
    return None if section is None else image.content(section)


def _section_changes(name: str, old: bytes | None, new: bytes | None) -> Iterator[str]:
    """Lines or words of text sections; the first differing byte of others."""
    if old is None or new is None:
        yield f"section {name} was {'added' if old is None else 'removed'}"
        return
    if name not in _TEXT_SECTIONS:
        yield (
            f"section {name} differs from byte {_first_difference(old, new):#x} "
            f"({len(old)} bytes before, {len(new)} after)"
        )
        return
    changes = piece_changes(_pieces(name, old), _pieces(name, new))
    yield from (f"{name}: {change}" for change in changes)


def piece_changes(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """Words or lines that were removed and added."""
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            yield from (f"removed `{piece}`" for piece in before[i:j])
            yield from (f"added `{piece}`" for piece in after[k:m])


def _pieces(name: str, content: bytes) -> list[str]:
    text = content.rstrip(b"\0").decode("utf-8", "replace")
    return text.split() if name in _WORDS else text.splitlines()


def _first_difference(old: bytes, new: bytes) -> int:
    """The offset of the first byte that differs; found by halves, for images are large."""
    low, high = 0, min(len(old), len(new))
    if old[:high] == new[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle
    return low

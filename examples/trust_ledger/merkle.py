"""
How can a client prove that one entry is in the ledger, without reading the others?

The hash tree of RFC 9162, section 2.1, over the hashes of the entries.  This file needs the standard library
only: copy it, keep the root that you were given, and check every proof yourself with ``verify_inclusion``.
"""

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256().digest()
"""The root of a tree without leaves."""


def hash_leaf(content: bytes) -> bytes:
    """Hash one leaf.  The first byte keeps it from being taken for an inner node."""
    return hashlib.sha256(b"\x00" + content).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Hash the node above two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """
    A tree that leaves are added to, from left to right, and that remembers what one proof needs.

    It holds one hash for each level, and the proof: a ledger of millions of entries fits into a page.
    """

    def __init__(self, *, prove: int | None = None) -> None:
        """
        Begin a tree.

        Args:
            prove: Collect the proof for the leaf with this index; the first one is 0.
        """
        self.size = 0
        # The roots of the perfect subtrees so far, the largest first: (number of leaves, first leaf, root).
        self._peaks: list[tuple[int, int, bytes]] = []
        self._prove = prove
        self._proof: list[bytes] = []

    def add(self, content: bytes) -> None:
        """Add the next leaf."""
        self._peaks.append((1, self.size, hash_leaf(content)))
        self.size += 1
        while len(self._peaks) > 1 and self._peaks[-1][0] == self._peaks[-2][0]:
            self._join()

    def finish(self) -> tuple[bytes, tuple[bytes, ...]]:
        """Return the root and the collected proof; nothing can be added after that."""
        while len(self._peaks) > 1:
            self._join()
        root = self._peaks[0][2] if self._peaks else EMPTY_ROOT
        return root, tuple(self._proof)

    def _join(self) -> None:
        right_size, right_first, right = self._peaks.pop()
        left_size, left_first, left = self._peaks.pop()
        if self._prove is not None:
            # The way from the leaf to the root goes through exactly one of the two: the other one is a step.
            if left_first <= self._prove < right_first:
                self._proof.append(right)
            elif right_first <= self._prove < right_first + right_size:
                self._proof.append(left)
        self._peaks.append((left_size + right_size, left_first, hash_node(left, right)))


def compute_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over *leaves*."""
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.finish()[0]


def verify_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """
    Say whether *leaf* is leaf number *index* (the first is 0) of the tree of *size* leaves with this *root*.

    This is RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    place, last, computed = index, size - 1, hash_leaf(leaf)
    for step in proof:
        if last == 0:
            return False
        if place % 2 == 1 or place == last:
            computed = hash_node(step, computed)
            while place % 2 == 0 and place != 0:
                place, last = place >> 1, last >> 1
        else:
            computed = hash_node(computed, step)
        place, last = place >> 1, last >> 1
    return last == 0 and computed == root

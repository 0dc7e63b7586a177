"""Does a proof convince of what is in the tree, and of nothing else?"""

from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from examples.trust_ledger.merkle import (
    EMPTY_ROOT,
    Tree,
    compute_root,
    hash_leaf,
    hash_node,
    verify_inclusion,
)

LEAVES = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=70, unique=True)


def define_root(leaves: list[bytes]) -> bytes:
    """Compute a root as RFC 9162 defines it, from the top down."""
    if len(leaves) < 2:
        return hash_leaf(leaves[0]) if leaves else sha256().digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hash_node(define_root(leaves[:half]), define_root(leaves[half:]))


def prove(leaves: list[bytes], index: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the root, and the proof for one leaf."""
    tree = Tree(prove=index)
    for leaf in leaves:
        tree.add(leaf)
    return tree.finish()


@pytest.mark.parametrize("size", range(20))
def test_the_root_is_the_one_of_the_standard(size: int) -> None:
    """Other programs that follow RFC 9162 come to the same root."""
    leaves = [bytes([number]) for number in range(size)]

    assert compute_root(leaves) == define_root(leaves)


def test_the_root_of_certificate_transparency() -> None:
    """The root of known test data is what others have published for it."""
    leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    published = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"

    assert compute_root(bytes.fromhex(leaf) for leaf in leaves).hex() == published
    assert Tree().finish()[0] == EMPTY_ROOT


@given(leaves=LEAVES, data=st.data())
def test_every_leaf_can_be_proven(leaves: list[bytes], data: st.DataObject) -> None:
    """Whatever the size of the tree, each of its leaves has a short proof that holds."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof = prove(leaves, index)

    assert root == compute_root(leaves)
    assert verify_inclusion(leaves[index], index=index, size=len(leaves), proof=proof, root=root)
    assert len(proof) <= (len(leaves) - 1).bit_length()


@given(leaves=LEAVES, data=st.data())
def test_nothing_else_can_be_proven(leaves: list[bytes], data: st.DataObject) -> None:
    """Another entry, another place, another root, a shorter or longer proof: none of them holds."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    size = len(leaves)
    root, proof = prove(leaves, index)
    other = (index + 1) % size

    assert not verify_inclusion(b"forged!", index=index, size=size, proof=proof, root=root)
    assert not verify_inclusion(
        leaves[index], index=index, size=size, proof=proof, root=sha256(root).digest()
    )
    assert not verify_inclusion(leaves[index], index=index, size=size, proof=(*proof, root), root=root)
    assert not verify_inclusion(leaves[index], index=size, size=size, proof=proof, root=root)
    if size > 1:
        assert not verify_inclusion(leaves[index], index=other, size=size, proof=proof, root=root)
        assert not verify_inclusion(leaves[index], index=index, size=size, proof=proof[:-1], root=root)


def test_an_inner_node_is_no_leaf() -> None:
    """Two leaves can not be passed off as one: leaves and nodes are hashed apart."""
    left, right = hash_leaf(b"left"), hash_leaf(b"right")

    assert hash_leaf(left + right) != hash_node(left, right)

"""The hash tree: its root depends on what is in it, and on nothing else."""

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.tree import EMPTY, Tree


def _hash(n: int) -> bytes:
    return hashlib.blake2b(n.to_bytes(4, "big"), digest_size=16).digest()


keys = st.one_of(
    st.integers(0, 200).map(_hash),
    st.integers(0, 40).map(lambda n: bytes([7] * 15) + bytes([n])),  # one long shared prefix
)


@given(st.lists(st.tuples(keys, st.one_of(st.none(), st.integers(0, 5).map(_hash)))))
def test_root_is_independent_of_history(changes):
    tree, plain = Tree(), {}
    for key, leaf in changes:
        old = tree.put(key, leaf)
        assert old == plain.get(key)
        if leaf is None:
            plain.pop(key, None)
        else:
            plain[key] = leaf
        tree.root()  # must not freeze anything
    again = Tree(sorted(plain.items(), reverse=True))
    assert tree.root() == again.root()
    assert tree.count == len(plain)
    assert all(tree.get(key) == plain.get(key) for key, _ in changes)
    once_more = Tree.unpacked(tree.packed())
    assert (once_more.root(), once_more.count) == (tree.root(), tree.count)


def test_an_empty_tree_has_the_empty_root_again_after_everything_left():
    tree = Tree((_hash(n), _hash(n)) for n in range(100))
    assert tree.root() != EMPTY
    for n in range(100):
        tree.put(_hash(n), None)
    assert tree.root() == EMPTY


def test_any_changed_leaf_changes_the_root():
    rng = random.Random(1)
    tree = Tree((_hash(n), _hash(n)) for n in range(300))
    roots = {tree.root()}
    for n in rng.sample(range(300), 50):
        tree.put(_hash(n), _hash(n + 1000))
        roots.add(tree.root())
    assert len(roots) == 51


def test_the_root_is_this_one():
    """Members of different builds must agree: a vector."""
    tree = Tree((_hash(n), _hash(n + 7)) for n in range(50))
    assert tree.root().hex() == "64d1504437c7ae494f1e9f5ff03617a9"

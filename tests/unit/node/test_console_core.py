"""The ring of a console, and who of its watchers writes."""

from hypothesis import given
from hypothesis import strategies as st

from node.proto.console import WATCHERS_MAX, WRITER_IDLE_S, Ring, Watcher, Watchers


def test_what_was_written_is_read_in_pieces_and_what_was_pushed_out_is_counted() -> None:
    ring = Ring(10)
    ring.write(b"0123456789")
    assert ring.after(0, 4) == (b"0123", 4, 0)
    ring.write(b"abc")
    assert ring.after(4, 100) == (b"456789abc", 13, 0)
    assert ring.after(0, 100) == (b"3456789abc", 13, 3)
    assert ring.after(13, 100) == (b"", 13, 0)


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 40), st.integers(1, 9))
def test_a_reader_gets_all_that_it_does_not_miss(
    parts: list[bytes], limit: int, most: int
) -> None:
    ring, whole, got, position = Ring(limit), b"", b"", 0
    for part in parts:
        ring.write(part)
        whole += part
        data, position, missed = ring.after(position, most)
        got += b"?" * missed + data
    while data := ring.after(position, most)[0]:
        position += len(data)
        got += data
    assert len(got) == len(whole)
    assert all(mine in (b"?"[0], true) for mine, true in zip(got, whole, strict=True))


def test_one_writes_until_it_lets_go_leaves_or_is_idle_or_another_takes_over() -> None:
    watchers = Watchers()
    ann, bob, eve = Watcher("ann", True), Watcher("bob", True), Watcher("eve", False)
    for one in (ann, bob, eve):
        watchers.add(one)
    assert not watchers.types(ann, 0)
    assert watchers.ask(ann, 0, take=False) is None
    assert watchers.types(ann, 1)
    assert "ann is writing" in (watchers.ask(bob, 2, take=False) or "")
    assert not watchers.types(bob, 2)
    assert "role operator" in (watchers.ask(eve, 2, take=True) or "")
    assert watchers.ask(bob, 3, take=True) is None
    assert (watchers.types(ann, 3), watchers.types(bob, 3)) == (False, True)
    assert watchers.ask(ann, 3 + WRITER_IDLE_S, take=False) is None
    watchers.let_go(bob)
    assert watchers.writer is ann
    watchers.remove(ann)
    assert watchers.writer is None


def test_a_console_has_only_so_many_watchers() -> None:
    watchers = Watchers()
    for number in range(WATCHERS_MAX):
        assert not watchers.full
        watchers.add(Watcher(str(number), True))
    assert watchers.full

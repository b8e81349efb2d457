"""Bytes that were once good: seeded changes of a corpus, for parsers of hostile input.

Rule: the same seed gives the same bytes on every machine, so a failing one is found again by
its number.
"""

import random
from collections.abc import Callable, Iterator, Sequence

INTERESTING = (
    0x00,
    0x01,
    0x7F,
    0x80,
    0x90,
    0xC0,
    0xC1,
    0xC4,
    0xCF,
    0xD3,
    0xDC,
    0xDD,
    0xDF,
    0xFF,
)
"""Bytes that mean something to msgpack, and the ends of ranges."""


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with one to four changes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        end = min(len(found), at + rng.choice((1, 1, 2, 4, 8, 33)))
        match rng.randrange(8):
            case 0 if found:
                found[at % len(found)] ^= 1 << rng.randrange(8)
            case 1 if found:
                found[at % len(found)] = rng.choice(INTERESTING)
            case 2:
                del found[at:end]
            case 3:
                found[at:at] = found[at:end]
            case 4:
                found[at:at] = rng.randbytes(rng.choice((1, 2, 5, 9)))
            case 5:
                del found[at:]
            case 6:
                found[at:at] = bytes((rng.choice(INTERESTING),))
            case _:
                other = rng.randrange(len(found) + 1)
                piece = bytes(found[at:end])
                del found[at:end]
                found[other:other] = piece
    return bytes(found)


def mutations(corpus: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Yield so many changed members of the corpus."""
    rng = random.Random(seed)
    for _ in range(count):
        yield mutate(rng, rng.choice(corpus))


def check(
    corpus: Sequence[bytes], seed: int, count: int, feed: Callable[[bytes], None]
) -> None:
    """Feed so many changed members to a parser; what it raises is told with its bytes."""
    for number, data in enumerate(mutations(corpus, seed, count)):
        try:
            feed(data)
        except Exception as exc:
            raise AssertionError(f"seed {seed}, mutation {number}: {data.hex()}") from exc

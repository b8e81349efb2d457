"""Escapes of a terminal session, whole and byte by byte."""

import pytest

from mesh.proto.escape import Act, Escapes


def fed(data: bytes, step: int) -> list[bytes | Act]:
    escapes, found = Escapes(), list[bytes | Act]()
    for at in range(0, len(data), step):
        for part in escapes.feed(data[at : at + step]):
            if isinstance(part, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += part
            else:
                found.append(part)
    return found


@pytest.mark.parametrize("step", [1, 100])
@pytest.mark.parametrize(
    ("typed", "done"),
    [
        (b"~.", [Act("quit")]),
        (b"ls\r~.", [b"ls\r", Act("quit")]),
        (b"a~.", [b"a~."]),
        (b"~~.", [b"~."]),
        (b"~x", [b"~x"]),
        (b"~B~?ok\n~r~w", [Act("break"), Act("help"), b"ok\n", Act("read"), Act("write")]),
        (b"~\r~.", [b"~\r", Act("quit")]),
        (b"cd ~/x\r", [b"cd ~/x\r"]),
    ],
)
def test_escapes_count_at_the_start_of_a_line_alone(
    typed: bytes, done: list[bytes | Act], step: int
) -> None:
    assert fed(typed, step) == done

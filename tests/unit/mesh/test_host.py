import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.host.files import make_private_folder, write_file, write_json
from mesh.host.log import configure, get_log


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    sink = io.StringIO()
    configure("info", sink)
    yield sink
    configure("info", None)


def test_a_log_line_is_one_json_object_when_nobody_watches(stream: io.StringIO) -> None:
    get_log("dhcp").info("lease granted", mac="52:54:00:00:00:01", count=3)
    line = json.loads(stream.getvalue())
    assert line["service"] == "dhcp" and line["msg"] == "lease granted"
    assert line["mac"] == "52:54:00:00:00:01" and line["count"] == 3


def test_hostile_text_stays_on_its_line(stream: io.StringIO) -> None:
    get_log("dhcp").warning("odd", detail="a\nb\x1b[31m" + "x" * 10_000)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue()) < 1000


def test_debug_is_silent_by_default(stream: io.StringIO) -> None:
    get_log("dhcp").debug("nothing")
    assert not stream.getvalue()


def test_an_unknown_field_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="password"):
        get_log("dhcp").info("x", password="p")


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_file(path, "one")
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["f"]


def test_a_torn_earlier_try_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / ".f.new").write_text("torn")
    write_file(tmp_path / "f", b"whole")
    assert (tmp_path / "f").read_bytes() == b"whole"


def test_a_private_folder_is_private(tmp_path: Path) -> None:
    assert stat.S_IMODE(make_private_folder(tmp_path / "a" / "b").stat().st_mode) == 0o700

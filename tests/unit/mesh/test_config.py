from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.errors import Refused
from mesh.host.config import load
from node.config import NodeConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    port: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    data: Path = Path("/d")
    on: bool = False
    router: str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.router == "bad":
            raise ValueError("router must not be bad")


def write(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text)
    return path


def test_flags_beat_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'data = "/f"\n[inner]\nport = 2\nnames = ["a"]\n')
    environ = {"RACKMESH_INNER__PORT": "3", "RACKMESH_INNER__NAMES": "x,y", "PATH": "/"}
    got = load(Outer, file, environ, {"inner": {"port": 4}, "on": None})
    assert got == Outer(data=Path("/f"), inner=Inner(port=4, names=("x", "y")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dta = 1", "did you mean 'data'"),
        ("[inner]\nprot = 1", "unknown setting 'inner.prot'; did you mean 'port'"),
        ('[inner]\nport = "x"', "inner.port must be int, not 'x'"),
        ("inner = 3", "inner must be a section"),
        ("on = 7", "on must be bool"),
        ('router = "bad"', "router must not be bad"),
        ("= nonsense", "cannot be read"),
        ("[inner]\nnames = 5", "must be a list"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        load(Outer, write(tmp_path, text), {}, {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist"):
        load(Outer, tmp_path / "none.toml", {}, {})


@pytest.mark.parametrize(
    "text",
    [
        '[subnet]\ncidr = "10.0.0.0/24"\nfirst = "10.1.0.1"',
        '[subnet]\ncidr = "nonsense"',
        "[policy]\ndestructive_per_hour = -1",
        "simulate_rack = 501",
        "[jobs]\nnode_max = 0",
        '[jobs]\nkinds_max = ["server.explode 3"]',
        '[jobs]\nkinds_max = ["job.cancel 3"]',
        'log_level = "loud"',
    ],
)
def test_a_node_refuses_settings_that_cannot_work(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused):
        load(NodeConfig, write(tmp_path, text), {}, {})

"""The way of a browser into the demo's namespace."""

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace, namespace

ROOT = Path(__file__).resolve().parents[2]
SERVER = (
    "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
    "print(s.server_address[1], flush=True); s.serve_forever()"
)

pytestmark = [pytest.mark.root]


@pytest.fixture
def inside() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_port_of_the_namespace_is_reached_from_outside(
    inside: Namespace, tmp_path: Path
) -> None:
    (tmp_path / "hello").write_text("from inside " * 50_000)
    words = inside.argv(sys.executable, "-c", SERVER)
    forward = ROOT / "scripts/lib/demo_forward.py"
    space = f"/proc/{inside.process.pid}/ns/net"
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        with subprocess.Popen(
            [sys.executable, forward, space, first_line(server)],
            stdout=subprocess.PIPE,
            text=True,
        ) as way:
            try:
                port = int(first_line(way))
                for _ in range(2):
                    ask = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                    ask.request("GET", "/hello")
                    assert ask.getresponse().read().decode() == "from inside " * 50_000
                    ask.close()
            finally:
                way.terminate()
                server.terminate()

"""Take the pictures of docs/screens from a demo that is up: ``scripts/demo``, then this.

The pages show what really runs there. While a server is deployed for it, the pages with work in
hand are taken. Rule: nothing is drawn or retouched, and no picture is larger than BYTES_MAX.

    .venv/bin/python scripts/lib/screens.py [--folder DEMO] [--output docs/screens]
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from chromium import Visit, chromium, sign_in, visit
from demo import FOLDER
from demo_processes import ask, rackmesh

ROOT: Final = Path(__file__).resolve().parents[2]
SCREEN: Final = {"width": 1280, "height": 800}
BYTES_MAX: Final = 150_000
SETTLE_MS: Final = 600
AT_WORK: Final = (
    ("overview", "/", "light"), ("job", "/jobs/{job}", "light"),
    ("server", "/servers/{srv1}", "light"),
)  # fmt: skip
"""Name, address, colours: taken while a server is deployed."""
AT_REST: Final = (
    ("overview-dark", "/", "dark"), ("site", "/sites/two", "light"),
    ("nodes", "/nodes", "light"), ("pending", "/pending", "light"),
    ("servers", "/servers", "light"), ("servers-dark", "/servers", "dark"),
    ("assets", "/assets", "light"), ("install", "/install/{token}", "light"),
    ("kiosk", "/kiosk", "dark"),
)  # fmt: skip


def take(at: Visit, name: str, path: str, output: Path) -> None:
    """Take one page as it stands."""
    at.page.goto(at.url + path)
    if not path.startswith("/kiosk"):
        at.page.wait_for_selector("#feed.good")
    at.page.wait_for_timeout(SETTLE_MS)
    target = output / f"{name}.png"
    at.page.screenshot(path=target)
    size = target.stat().st_size
    print(f"{target}  {size} bytes")
    if size > BYTES_MAX:
        raise SystemExit(f"{target} has {size} bytes, at most {BYTES_MAX} are wanted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the demo's data")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "screens")
    options = parser.parse_args()
    hub = options.folder / "hub"
    ports = json.loads((hub / "run" / "ports.json").read_text())
    password = (hub / "admin-password").read_text().strip()
    ids = {
        "token": ask("token", "list", "--data", hub)["items"][0]["id"],
        "srv1": ask("server", "show", "srv1", "--data", hub)["item"]["id"],
    }
    with chromium() as browser:
        windows: dict[str, Any] = {}
        url = f"https://127.0.0.1:{ports['https']}"
        with (
            visit(browser, url, viewport=SCREEN, color_scheme="light") as windows["light"],
            visit(browser, url, viewport=SCREEN, color_scheme="dark") as windows["dark"],
        ):
            for window in windows.values():
                sign_in(window, "admin", password)
            order = ("server", "deploy", "srv1", "--image", "demo-os", "--hostname", "srv1")
            ids["job"] = rackmesh(*order, "--data", hub).split()[-1]
            windows["light"].page.goto(f"{url}/jobs/{ids['job']}")
            windows["light"].page.wait_for_selector("#strip progress:not([value='0'])")
            for name, path, scheme in AT_WORK:
                take(windows[scheme], name, path.format(**ids), options.output)
            rackmesh("job", "logs", "-f", ids["job"], "--data", hub)
            for name, path, scheme in AT_REST:
                take(windows[scheme], name, path.format(**ids), options.output)


if __name__ == "__main__":
    main()

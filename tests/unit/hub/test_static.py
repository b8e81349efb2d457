"""The vendored files are what their projects published, and pages hold nothing inline."""

import hashlib
import re
from importlib import resources
from pathlib import Path

from hub import static_files

VENDOR = resources.files("hub") / "static" / "vendor"
TEMPLATES = resources.files("hub") / "templates"
WEIGHT_BYTES_MAX = 50_000
XTERM_BYTES_MAX = 130_000
"""On the console's page alone."""


def test_vendored_files_have_the_listed_hashes() -> None:
    sums = (VENDOR / "SHA256SUMS").read_text().split("\n")
    listed = dict(reversed(line.split("  ")) for line in sums if line)
    xterm = {f"xterm/{name}" for name in ("xterm.js", "xterm.css", "LICENSE")}
    assert set(listed) == {"htmx/htmx.min.js", "htmx/LICENSE", *xterm}
    for name, digest in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_the_vendored_version_is_the_one_written_down() -> None:
    version = (VENDOR / "htmx" / "VERSION").read_text().strip()
    assert f'version:"{version}"' in (VENDOR / "htmx" / "htmx.min.js").read_text()


def test_templates_hold_no_inline_script_style_or_foreign_address() -> None:
    found = list(Path(str(TEMPLATES)).rglob("*.html"))
    assert len(found) > 10
    for template in found:
        text = template.read_text()
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), template.name
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), template.name
        assert not re.search(r"(src|href)=\"https?:", text), template.name


def test_static_files_weigh_little() -> None:
    sizes = {name: len(file.gzipped) for name, file in static_files.FILES.items()}
    xterm = sum(size for name, size in sizes.items() if "xterm/" in name)
    assert 0 < xterm <= XTERM_BYTES_MAX
    assert sum(sizes.values()) - xterm <= WEIGHT_BYTES_MAX

"""A bundle made at a hub is carried to a site that has no hub any more."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import blake3
from demo_processes import rackmesh, wait_for

from cache.api import BundleWriter
from cache.proto.manifest import make_manifest
from mesh.proto.bundle import make_seal
from mesh.proto.sign import KeySigner
from tests.support.fleet import Fleet, fleet, one_sentence, run, small_image


def refused_files(site: Fleet, file: Path) -> None:
    """Every file that is not what was made is one sentence and an exit code."""
    whole = file.read_bytes()
    wrong = site.folder / "wrong.bundle"
    for content, words in (
        (b"", "no file of rackmesh bundle create"),
        (whole[:-1], "cut short or damaged"),
        (whole[: 1 << 20], "cut short or damaged"),
        (whole[:200_000] + b"?" + whole[200_001:], "is damaged"),
    ):
        wrong.write_bytes(content)
        said = run("bundle", "inspect", wrong)
        assert (said.code, words in one_sentence(said)) == (1, True), said.err
    wrong.write_bytes(whole[:-1])
    said = run("bundle", "import", wrong, "--data", site.two)
    assert (said.code, "cut short or damaged" in one_sentence(said)) == (7, True)
    said = run("bundle", "import", site.folder / "none", "--data", site.two)
    assert (said.code, "No such file" in one_sentence(said)) == (7, True)
    said = run("bundle", "import", file, "--data", site.hub)
    assert said.code == 5, "that hub is gone"


def forged(site: Fleet, file: Path, asset: str) -> None:
    """Whatever a member signs, names count only as an assets key signed them."""
    root_fp = bytes.fromhex(site.status(site.two)["root_fingerprint"])
    content = b"evil" * 1000
    hashes = blake3.blake3(content).digest()
    made = make_manifest(len(content), hashlib.sha256(content).hexdigest(), hashes).asset

    def sealed_by_a_member(digest: bytes) -> bytes:
        with site.api(site.two) as client:
            item = client.post("/bundle/seal", {"index": digest.hex()})["item"]
        return base64.b64decode(item["seal"])

    def sealed_by_a_stranger(digest: bytes) -> bytes:
        return make_seal(KeySigner(b"x" * 32), root_fp, digest, 1)

    for name, seal, root, words in (
        ("evil", sealed_by_a_member, root_fp, "no assets key signed the name evil"),
        ("carried", sealed_by_a_member, root_fp, f"signed as {asset}, not as {made}"),
        ("carried", sealed_by_a_stranger, root_fp, "who signed it, is no member"),
        ("carried", lambda d: make_seal(KeySigner(b"x" * 32), b"o" * 20, d, 1), b"o" * 20,
         "of organisation 6f6f6f6f"),
    ):  # fmt: skip
        with file.open("wb") as out:
            writer = BundleWriter(out, root, "0.1.0")
            writer.add_state([])
            writer.add_asset(made, [name], [content])
            writer.finish(seal)
        said = run("bundle", "import", file, "--data", site.two)
        assert (said.code, words in one_sentence(said)) == (7, True), said.err
    assert not (site.two / "cache" / "assets" / made[3:]).exists()


def held_at(site: Fleet, name: str) -> list[tuple[str, str]]:
    """Return the sites of an asset as node two sees them, and how it fares there."""
    return [(at["site"], at["state"]) for at in site.get(site.two, f"/assets/{name}")["sites"]]


def test_a_site_without_its_hub_gets_an_asset_and_its_name_by_file(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=0, image_mib=4) as site:
        site.start_hub()
        site.join("two", site.two)
        site.run_node(site.two, "--subnet", "127.92.0.0/24")
        site.wait_linked(site.two)
        site.processes.stop(site.two.name)  # what follows it does not hear of
        other = small_image(site.folder / "other.raw", 2, seed=9)
        for name, image in (("carried", site.image), ("other", other)):
            rackmesh("asset", "add", name, image, "--data", site.hub)
        rackmesh("asset", "clone", "carried", "again", "--data", site.hub)
        file = site.folder / "site.bundle"
        words = ("--asset", "carried", "--asset", "again", "--installer", "--data", site.hub)
        said = run("bundle", "create", file, *words, "--json")
        assert said.code == 0, said.err
        hub = site.status(site.hub)["node"]
        said = run("bundle", "create", file, *words)
        assert (said.code, "--force overwrites it" in one_sentence(said)) == (7, True)
        said = run("bundle", "create", site.folder / "x", "--asset", "no", "--data", site.hub)
        assert (said.code, "there is no asset" in one_sentence(said)) == (4, True)
        assert not (site.folder / "x").exists()
        site.processes.stop("hub")

        tar = site.folder / "program.tar"
        said = run("bundle", "inspect", file, "--installer", tar, "--json")
        item = json.loads(said.out)["item"]
        assert (item["signed_by"], item["assets"][0]["names"]) == (hub, ["carried", "again"])
        with tarfile.open(tar) as archive:
            archive.extractall(site.folder / "program", filter="data")
        program = [sys.executable, "-P", "rackmesh.py", "version"]
        done = subprocess.run(
            program, cwd=site.folder / "program", text=True, capture_output=True, check=True,
            env=os.environ | {"PYTHONPATH": str(site.folder / "program")},
        )  # fmt: skip
        assert done.stdout == f"rackmesh {item['build']}\n"
        said = run("bundle", "inspect", file)
        assert (said.code, "every hash is right" in said.out) == (0, True)

        site.run_node(site.two)
        assert site.get(site.two, "/assets/carried") is None, "it never heard of that name"
        refused_files(site, file)
        for _ in range(2):  # again is harmless
            said = run("bundle", "import", file, "--data", site.two)
            assert (said.code, said.out) == (0, "carried, again: here and verified\n"), said.err
            assert "4 of 4 chunks are here" in said.err
        wait_for(
            "the node says that it holds it",
            lambda: held_at(site, "carried") == [("two", "verified")],
            20, site.processes,
        )  # fmt: skip
        for name in ("carried", "again"):
            out = site.folder / f"{name}.raw"
            said = run("asset", "export", name, out, "--data", site.two)
            assert said.code == 0, said.err
            assert out.read_bytes() == site.image.read_bytes()
        forged(
            site, site.folder / "forged.bundle", site.get(site.two, "/assets/carried")["asset"]
        )
        assert held_at(site, "other") == [], "named, but not carried"
        second = site.folder / "second.bundle"
        said = run("bundle", "create", second, "--asset", "carried", "--data", site.two)
        assert said.code == 0, "a node gives on what it got"
        assert run("bundle", "import", second, "--data", site.two).code == 0
        site.no_traceback()

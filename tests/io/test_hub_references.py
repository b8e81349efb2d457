"""Kinds, live systems, clones and names that go, over a real mesh store and cache."""

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hub.errors import BadRequest, Conflict, NotFound
from hub.ports import Declaration
from mesh.proto import tables
from tests.support.hub_office import SITE, office, pieces, said

KERNEL = {"role": "kernel", "name": "vmlinuz"}
INITRD = {"role": "initrd", "name": "initrd"}
LIVE = Declaration(
    name="rescue", kind="live", members=[KERNEL, INITRD], cmdline="console=ttyS0", want=["lab"]
)


async def declare_parts(at) -> None:
    for name in ("vmlinuz", "initrd"):
        await at.assets.declare(Declaration(name=name, kind="file"))
        await at.assets.upload(name, pieces(name.encode()))


def shown(at, name: str):
    return at.reports.find("asset", name)[0]


async def test_content_of_another_kind_than_registered_gets_no_name(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.assets.declare(replace(said("img", None, None, []), kind="iso"))
        with pytest.raises(Conflict, match="img is a qcow2 image, not an ISO 9660 image"):
            await at.assets.upload("img", pieces(b"QFI\xfb" + bytes(100)))
        assert at.assets.names() == {}
        with pytest.raises(BadRequest, match="kind must be one of image, qcow2,"):
            await at.assets.declare(replace(said("x", None, None, []), kind="disk"))


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="apt-get install qemu-utils")
async def test_a_qcow2_upload_is_signed_as_its_raw_disk_and_both_sums_are_shown(
    tmp_path: Path,
) -> None:
    raw = b"boot".ljust(1 << 20, b"\0")
    (tmp_path / "raw").write_bytes(raw)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "raw", "made"]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    published = (tmp_path / "made").read_bytes()
    sums = [hashlib.sha256(data).hexdigest() for data in (published, raw)]
    async with office(tmp_path) as at:
        asked = replace(said("img", None, sums[0], ["lab"]), kind="qcow2")
        await at.assets.declare(asked)
        await at.assets.upload("img", pieces(published))
        named = at.assets.names()["img"]
        assert (named.source_sha256, named.sha256, named.size) == (*sums, len(raw))
        await at.ingest.read_all()
        item = shown(at, "img")
        assert (item["kind"], item["trust"]) == ("qcow2", "declared-sha256")
        assert (item["declared_sha256"], item["source_sha256"]) == (sums[0], sums[0])
        assert item["sha256"] == sums[1]
        await at.assets.declare(replace(said("img", None, sums[0], []), kind="qcow2"))
        with pytest.raises(Conflict, match=f"img stands for sha256 {sums[0]}"):
            await at.assets.declare(replace(said("img", None, sums[1], []), kind="qcow2"))
        with pytest.raises(
            Conflict, match="of kind qcow2 already; take another name for image"
        ):
            await at.assets.declare(replace(said("img", None, sums[0], []), kind="image"))


async def test_a_live_system_is_its_members_and_is_where_they_are(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        with pytest.raises(NotFound, match="no asset vmlinuz, which shall be the kernel"):
            await at.assets.declare(LIVE)
        await declare_parts(at)
        await at.assets.declare(LIVE)
        await at.ingest.read_all()
        item = shown(at, "rescue")
        assert item["cmdline"] == "console=ttyS0"
        assert [member["role"] for member in item["members"]] == ["kernel", "initrd"]
        assert item["members"][0]["asset"] == at.assets.names()["vmlinuz"].asset
        assert item["size"] == len(b"vmlinuz") + len(b"initrd")
        assert [(s["site"], s["wanted"]) for s in item["sites"]] == [("lab", True)]
        assert [s["site"] for s in shown(at, "initrd")["sites"]] == ["lab"], "wanted with it"
        await at.assets.declare(LIVE)
        with pytest.raises(Conflict, match="rescue is there already; take another name"):
            await at.assets.declare(replace(LIVE, cmdline="quiet"))
        with pytest.raises(Conflict, match="lab wants initrd as a part of rescue"):
            await at.assets.unwant("initrd", "lab")
        await at.assets.unwant("rescue", "lab")
        with pytest.raises(NotFound, match="does not want rescue"):
            await at.assets.unwant("rescue", "lab")
        await at.assets.pin("rescue", "lab")
        await at.ingest.read_all()
        for name in ("rescue", "initrd"):
            sites = shown(at, name)["sites"]
            assert [(s["site"], s["wanted"], s["pinned"]) for s in sites] == [
                ("lab", False, True)
            ], f"{name} stays, with its members"
        await at.assets.declare(LIVE)
        await at.ingest.read_all()
        assert shown(at, "rescue")["sites"][0]["pinned"], "said again, it stays pinned"
        with pytest.raises(NotFound, match="there is no site"):
            await at.assets.pin("rescue", "nowhere")
        await at.assets.unpin("rescue", "lab")
        await at.ingest.read_all()
        assert not any(s["pinned"] for s in shown(at, "initrd")["sites"])
        with pytest.raises(NotFound, match="is not pinned at 'lab'"):
            await at.assets.unpin("rescue", "lab")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"members": [INITRD]}, "one kernel among its members"),
        ({"members": [KERNEL, KERNEL]}, "one kernel among its members"),
        ({"url": "http://example.net/x"}, "no content of its own"),
        ({"cmdline": "a || shell"}, "which a boot script would act on"),
        ({"cmdline": "x=${net0/mac}"}, "which a boot script would act on"),
        ({"cmdline": "line\nbreak"}, "printable ASCII"),
        ({"cmdline": "x" * 1025}, "longer than 1024"),
        ({"kind": "image"}, "only a live system has members"),
    ],
)
async def test_what_is_no_live_system_is_refused(tmp_path: Path, change, sentence) -> None:
    async with office(tmp_path) as at:
        await declare_parts(at)
        with pytest.raises(BadRequest, match=sentence.replace("|", r"\|")):
            await at.assets.declare(replace(LIVE, **change))


async def test_a_clone_is_another_name_for_the_same_content(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await declare_parts(at)
        await at.assets.declare(LIVE)
        await at.assets.clone("rescue", "rescue-vga", [], "console=tty0")
        await at.assets.clone("vmlinuz", "linux-6", ["lab"], None)
        await at.ingest.read_all()
        item = shown(at, "rescue-vga")
        assert (item["kind"], item["cmdline"]) == ("live", "console=tty0")
        assert item["members"] == shown(at, "rescue")["members"]
        names = at.assets.names()
        assert names["linux-6"].asset == names["vmlinuz"].asset
        assert shown(at, "linux-6")["trust"] == "upload"
        with pytest.raises(Conflict, match="linux-6 is taken"):
            await at.assets.clone("vmlinuz", "linux-6", [], None)
        with pytest.raises(BadRequest, match="vmlinuz is no live system"):
            await at.assets.clone("vmlinuz", "other", [], "quiet")
        with pytest.raises(NotFound, match="no asset 'nothing'"):
            await at.assets.clone("nothing", "other", [], None)


async def test_a_name_goes_only_when_nothing_rests_on_it(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await declare_parts(at)
        await at.assets.declare(LIVE)
        with pytest.raises(Conflict, match="vmlinuz is in use by the live system rescue"):
            await at.assets.remove("vmlinuz")
        job = {"id": "j1", "state": "running", "params": {"image": "rescue"}}
        await at.put(SITE, tables.JOB, "j1", **job)
        with pytest.raises(Conflict, match="rescue is in use by job j1 at lab"):
            await at.assets.remove("rescue")
        await at.put(SITE, tables.JOB, "j1", **{**job, "state": "succeeded"})
        await at.put(SITE, tables.SERVER, "s1", name="web-2", state="active", image="rescue")
        with pytest.raises(Conflict, match="in use by server web-2 at lab, which boots it"):
            await at.assets.remove("rescue")
        await at.put(SITE, tables.SERVER, "s1", name="web-2", state="available", image=None)
        await at.assets.remove("rescue")
        await at.assets.remove("vmlinuz")
        await at.ingest.read_all()
        assert at.reports.find("asset", "rescue") == []
        for call in (at.assets.remove("rescue"), at.assets.want("rescue", "lab")):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(Conflict, match="vmlinuz stands for sha256"):
            await at.assets.declare(said("vmlinuz", None, "a" * 64, []))
        signed = at.assets.names()["vmlinuz"]
        again = replace(said("vmlinuz", None, signed.sha256, []), kind="file")
        await at.assets.declare(again)
        await at.ingest.read_all()
        assert shown(at, "vmlinuz")["asset"] == signed.asset

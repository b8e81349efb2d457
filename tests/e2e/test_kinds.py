"""Images of every kind through real processes: registered, carried to a site, run there."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from demo_processes import rackmesh, wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run
from tests.support.sim_content import sim_iso, sim_system

pytestmark = pytest.mark.slow
SERVERS = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, a node and three servers, accepted."""
    with fleet(tmp_path_factory.mktemp("kinds"), SERVERS, image_mib=4) as made:
        made.start_hub()
        made.join("two", made.two, "node", "site-operator")
        made.run_node(made.two, "--subnet", "127.94.0.0/24")
        made.start_rack(made.two)
        made.wait_linked(made.two)
        made.accept(SERVERS)
        yield made


def add(site: Fleet, name: str, *words: str | Path) -> None:
    rackmesh("asset", "add", name, *map(str, words), "--data", site.hub)


def shown(site: Fleet, name: str) -> dict:
    said = run("asset", "show", name, "--json", "--data", site.hub)
    return dict(json.loads(said.out)["item"])


def console_says(site: Fleet, index: int, text: str, times: int = 1) -> None:
    wait_for(
        f"the console says {text!r}",
        lambda: site.console(index).count(text) >= times,
        30,
        site.processes,
    )


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="apt-get install qemu-utils")
def test_a_qcow2_image_is_deployed_as_the_raw_disk_it_stands_for(site: Fleet) -> None:
    image, raw = site.folder / "system.qcow2", site.image
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", str(raw), str(image)]
    subprocess.run(argv, check=True, capture_output=True)
    published = hashlib.sha256(image.read_bytes()).hexdigest()
    add(site, "cloud", image, "--sha256", published)
    item = shown(site, "cloud")
    assert (item["kind"], item["trust"]) == ("qcow2", "declared-sha256"), "told by its bytes"
    assert (item["source_sha256"], item["sha256"]) == (published, site.image_sha256)
    job = site.deploy_order("srv1", "cloud")
    site.succeeded(job)
    assert site.disk_holds_image(0)
    assert site.step(job, "write image")["evidence"]["sha256"] == site.image_sha256


def test_a_live_system_runs_from_memory_survives_a_reboot_and_leaves_the_disk(
    site: Fleet,
) -> None:
    kernel, initrd = site.folder / "vmlinuz", site.folder / "initrd"
    kernel.write_bytes(sim_system(name="rescue").ljust(300_000, b"k"))
    initrd.write_bytes(b"i" * 200_000)
    add(site, "rescue", "--kernel", kernel, "--initrd", initrd, "--cmdline", "quiet boot=live",
        "--want", "two")  # fmt: skip
    item = shown(site, "rescue")
    assert [m["name"] for m in item["members"]] == ["rescue.kernel", "rescue.initrd"]
    job = site.succeeded(site.deploy_order("srv2", "rescue"))
    assert job["steps"][-1]["evidence"] == {"attempt": 1, "phoned_in": True}
    console_says(site, 1, "live system is up as srv2")
    assert site.disk_is_empty(1), "no byte was written"
    server = site.server("srv2")
    assert (server["state_text"], server["image"]) == ("active", "rescue")

    said = run("asset", "remove", "rescue", "--data", site.hub)
    assert "in use by server srv2" in one_sentence(said)
    site.reset_machine(1)
    console_says(site, 1, "live system is up as srv2", times=2)
    site.make_available("srv2")
    rackmesh("asset", "remove", "rescue", "--data", site.hub)
    said = run("asset", "show", "rescue", "--data", site.hub)
    assert "there is no asset" in one_sentence(said)


def test_an_iso_is_booted_as_it_is_and_its_reads_are_the_evidence(site: Fleet) -> None:
    disc = site.folder / "tool.iso"
    disc.write_bytes(sim_iso(name="tool"))
    add(site, "tool", disc)
    assert shown(site, "tool")["kind"] == "iso"
    job = site.succeeded(site.deploy_order("srv3", "tool"))
    evidence = job["steps"][-1]["evidence"]
    assert evidence["phoned_in"] is False
    assert evidence["read_bytes"] >= 64 << 10
    console_says(site, 2, "booting tool from the ISO")
    assert site.server("srv3")["state_text"] == "active (did not phone in)"
    assert site.disk_is_empty(2)
    site.reset_machine(2)
    console_says(site, 2, "booting tool from the ISO", times=2)
    site.make_available("srv3")
    assert site.server("srv3")["image"] is None


def test_content_is_exported_from_a_node_through_the_hub_and_a_broken_export_goes_on(
    site: Fleet,
) -> None:
    site.start_origin()
    add(site, "far", site.origin_url(), "--want", "two")
    wait_for("the site holds it", lambda: shown(site, "far")["sha256"], 30, site.processes)
    file = site.folder / "far.raw"
    said = run("asset", "export", "far", file, "--data", site.hub)
    assert said.out == f"{site.image_sha256}  {file}\n", said.err
    assert file.read_bytes() == site.image.read_bytes()
    said = run("asset", "export", "far", file, "--data", site.hub)
    assert "exists; --force overwrites it" in one_sentence(said)
    broken = site.folder / f"again.raw.{site.image_sha256[:12]}.part"
    broken.write_bytes(site.image.read_bytes()[:1_500_000])
    for data, again in ((site.hub, "again.raw"), (site.two, "third.raw")):
        said = run("asset", "export", "far", site.folder / again, "--json", "--data", data)
        item = json.loads(said.out)["item"]
        assert (item["sha256"], item["bytes"]) == (site.image_sha256, file.stat().st_size)
        assert (site.folder / again).read_bytes() == file.read_bytes()
    assert not broken.exists()
    broken.with_name(broken.name.replace("again", "odd")).write_bytes(b"x" * 100)
    said = run("asset", "export", "far", site.folder / "odd.raw", "--data", site.hub)
    assert "nothing of it is kept" in said.sentence
    assert not (site.folder / "odd.raw").exists()
    said = run("asset", "export", "nothing", site.folder / "no", "--data", site.hub)
    assert "there is no asset" in one_sentence(said)


def test_what_is_not_what_it_is_called_is_refused_with_one_sentence(site: Fleet) -> None:
    odd = site.folder / "odd"
    for content, words, sentence in (
        (b"\x1f\x8b" + bytes(5000), (), "odd is packed with gzip, not a raw disk image"),
        (b"QFI\xfb" + bytes(5000), ("--kind", "raw"), "odd is a qcow2 image, not a raw"),
        (sim_iso(), ("--kind", "qcow2"), "odd is an ISO 9660 image, not a qcow2 image"),
        (bytes(5000), ("--kind", "iso"), "odd is something else, not an ISO 9660 image"),
        (bytes(5000), ("--kind", "live"), "a live system takes --kernel and --initrd"),
        (b"QFI\xfb" + bytes(5000), (), "is refused: it is qcow2 of version 0"),
    ):
        odd.write_bytes(content)
        said = run("asset", "add", "odd", odd, *words, "--data", site.hub)
        if "version 0" in sentence and shutil.which("qemu-img") is None:
            continue
        assert said.code != 0
        assert sentence in said.err, said.err
    url = site.origin_url()  # it stands in the log, where a broken download leaves its traces
    add(site, "forged", url, "--sha256", "b" * 64, "--want", "two")
    add(site, "no-disc", url, "--kind", "iso", "--want", "two")
    for name, sentence in (
        ("no-disc", "no-disc is something else, not an ISO 9660 image"),
        ("forged", "declared was " + "b" * 64),
    ):
        wait_for(
            f"the node refuses {name}",
            lambda name=name, sentence=sentence: any(
                sentence in str(where["error"]) for where in shown(site, name)["sites"]
            ),
            30,
            site.processes,
        )
        assert shown(site, name)["sha256"] is None, "what was refused has no name"
        said = run("server", "deploy", "srv3", "--image", name, "--yes", "--data", site.hub)
        assert f"the content of {name} is not known yet" in said.err
    said = run("asset", "add", "wrong", site.image, "--sha256", "a" * 64, "--data", site.hub)
    assert said.code != 0
    assert "declared was " + "a" * 64 in said.sentence
    for name in ("hub", site.two.name, "rack"):
        assert "Traceback" not in site.log(name)

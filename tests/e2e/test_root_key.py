"""The organisation's root key: wrapped by a passphrase, taken offline, and not missed."""

from pathlib import Path

from demo_processes import RACKMESH, wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run

PASSPHRASE = "correct horse canary staple"


def start(made: Fleet, *flags: str | Path) -> None:
    """Run the hub with flags of its own."""
    made.processes.start(
        "hub", RACKMESH, "hub", "up", "--data", made.hub, "--listen", "127.0.0.1",
        "--port", "0", "--site", "one", *flags,
    )  # fmt: skip
    wait_for("the hub answers", lambda: made.status(made.hub), 20, made.processes)


def test_the_root_key_is_wrapped_then_taken_offline_and_the_hub_works_on(
    tmp_path: Path,
) -> None:
    secret, stick = tmp_path / "passphrase", tmp_path / "root.key"
    secret.write_text(PASSPHRASE + "\n")
    with fleet(tmp_path / "f", servers=1, image_mib=1) as made:
        start(made, "--root-passphrase-file", secret)
        assert made.status(made.hub)["services"]["root_key"] == "wrapped"
        said = run("hub", "root", "export", stick, "--data", made.hub)
        assert said.code == 0, said.err
        assert stick.stat().st_mode & 0o777 == 0o600
        assert made.status(made.hub)["services"]["root_key"] == "offline"
        again = run("hub", "root", "export", tmp_path / "other", "--data", made.hub)
        assert again.code == 1
        assert "already offline" in one_sentence(again)
        made.processes.stop("hub")
        start(made)
        made.join("one", made.one)
        made.run_node(made.one, "--subnet", "127.94.0.0/24")
        made.wait_linked(made.one)
        assert PASSPHRASE not in made.log("hub")
    assert PASSPHRASE.encode() not in stick.read_bytes()


def test_a_folder_without_a_hub_has_no_root_to_export(tmp_path: Path) -> None:
    said = run("hub", "root", "export", tmp_path / "x", "--data", tmp_path / "none")
    assert said.code == 4
    assert "no hub has been started" in one_sentence(said)

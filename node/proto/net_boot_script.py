"""iPXE scripts for what a server boots off the network: a live system, an ISO, an installer.

It knows no jobs. Rules as in ``boot_script.py``; the files come through the media path
with a capability, which says for which order they are, and the command line is the operator's
with our words behind it.
"""

from collections.abc import Sequence
from typing import Final

from mesh.proto.net_boot import NetBoot
from mesh.proto.template_text import FORMATS, IPXE
from node.proto.boot_script import RETRY_S, SCRIPT_PATH, _checked, _first_of, _script

MEDIA_PATH: Final = "/media/v1/"
ANSWERS_PATH: Final = "/answers/v1/"
STARTED: Final = "started"
"""In a file's place: the installer says that it has begun with its answers."""
BOOTS: Final = "boots"
"""In an asset's place: says that all files are there and the kernel is started next."""
PHONE_WORD: Final = "rackmesh.phone"
HOSTNAME_WORD: Final = "rackmesh.hostname"
_ISO_SENTENCE: Final = "echo This firmware does not boot the ISO: see the Rackmesh manual"


def media_url(url: str, capability: str, asset: str) -> str:
    """Return where a machine finds a file at one node; iPXE shows a URL without its query."""
    return f"{url}{MEDIA_PATH}{asset.removeprefix('b3:')}?cap={capability}"


def answers_url(url: str, capability: str, file: str) -> str:
    """Return where an installer finds a file about its machine; empty: their folder."""
    return f"{url}{ANSWERS_PATH}{capability}/{file}"


def install_script(
    urls: Sequence[str], mac: str, boot: NetBoot, capability: str, answers: str
) -> str:
    """Return the script that starts an installer, which reads its answers at the first URL."""
    assert boot.answers is not None, "an installer"
    form = FORMATS[boot.answers.format]
    urls = _checked(urls)
    if boot.answers.format == IPXE:
        at = [f"{url}{ANSWERS_PATH}{form.file}?cap={answers}" for url in urls]
        chain = _first_of([f"chain --replace {one}" for one in at])
        return _script("imgfree", f"{chain} || goto failed", ":failed", *_again(urls, mac))
    url, folder = (answers_url(urls[0], answers, file) for file in (form.file, ""))
    words = form.words.format(url=url, folder=folder)
    line = f"quiet {words} {boot.cmdline}".strip()  # else the kernel prints the capability
    return _start_script(urls, mac, boot, capability, line)


def live_script(
    urls: Sequence[str],
    mac: str,
    boot: NetBoot,
    capability: str,
    phone: Sequence[str],
    hostname: str,
) -> str:
    """Return the script that starts a live system.

    ``phone``: URLs with the phone-in capability, best first, for the kernel's command line.
    """
    words = [*boot.cmdline.split(), f"{PHONE_WORD}={','.join(phone)}"]
    words += [f"{HOSTNAME_WORD}={hostname}"]
    return _start_script(_checked(urls), mac, boot, capability, " ".join(words))


def _start_script(
    urls: Sequence[str], mac: str, boot: NetBoot, capability: str, cmdline: str
) -> str:
    kernel, *initrds = boot.files
    names = [f"initrd{number or ''}" for number in range(len(initrds))]
    line = " ".join([*(f"initrd={name}" for name in names), cmdline])
    at = [media_url(url, capability, kernel.asset) for url in urls]
    steps = [_first_of([f"kernel --name kernel {one} {line}" for one in at])]
    for name, file in zip(names, initrds, strict=True):
        at = [media_url(url, capability, file.asset) for url in urls]
        steps.append(_first_of([f"initrd --name {name} {one}" for one in at]))
    tell = [f"imgfetch --name told {media_url(url, capability, BOOTS)}" for url in urls]
    return _script(
        "imgfree",
        *(f"{step} || goto failed" for step in steps),
        f"{_first_of(tell)} || goto silent",
        "imgfree told",
        ":silent",
        "boot || goto failed",
        ":failed",
        "echo What was ordered could not be started, asking again",
        *_again(urls, mac),
    )


def iso_script(urls: Sequence[str], mac: str, boot: NetBoot, capability: str) -> str:
    """Return the script that boots an ISO as it is: iPXE is its CD drive."""
    urls = _checked(urls)
    at = [media_url(url, capability, boot.files[0].asset) for url in urls]
    return _script(
        "imgfree",
        f"{_first_of([f'sanboot --no-describe {one}' for one in at])} || goto failed",
        ":failed",
        _ISO_SENTENCE,
        *_again(urls, mac),
    )


def _again(urls: Sequence[str], mac: str) -> tuple[str, str]:
    again = _first_of([f"chain --replace {url}{SCRIPT_PATH}?mac={mac}" for url in urls])
    return f"sleep {RETRY_S}", f"{again} || exit 1"

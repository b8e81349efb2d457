"""iPXE scripts for what a server boots off the network each time: a live system, an ISO.

It knows no jobs. Rules as in ``boot_script.py``; the files come through the media path
with a capability, which says for which order they are, and the command line is the operator's
with our words behind it.
"""

from collections.abc import Sequence
from typing import Final

from mesh.proto.net_boot import NetBoot
from node.proto.boot_script import RETRY_S, SCRIPT_PATH, _checked, _first_of, _script

MEDIA_PATH: Final = "/media/v1/"
BOOTS: Final = "boots"
"""In an asset's place: says that all files are there and the kernel is started next."""
PHONE_WORD: Final = "rackmesh.phone"
HOSTNAME_WORD: Final = "rackmesh.hostname"
_ISO_SENTENCE: Final = "echo This firmware does not boot the ISO: see the Rackmesh manual"


def media_url(url: str, capability: str, asset: str) -> str:
    """Return where a machine finds a file at one node; iPXE shows a URL without its query."""
    return f"{url}{MEDIA_PATH}{asset.removeprefix('b3:')}?cap={capability}"


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
    urls = _checked(urls)
    kernel, *initrds = boot.files
    names = [f"initrd{number or ''}" for number in range(len(initrds))]
    words = [*(f"initrd={name}" for name in names), *boot.cmdline.split()]
    words += [f"{PHONE_WORD}={','.join(phone)}", f"{HOSTNAME_WORD}={hostname}"]
    line = " ".join(words)
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
        "echo The live system could not be started, asking again",
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

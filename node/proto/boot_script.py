"""iPXE scripts as text: run the ramdisk, start from the local disk, say who asks, refuse.

It knows no machine's state and no sockets. Rules: every script names all nodes of the site, so
that a node that dies costs a retry and not the boot; a script never ends with success when
nothing was started (``exit 1``, else UEFI stays in its menu); nothing that comes from outside
enters a script unless it is checked here.
"""

import re
from collections.abc import Sequence
from typing import Final

from mesh.proto.ids import MAC_PATTERN

SCRIPT_PATH: Final = "/boot/v1/script"
FILE_PATH: Final = "/boot/v1/file/"
DISK_LOADER: Final = "localboot.efi"
CONSOLE: Final = "ttyS0"
RETRY_S: Final = 5
NODES_MAX: Final = 4
SENTENCE_CHARS_MAX: Final = 200

_URL: Final = re.compile(r"http://[0-9A-Za-z.\-]{1,253}(?::[0-9]{1,5})?\Z")
_WORD: Final = re.compile(r"[A-Za-z0-9_\-.=,:/]{1,512}\Z")
_ASK: Final = "mac=${net0/mac}&uuid=${uuid}&platform=${platform}"


def ramdisk_script(
    urls: Sequence[str],
    mac: str,
    *,
    capability: str | None = None,
    arguments: Sequence[str] = (),
    console: str = CONSOLE,
) -> str:
    """Return the script that starts the ramdisk.

    ``urls``: base URLs of the site's boot listeners, best first. ``mac``: the boot interface's,
    as it was asked with. ``arguments``: further words of the kernel command line.
    """
    urls = _checked(urls)
    assert MAC_PATTERN.match(mac), "a MAC address in our spelling"
    words = [
        "initrd=initrd",
        f"console={console}",
        "quiet",  # the kernel must not print its command line, the capability stands in it
        "panic=10",
        f"rackmesh.url={','.join(urls)}",
        f"rackmesh.mac={mac}",
    ]
    if capability is not None:
        words.append(f"rackmesh.cap={capability}")
    words += arguments
    assert all(_WORD.match(word) for word in words), "words of a kernel command line"
    line = " ".join(words)
    kernel = _first_of([f"kernel {url}{FILE_PATH}vmlinuz {line}" for url in urls])
    initrd = _first_of([f"initrd {url}{FILE_PATH}initrd" for url in urls])
    again = _first_of([f"chain --replace {url}{SCRIPT_PATH}?mac={mac}" for url in urls])
    return _script(
        "imgfree",
        f"{kernel} || goto failed",
        f"{initrd} || goto failed",
        "boot || goto failed",
        ":failed",
        "echo The ramdisk could not be started, asking again",
        f"sleep {RETRY_S}",
        f"{again} || exit 1",
    )


def local_disk_script(urls: Sequence[str]) -> str:
    """Return the script that starts from the local disk.

    BIOS: the first drive. UEFI: DISK_LOADER among the boot files, which starts the loader on
    the EFI system partition. Where that is missing or finds nothing, ``exit 1`` hands over to
    the next entry of the firmware's boot order, which may try other network boots first.
    """
    chain = _first_of([f"chain {url}{FILE_PATH}{DISK_LOADER}" for url in _checked(urls)])
    return _script(
        "iseq ${platform} pcbios || goto efi",
        "sanboot --no-describe --drive 0x80 || exit 1",
        ":efi",
        f"{chain} || exit 1",
        "exit 1",
    )


def ask_script(urls: Sequence[str]) -> str:
    """Return the script that asks again and says which machine asks."""
    urls = _checked(urls)
    return _script(
        _first_of([f"chain {url}{SCRIPT_PATH}?{_ASK}" for url in urls]) + " || exit 1"
    )


def refusal_script(sentence: str) -> str:
    """Return the script that shows why there is nothing to start, and goes on to the next."""
    return _script(f"echo {_shown(sentence)}", "sleep 3", "exit 1")


def redacted(text: str) -> str:
    """Return a script or command line as it may be logged: without its capability."""
    return re.sub(r"(rackmesh\.cap=|\?cap=|/phone/v1/|/boot/v1/media/)[^\s/,]+", r"\1***", text)


def _checked(urls: Sequence[str]) -> list[str]:
    assert urls, "at least one node serves"
    assert all(_URL.match(url) for url in urls), "base URLs of boot listeners"
    return list(urls[:NODES_MAX])


def _first_of(commands: Sequence[str]) -> str:
    return " || ".join(commands)


def _shown(sentence: str) -> str:
    """Return a sentence without anything that iPXE would expand or end a command at."""
    return re.sub(r"[^A-Za-z0-9 .,:()/_-]", "", sentence)[:SENTENCE_CHARS_MAX].strip()


def _script(*lines: str) -> str:
    return "#!ipxe\n" + "\n".join(lines) + "\n"

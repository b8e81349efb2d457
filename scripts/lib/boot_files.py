"""Fetch the loaders that firmware gets by TFTP or HTTP, from Debian's ``ipxe`` package.

They are never part of the product (their licence is the GPL): each machine that serves them
fetches them once. Rule: the system is not changed; when an installed package has the files they
are copied from there, else the package is downloaded and unpacked beside.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from scripts.lib.debian import Debian, NoPackages

INSTALLED = Path("/usr/lib/ipxe")
FILES = ("undionly.kpxe", "snponly.efi", "ipxe.efi")


def main() -> None:
    parser = argparse.ArgumentParser(prog="fetch-boot-files", description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the files ([boot] files)")
    parser.add_argument("--download", action="store_true", help="even when ipxe is installed")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.download and all((INSTALLED / name).is_file() for name in FILES):
        copy(Path("/"), options.output)
        return
    with tempfile.TemporaryDirectory(prefix="rackmesh-boot-files-") as folder:
        cache = Path(folder)
        try:
            debian = Debian(cache)
            (package,) = debian.fetch(["ipxe"])
        except NoPackages as exc:
            sys.exit(
                f"fetch-boot-files: {exc}; install the package ipxe elsewhere and copy "
                f"{', '.join(FILES)} from its {INSTALLED} to {options.output}"
            )
        debian.unpack(package, cache / "root")
        copy(cache / "root", options.output)


def copy(root: Path, output: Path) -> None:
    """Put the files into the folder, each whole or not at all.

    ``root`` is where the package is unpacked; ipxe.efi is a link to /boot inside of it.
    """
    for name in FILES:
        source = root / INSTALLED.relative_to("/") / name
        if source.is_symlink():
            source = root / source.readlink().relative_to("/")
        partial = output / f".{name}.partial"
        shutil.copyfile(source, partial)
        partial.chmod(0o644)
        os.replace(partial, output / name)
        print(output / name)


if __name__ == "__main__":
    main()

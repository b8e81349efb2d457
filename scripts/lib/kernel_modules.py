"""Choose kernel modules by folder, with all they need, and write the files modprobe reads.

It knows an unpacked kernel package. Rule: the facts come out of the modules themselves
(.modinfo), so no depmod is needed and the result depends on the package alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.elf import module_facts
from scripts.lib.newc import Tree

WANTED = (
    "drivers/ata/", "drivers/nvme/host/", "drivers/scsi/", "drivers/message/fusion/",
    "drivers/block/virtio_blk", "drivers/block/xen-blkfront", "drivers/virtio/",
    "drivers/mmc/", "drivers/hv/", "drivers/char/hw_random/",
    "drivers/net/ethernet/", "drivers/net/virtio_net", "drivers/net/vmxnet3/",
    "drivers/net/hyperv/", "drivers/net/phy/", "drivers/net/mdio/", "drivers/net/xen-netfront",
    "net/packet/",
)  # fmt: skip
"""What a server boots from and is reached by; drivers of other things stay out."""
LEFT_OUT = re.compile(
    r"drivers/scsi/(fcoe|bnx2fc|pcmcia|device_handler|scsi_debug|ch|st|osst|libfc|qedf|ufs)"
    r"|drivers/ata/pata_(legacy|pcmcia)|drivers/net/phy/sfp|/pcmcia/"
)
ALIASES = ("pci:", "virtio:", "scsi:", "vmbus:", "xen:", "mmc:", "acpi", "nvme")
"""Kinds of device names that are looked up when the ramdisk finds its hardware."""


@dataclass(frozen=True)
class Module:
    """One module file: its path under the kernel's folder, what it needs and answers to."""

    path: str
    needs: tuple[str, ...]
    aliases: tuple[str, ...]


def module_name(text: str) -> str:
    """Return the name by which modprobe knows a file or a spelling of a name."""
    return Path(text).name.split(".ko")[0].replace("-", "_")


def read_module(path: str, data: bytes) -> Module:
    """Take a module's facts out of it."""
    needs: list[str] = []
    aliases: list[str] = []
    for key, value in module_facts(data):
        if key == "depends":
            needs += [module_name(name) for name in value.split(",") if name]
        elif key == "softdep" and value.startswith("pre:"):
            needs += [module_name(name) for name in value[4:].split("post:")[0].split()]
        elif key == "alias":
            aliases.append(value)
    return Module(path, tuple(dict.fromkeys(needs)), tuple(aliases))


def chosen(paths: Iterable[str], also: Iterable[str] = ()) -> list[str]:
    """Return the module files (paths under kernel/) that the ramdisk is for."""
    starts = tuple(f"kernel/{start}" for start in (*WANTED, *also))
    return sorted(
        path for path in paths if path.startswith(starts) and not LEFT_OUT.search(path)
    )


def closure(start: Iterable[str], modules: dict[str, Module]) -> list[str]:
    """Return the names in ``start`` and all they need, each after what it needs.

    Names that are no module are built into the kernel.
    """
    order: dict[str, None] = {}
    busy: set[str] = set()

    def visit(name: str) -> None:
        if name in order or name in busy or name not in modules:
            return
        busy.add(name)
        for need in modules[name].needs:
            visit(need)
        order[name] = None

    for name in start:
        visit(name)
    return list(order)


def add_modules(tree: Tree, unpacked: Path, also: Iterable[str] = ()) -> tuple[str, int]:
    """Put modules and modprobe's files in the tree; return (kernel release, module count)."""
    (folder,) = (unpacked / "lib/modules").iterdir()
    files = {
        str(path.relative_to(folder)): path
        for path in sorted((folder / "kernel").rglob("*.ko"))
    }
    modules = {
        module_name(path): read_module(path, file.read_bytes()) for path, file in files.items()
    }
    names = closure((module_name(path) for path in chosen(files, also)), modules)
    base = f"lib/modules/{folder.name}"
    dep: list[str] = []
    alias: list[str] = []
    for name in sorted(names):
        module = modules[name]
        tree.file(f"{base}/{module.path}", files[module.path].read_bytes())
        needs = [modules[one].path for one in reversed(closure([name], modules)) if one != name]
        dep.append(" ".join([f"{module.path}:", *needs]))
        alias += [f"alias {one} {name}" for one in module.aliases if one.startswith(ALIASES)]
    tree.file(f"{base}/modules.dep", ("\n".join(dep) + "\n").encode())
    tree.file(f"{base}/modules.alias", ("\n".join(alias) + "\n").encode())
    for name in ("modules.builtin", "modules.order"):
        tree.file(f"{base}/{name}", (folder / name).read_bytes())
    return folder.name, len(names)

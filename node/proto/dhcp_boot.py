"""What firmware is told to boot, by its class: BIOS and UEFI, by TFTP or HTTP, and iPXE.

It knows no leases and no sockets. Rule: firmware that we have no boot file for gets nothing of
this, an operating system neither.
"""

from typing import Final

from node.proto import dhcp_options as opt
from node.proto.boot_script import FILE_PATH, SCRIPT_PATH
from node.proto.dhcp import Packet
from node.proto.lease_rows import Member

BIOS_FILE: Final = "undionly.kpxe"
EFI_FILE: Final = "snponly.efi"
ARM_FILE: Final = "snponly-arm64.efi"
FILE_BYTES: Final = 128  # of the header field, with its zero
# PXE discovery control, bit 3: take the boot file of this offer, ask nobody else (PXE 2.1)
PXE_VENDOR: Final = b"\x06\x01\x08\xff"
# iPXE's own option 0xb0 (no-pxedhcp): do not wait for a second DHCP server
IPXE_ALONE: Final = b"\xb0\x01\x01"

ARCHITECTURES: Final = {
    0: "bios-x64",
    7: "uefi-x64",
    9: "uefi-x64",
    11: "uefi-arm64",
    16: "uefi-x64-http",
    19: "uefi-arm64-http",
}
"""Architectures that we have boot files for (RFC 4578 and its registry)."""
FILES: Final = {
    "bios-x64": BIOS_FILE,
    "uefi-x64": EFI_FILE,
    "uefi-arm64": ARM_FILE,
    "uefi-x64-http": EFI_FILE,
    "uefi-arm64-http": ARM_FILE,
}


def architecture(packet: Packet) -> str:
    """Return the name of the client's architecture; empty when it does not say one."""
    for number in packet.architectures:
        if number in ARCHITECTURES:
            return ARCHITECTURES[number]
    return f"unknown-{packet.architectures[0]}" if packet.architectures else ""


def is_firmware(packet: Packet) -> bool:
    """Whether a boot ROM or iPXE asks, rather than an operating system."""
    return packet.is_ipxe or packet.vendor_class.startswith((b"PXEClient", b"HTTPClient"))


def lacks_file(packet: Packet) -> bool:
    """Whether firmware asks that we have no boot file for."""
    return is_firmware(packet) and architecture(packet) not in FILES


def boot(packet: Packet, owner: Member) -> tuple[str, dict[int, bytes]]:
    """Return boot file and options for firmware; nothing for anyone else."""
    if not is_firmware(packet):
        return "", {}
    options: dict[int, bytes] = {}
    arch = architecture(packet)
    by_http = packet.vendor_class.startswith(b"HTTPClient")
    if packet.is_ipxe:
        file = f"{owner.url}{SCRIPT_PATH}?mac={packet.mac}"
        options[opt.IPXE] = IPXE_ALONE
    elif by_http:
        file = owner.url + FILE_PATH + FILES[arch] if arch.endswith("-http") else ""
    else:
        file = "" if arch.endswith("-http") else FILES.get(arch, "")
    if not file or arch.startswith("unknown-"):
        return "", {}
    if by_http:
        options[opt.VENDOR_CLASS] = b"HTTPClient"
    elif packet.vendor_class:
        options[opt.VENDOR_CLASS] = b"PXEClient"
        if not packet.is_ipxe:
            options[opt.VENDOR] = PXE_VENDOR
    if packet.wants(opt.BOOT_FILE) or len(file) >= FILE_BYTES:
        options[opt.BOOT_FILE] = file.encode()
    return file if len(file) < FILE_BYTES else "", options

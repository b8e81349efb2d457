"""First-boot data (NoCloud): what an installed system learns about itself at its first start.

It knows nothing of disks or sessions. Rule: values of an order are written as JSON strings,
which are YAML strings, so no order can add a key of its own; text of the operator's own
(``user_data``) replaces ours as a whole.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

INFO: Final = b"rackmesh/first-boot/1\0"

PHONED: Final = (
    "instance_id", "hostname", "pub_key_ed25519", "pub_key_ecdsa", "pub_key_rsa",
)  # fmt: skip
"""What cloud-init's phone_home posts: the host keys are what hooks over ssh trust."""


def first_boot(
    params: Mapping[str, Any], server: str, attempt: int, phone_urls: Sequence[str]
) -> dict[str, str]:
    """Return ``user_data`` and ``meta_data`` for a deploy order.

    ``phone_urls`` carry the machine's own phone-in capability, the best first.
    """
    assert phone_urls, "a machine that cannot phone in would never be active"
    hostname = str(params["hostname"])
    meta = [
        f"instance-id: {json.dumps(f'{server}-{attempt}')}",
        f"local-hostname: {json.dumps(hostname)}",
        f"rackmesh-phone-in: {json.dumps(list(phone_urls))}",
    ]
    user = params.get("user_data")
    if user is None:
        keys = [str(key) for key in params.get("ssh_keys") or []]
        lines = ["#cloud-config", f"hostname: {json.dumps(hostname)}"]
        if keys:
            lines.append(f"ssh_authorized_keys: {json.dumps(keys)}")
        lines += [
            "phone_home:",
            f"  url: {json.dumps(phone_urls[0])}",
            f"  post: [{', '.join(PHONED)}]",
            "  tries: 10",
        ]
        user = "\n".join(lines) + "\n"
    return {"user_data": str(user), "meta_data": "\n".join(meta) + "\n"}


def seal_first_boot(seal: bytes, session: str, data: Mapping[str, str]) -> bytes:
    """Seal first-boot data to the X25519 key of a session: HPKE base mode, AES-256-GCM.

    The result is the encapsulated key (32 bytes) and the ciphertext.
    """
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    plaintext = json.dumps(dict(data)).encode()
    public = X25519PublicKey.from_public_bytes(seal)
    return bytes(suite.encrypt(plaintext, public, info=INFO + session.encode()))

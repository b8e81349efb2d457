"""One libtorrent peer, for scripts/bench/swarm; run by Debian's Python, which has the library.

swarm_torrent.py make FILE TORRENT | seed TORRENT FOLDER ADDRESS |
                 leech TORRENT FOLDER ADDRESS PEER_ADDRESSES (with commas)
A leech knows all others from its start, as a tracker would tell it. It prints its second of
completion (time.time) and goes on giving until it is ended.
"""

import sys
import time

import libtorrent as lt

PORT = 6881
PIECE_BYTES = 1 << 20


def make(file: str, torrent: str) -> None:
    """Write the torrent of a file (v2, pieces of 1 MiB)."""
    storage = lt.file_storage()
    lt.add_files(storage, file)
    made = lt.create_torrent(storage, PIECE_BYTES, lt.create_torrent_flags_t.v2_only)
    lt.set_piece_hashes(made, file.rpartition("/")[0])
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))


def peer(torrent: str, folder: str, address: str, peers: list[str]) -> None:
    """Take and give until ended."""
    session = lt.session(
        {
            "listen_interfaces": f"{address}:{PORT}", "enable_dht": False, "enable_lsd": True,
            "enable_upnp": False, "enable_natpmp": False,
            "enable_outgoing_utp": False, "enable_incoming_utp": False,
        }
    )  # fmt: skip
    handle = session.add_torrent({"ti": lt.torrent_info(torrent), "save_path": folder})
    while not handle.status().is_seeding:
        for other in peers:
            handle.connect_peer((other, PORT))
        time.sleep(0.05)
    print(time.time(), flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    word, *rest = sys.argv[1:]
    if word == "make":
        make(*rest)
    else:
        peer(rest[0], rest[1], rest[2], rest[3].split(",") if word == "leech" else [])

"""A plain HTTP server for one file: the demo's origin, a party of its own that logs every byte.

demo_origin.py FILE LOG [ADDRESS]   prints its port; each line of LOG: method, range, bytes sent
"""

import http.server
import json
import os
import sys
from pathlib import Path

PIECE_BYTES = 1 << 18


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file: Path
    log: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        size = self.file.stat().st_size
        tag = f'"{size:x}-{self.file.stat().st_mtime_ns:x}"'
        start, head = 0, self.command == "HEAD"
        same = self.headers.get("If-None-Match") == tag
        if same:
            self.send_response(304)
            self.send_header("ETag", tag)
            self.end_headers()
        if same or head:
            self._note(304 if same else 200, 0)
        if same:
            return
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and self.headers.get("If-Range") in (None, tag):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if head:
            return
        sent = 0
        try:
            with self.file.open("rb") as file:
                file.seek(start)
                while piece := file.read(PIECE_BYTES):
                    self.wfile.write(piece)
                    sent += len(piece)
        finally:
            self._note(206 if start else 200, sent)

    def _note(self, status: int, sent: int) -> None:
        line = {"method": self.command, "range": self.headers.get("Range", ""),
                "condition": self.headers.get("If-None-Match"), "status": status,
                "bytes": sent}  # fmt: skip
        with self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def log_message(self, *_args: object) -> None:
        pass


def main() -> None:
    Handler.file, Handler.log = Path(sys.argv[1]), Path(sys.argv[2])
    address = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    print(server.server_address[1], flush=True)
    os.close(0)
    server.serve_forever()


if __name__ == "__main__":
    main()

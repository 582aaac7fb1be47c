"""The product's command line in small: what `up` starts and watches, ready at once and able to fail on demand.

SMALL_PRODUCT_FAILS names the command that ends with exit code 3; SMALL_PRODUCT_IGNORES_SIGTERM makes it stubborn.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local.processes import exit_with_parent
from local.up import up

STRIPE = ("STRIPE_API_BASE", "STRIPE_SECRET_KEY", "STRIPE_PRICE_ID", "STRIPE_WEBHOOK_SECRET")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        names = ("DATABASE_URL", "REDIS_URL", "ACCESS_TOKEN_SECRET", "GEMINI_BASE_URL", "GEMINI_API_KEY", *STRIPE)
        body = json.dumps({"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(command: str) -> int:
    if command == "up":
        return up(os.environ, command=(sys.executable, __file__))
    exit_with_parent()
    if os.environ.get("SMALL_PRODUCT_FAILS") == command:
        sys.stderr.write(f"{command} fails as configured\n")
        return 3
    stopped = threading.Event()
    if not os.environ.get("SMALL_PRODUCT_IGNORES_SIGTERM"):
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if command == "serve":
        server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if command in ("serve", "worker"):
        stopped.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Starts Gemini's stand-in; the package's docstring says what it does."""

from __future__ import annotations

import argparse
import socket

from local.gemini.app import create_app
from local.gemini.directives import Pace, in_text
from local.gemini.service import StandIn


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m local.gemini", description=__doc__)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True, help="0 takes a free one, named in the first line")
    arguments.add_argument("--first-chunk-seconds", type=float, default=Pace.first_chunk_seconds)
    arguments.add_argument("--chunk-seconds", type=float, default=Pace.chunk_seconds)
    arguments.add_argument("--chunks", type=int, default=Pace.chunks)
    arguments.add_argument("--directives", default="", help="of every prompt, such as '[[echo]] [[thoughts tokens=0]]'")
    given = arguments.parse_args()
    pace = Pace(given.first_chunk_seconds, given.chunk_seconds, given.chunks)
    app = create_app(StandIn(pace, in_text(given.directives)))

    # Listening before the line is printed: whoever reads it may call at once.
    listener = socket.create_server((given.host, given.port), backlog=4096)
    print(f"Gemini's stand-in listens on http://{given.host}:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    app.run(sock=listener, single_process=True, backlog=4096)


if __name__ == "__main__":
    main()

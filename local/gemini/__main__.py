"""Starts Gemini's stand-in. The package's docstring describes it."""

from __future__ import annotations

import local.gemini
from local.gemini.app import gemini_app
from local.gemini.directives import Pace, in_text
from local.gemini.service import StandIn
from local.standin import command_line, serve


def main() -> None:
    parser = command_line("local.gemini", local.gemini.__doc__ or "")
    parser.add_argument("--first-chunk-seconds", type=float, default=Pace.first_chunk_seconds)
    parser.add_argument("--chunk-seconds", type=float, default=Pace.chunk_seconds)
    parser.add_argument("--chunks", type=int, default=Pace.chunks)
    parser.add_argument("--directives", default="", help="for every prompt, such as '[[echo]] [[thoughts tokens=0]]'")
    options = parser.parse_args()
    pace = Pace(options.first_chunk_seconds, options.chunk_seconds, options.chunks)
    serve("Gemini's stand-in", options, lambda _: gemini_app(StandIn(pace, in_text(options.directives))))


if __name__ == "__main__":
    main()

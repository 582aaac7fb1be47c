"""The baseline: Sanic answering a constant JSON object, without our code."""

from __future__ import annotations

import sys
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import json


def main() -> None:
    app: Sanic[Any, Any] = Sanic("bare", configure_logging=False)

    @app.get("/health")
    async def health(request: Request) -> HTTPResponse:
        return json({"status": "ok"})

    app.run(host="127.0.0.1", port=int(sys.argv[1]), single_process=True, motd=False, access_log=False)


if __name__ == "__main__":
    main()

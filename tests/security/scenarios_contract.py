"""Schemathesis: what the OpenAPI document allows and forbids, against the running service."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.security.stage import Stage
from tests.support.scenarios import Row, Scale
from tests.support.stripe_standin import start_stripe_standin

HERE = Path(__file__).parent


async def schemathesis(stage: Stage, scale: Scale, seed: int) -> Row:
    """All its checks; the long run also tries every constraint of every schema."""
    phases, examples = scale.of(("examples,fuzzing,stateful", 2), ("examples,coverage,fuzzing,stateful", 200))
    standin = start_stripe_standin()
    stripe = await asyncio.to_thread(next, standin)
    settings = {
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_PRICE_ID": stripe.price,
        "STRIPE_WEBHOOK_SECRET": stripe.secret,
        "STRIPE_API_BASE": stripe.url,
        "STREAM_SECONDS": "1",
    }
    try:
        async with stage.api(settings) as http:
            url = str(http.base_url).rstrip("/")
            command = ["-c", "from schemathesis.cli import schemathesis as run; run()"]
            command += ["--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"]
            command += ["--checks", "all", "--phases", phases, "-n", str(examples), "--seed", str(seed)]
            command += ["--continue-on-failure", "--no-color", "--generation-database", "none", "--no-shrink"]
            command += ["--request-timeout", "90", "--warnings", "off"]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=stage.world.folder,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(HERE.parents[1]),
                    "SCHEMATHESIS_HOOKS": "tests.security.schemathesis_hooks",
                    "API_URL": url,
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output = (await process.communicate())[0].decode()
            alive = (await http.get("/health")).status_code == 200
    finally:
        standin.close()
    summary = " ".join(re.findall(r"(?m)^ +(\d+ generated.*)$", output))
    failures = re.findall(r"(?m)^ *❌ (ST.*)$", output) + re.findall(r"(?m)^ *🚫 (.* Error.*)$", output)
    if process.returncode:
        sys.stderr.write(output)
    measured = f"{phases}: {summary}; {failures or 'no failure'}; exit code {process.returncode}"
    held = process.returncode == 0 and alive and not failures
    return Row("Schemathesis, all checks", "0 failures, 0 5xx", measured, held)

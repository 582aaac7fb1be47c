"""The Postman collection's story, played by newman against the whole product: `make test-postman`, which needs npm."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from docs.postman.build import COLLECTION, ENVIRONMENT, STEPS, STORY
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ROOT, whole_product
from tests.vendor_tools.conftest import Installed

NEWMAN = "newman@6.2.2"


@pytest.fixture(scope="module")
def product() -> Iterator[str]:
    with whole_product() as url:
        yield url


def test_its_story_can_be_repeated(installed: Installed, product: str) -> None:
    folder = ROOT / "docs" / "postman"
    command = [str(installed(NEWMAN) / "newman"), "run", str(folder / COLLECTION), "-e", str(folder / ENVIRONMENT)]
    command += ["--folder", STORY, "--env-var", f"baseUrl={product}", "--color", "off"]
    for _ in range(2):
        environment = {"PATH": os.environ["PATH"]}
        played = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROCESS_HANG, check=False
        )
        assert played.returncode == 0, played.stdout + played.stderr
        assert played.stdout.count("↳") == len(STEPS), played.stdout

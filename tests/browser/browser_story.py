"""From sign-up to Pro and back, on both screen sizes and in both colour schemes."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.visitor import DESKTOP, DESKTOP_DARK, PHONE, PHONE_DARK, Screen, Site, Visitor
from tests.support.patience import HANG
from tests.support.processes import ROOT

IMAGES = ROOT / "docs" / "images"

SKY = "Why is the sky blue?"
ANSWER = """Sunlight is a mix of all colours, and air **scatters the short waves most**.

1. Light meets molecules that are far smaller than its waves.
2. Blue, with the shorter waves, is scattered about *four times* as much as red.
3. So blue reaches your eyes from every direction.

| Colour | Wavelength | Scattered |
|--------|-----------:|----------:|
| Blue   | 450 nm     | 4.4       |
| Green  | 550 nm     | 2.0       |
| Red    | 650 nm     | 1.0       |

The share goes with the inverse fourth power of the wavelength:

```python
def scattering(wavelength_nm: float) -> float:
    return (650 / wavelength_nm) ** 4
```

At sunset the way through the air is longer, and what is left of the light is red."""


@pytest.mark.parametrize("screen", [DESKTOP, PHONE_DARK, DESKTOP_DARK, PHONE], ids=lambda screen: screen.name)
async def test_the_whole_story(site: Site, visit: Callable[[Screen], Awaitable[Visitor]], screen: Screen) -> None:
    asha = await visit(screen)
    page, gemini, stripe = asha.page, site.gemini, site.stripe
    gemini.reply("The colour of the sky", match="Title:", times=None)

    # Signing up.
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await asha.accessible()
    await asha.sign_up(checking=True)
    await asha.sees("Hello, Asha")
    await asha.accessible()

    # A reply with a reload in the middle, which also shows chatrooms from another device.
    token = await asha.token()
    for name in ("Letter to the landlord", "Prime numbers in Python", "A weekend in Jaipur"):
        await asha.api("POST", "/chatroom/", token, {"name": name})
    gemini.reply(ANSWER, match=SKY, chunks=60, first_chunk_seconds=0.2, chunk_seconds=0.2)
    await asha.write(SKY)
    await asha.sees("Light meets molecules")
    await asha.accessible()
    assert "At sunset" not in await page.inner_text("body")
    await expect(asha.button("Stop")).to_be_visible()
    await page.reload()
    await asha.sees("Light meets molecules")
    assert "At sunset" not in await page.inner_text("body"), "it came while it was still being written"
    reply = await asha.reply_to(SKY)
    assert reply.startswith("Sunlight is a mix")
    assert reply.endswith("what is left of the light is red.")
    assert reply.count("Light meets molecules") == 1
    assert sum(call["lastUserText"] == SKY for call in gemini.calls()) == 1, "the model was asked once"
    await expect(page.get_by_role("heading", name="The colour of the sky")).to_be_visible()
    await expect(asha.entry(SKY).locator(".markdown table td").first).to_have_text("Blue")
    await expect(asha.entry(SKY).locator(".markdown td", has_text="450 nm")).to_have_css("text-align", "right")
    await asha.accessible()
    await photograph(asha)

    # Cancelled and regenerated.
    gemini.reply("Some words " * 200, match="At length", chunks=200, chunk_seconds=0.1)
    await asha.write("At length, please")
    await asha.sees("Some words Some words")
    await asha.button("Stop").click()
    await asha.sees("You stopped this reply.")
    assert (await asha.reply_to("At length")).startswith("Some words")
    gemini.reply("Then in short.", match="At length")
    await asha.entry("At length").get_by_role("button", name="Regenerate").click()
    await expect(asha.entry("At length").locator(".markdown")).to_have_text("Then in short.")
    await expect(asha.entry("At length")).to_have_attribute("data-status", "completed")

    # The allowance is used up.
    await asha.sees("2 of 5 messages left today. Resets at 05:30.")
    await asha.ask("The fourth")
    await asha.ask("The fifth")
    await asha.sees("You have used today's 5 messages.")
    assert re.search(r"The allowance resets at 05:30, in .*\d", await page.locator(".used-up").inner_text())
    await asha.accessible()
    await page.get_by_label("Your message").fill("The sixth")
    await expect(asha.button("Send", exact=True)).to_have_attribute("aria-disabled", "true")

    # Pro.
    await asha.button("Upgrade", exact=True).click()
    await asha.sees("You are on Basic.")
    await asha.accessible()
    await page.get_by_role("dialog").get_by_role("button", name="Upgrade to Pro").click()
    await page.wait_for_url(f"{stripe.url}/**")
    await page.get_by_role("button", name="Subscribe").click()
    await asha.sees("Welcome to Pro.")
    assert page.url.startswith(f"{site.url}/#/chatroom/"), "back where it was"
    await asha.ask("The sixth")
    await asha.open_chats()
    await asha.sees("Unlimited messages")
    await asha.accessible()

    # And back.
    await asha.button("Manage subscription").click()
    await asha.sees("You are on Pro. It renews on")
    await asha.accessible()
    await asha.button("Manage in the portal").click()
    await page.wait_for_url(f"{stripe.url}/**")
    await page.get_by_role("button", name="Cancel at the end of the period").click()
    await page.get_by_role("link", name="Go back").click()
    await asha.open_chats()
    await asha.button("Manage subscription").click()
    await asha.sees("You are on Pro until")
    stripe.forward(months=1, hours=2)
    await until_basic(asha)

    # Devices.
    others = page.get_by_role("dialog").get_by_role("button", name="Sign out Python")
    await asha.open_account()
    await asha.sees("This device")
    await asha.accessible()
    await others.click()
    await asha.sees("The device is signed out.")
    await expect(others).to_have_count(0)
    await asha.close_dialog()
    phone, _ = await asha.token(), await asha.token()
    await asha.open_account()
    await expect(others).to_have_count(2)
    await asha.button("Sign out all other devices").click()
    await asha.sees("All other devices are signed out.")
    await expect(others).to_have_count(0)
    async with httpx.AsyncClient(
        base_url=site.url, headers={"Authorization": f"Bearer {phone}"}, timeout=HANG
    ) as client:
        assert (await client.get("/user/me")).status_code == 401

    # The end.
    await page.get_by_role("dialog").get_by_role("button", name="Sign out", exact=True).click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert [cookie["name"] for cookie in await asha.context.cookies()] == ["device_token"], "it is still a known device"
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def photograph(visitor: Visitor) -> None:
    """Takes the two screenshots that the README shows."""
    if visitor.screen not in (DESKTOP, PHONE_DARK):
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    await visitor.page.locator(".scroll").evaluate("box => box.scrollTo(0, 0)")
    await visitor.page.mouse.move(0, 0)
    path = IMAGES / f"chat-{visitor.screen.name}.png"
    await visitor.page.screenshot(path=path, animations="disabled", caret="hide")
    assert path.stat().st_size < 200_000


async def until_basic(visitor: Visitor) -> None:
    """Waits for the webhook and the worker."""
    give_up = time.monotonic() + 30
    await visitor.page.reload()
    while True:
        await visitor.open_chats()
        await expect(visitor.page.locator(".standing")).to_be_visible()
        if await visitor.page.locator(".standing").get_by_text("Basic").is_visible():
            await visitor.close_chats()
            return
        assert time.monotonic() < give_up, "still Pro"
        await visitor.page.reload()

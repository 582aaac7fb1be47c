"""Enter and Escape with physical keyboards, on-screen keyboards and input methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser.conftest import launch_options
from tests.browser.visitor import DESKTOP, PHONE, Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]

#: Makes Chromium report neither mouse nor touch screen.
_NO_POINTER = "--blink-settings=availablePointerTypes=1,primaryPointerType=1,availableHoverTypes=1,primaryHoverType=1"


#: Whether the page has handled the key.
_IS_TAKEN = """(box, init) => !box.dispatchEvent(
    new KeyboardEvent('keydown', {...init, key: 'Enter', bubbles: true, cancelable: true}))"""


@pytest.mark.parametrize("init", [{"keyCode": 229}, {"keyCode": 13, "isComposing": True}], ids=["Safari", "others"])
async def test_the_enter_that_ends_a_composition_does_not_send(visit: Visit, init: dict[str, Any]) -> None:
    asha = await visit()
    await asha.sign_up()
    message = asha.page.get_by_label("Your message")
    await message.fill("にほん")
    assert not await message.evaluate(_IS_TAKEN, init)
    await expect(message).to_have_value("にほん")
    assert await message.evaluate(_IS_TAKEN, {"keyCode": 13})
    assert "stand-in" in await asha.reply_to("にほん")
    await expect(asha.page.locator(".entry")).to_have_count(1)


async def test_enter_sends_where_there_is_neither_mouse_nor_touch(site: Site, browser: Browser, axe: str) -> None:
    other = await browser.browser_type.launch(**launch_options(_NO_POINTER))
    try:
        asha = await Visitor.come(site, other, DESKTOP, axe)
        assert await asha.page.evaluate("matchMedia('(pointer: none)').matches && matchMedia('(hover: none)').matches")
        await asha.sign_up()
        await expect(asha.page.get_by_label("Your message")).to_be_focused()
        await asha.page.keyboard.type("Hello")
        await asha.page.keyboard.press("Enter")
        assert "stand-in" in await asha.reply_to("Hello")
        await asha.leave()
    finally:
        await other.close()


async def test_on_a_touch_screen_enter_sends_if_there_are_keys(visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    message, keyboard = asha.page.get_by_label("Your message"), asha.page.keyboard
    await message.tap()
    await keyboard.insert_text("On the screen")  # without a key event
    await keyboard.press("Enter")
    await expect(message).to_have_value("On the screen\n")
    await keyboard.press("Control+Enter")
    assert "stand-in" in await asha.reply_to("On the screen")
    await message.tap()
    await keyboard.type("With keys")
    await keyboard.press("Enter")
    assert "stand-in" in await asha.reply_to("With keys")


async def test_escape_stops_the_reply(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    site.gemini.reply("Some words " * 200, match="At length", chunks=200, chunk_seconds=0.1)
    await asha.write("At length")
    await asha.sees("Some words")
    await asha.open_account()
    await expect(asha.page.get_by_role("dialog")).to_be_visible()
    await asha.page.keyboard.press("Escape")
    await expect(asha.page.get_by_role("dialog")).to_have_count(0)
    await expect(asha.entry("At length")).to_have_attribute("data-status", "generating")
    await asha.page.keyboard.press("Escape")
    await asha.sees("You stopped this reply.")

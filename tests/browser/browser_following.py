"""The view follows a reply while it is written, until the reader moves up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.visitor import DESKTOP, PHONE, Screen, Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]

_CODE = "```python\ndef total(rows):\n    return sum(row.price for row in rows)\n\nprint(total([]))\n```\n\n"
_TABLE = "| Item | Price |\n|------|------:|\n| Tea | 120 |\n| Coffee | 340 |\n| Milk | 45 |\n\n"
_PIECES = 100

#: Counts how often following ends: the ↓ button exists only while the view does not follow.
_WATCH = """() => {
    window.lost = 0;
    new MutationObserver(changes => {
        for (const {addedNodes} of changes)
            for (const node of addedNodes) if (node.classList?.contains('to-end')) window.lost += 1;
    }).observe(document.querySelector('.conversation'), {subtree: true, childList: true});
}"""
_BOX = "document.querySelector('.scroll')"
_DISTANCE = f"(box => box.scrollHeight - box.scrollTop - box.clientHeight)({_BOX})"


def pieces() -> list[str]:
    """A reply of tables and code in 100 chunks, which end in the middle of rows and fences."""
    text = ""
    while len(text) < 7000:
        text += f"{len(text)} characters so far.\n\n{_TABLE}{_CODE}"
    text += "The end of it."
    size = -(-len(text) // _PIECES)
    return [text[at : at + size] for at in range(0, len(text), size)]


async def until(page: Page, condition: str) -> None:
    """The page's security policy forbids Playwright's `wait_for_function`, which evaluates a string."""
    give_up = time.monotonic() + 30
    while not await page.evaluate(condition):
        assert time.monotonic() < give_up, condition
        await asyncio.sleep(0.03)


async def at_length(site: Site, asha: Visitor, *, chunk_seconds: float = 0.05) -> None:
    """A long reply has begun and is taller than the window."""
    site.gemini.reply("Tables and code", match="Title:", times=None)
    site.gemini.reply("", match="At length", chunks=pieces(), chunk_seconds=chunk_seconds)
    await asha.write("At length")
    await until(asha.page, f"{_BOX}?.scrollTop > 300")


async def slow_down(asha: Visitor) -> None:
    """A quarter of this machine's speed, as on a cheap phone."""
    devtools = await asha.context.new_cdp_session(asha.page)
    await devtools.send("Emulation.setCPUThrottlingRate", {"rate": 4})


async def is_still(asha: Visitor) -> None:
    """Once the movement has ended, the reply grows and the view stays in place."""
    page = asha.page
    where = f"[{_BOX}.scrollTop, {_BOX}.scrollHeight]"
    top, height = await page.evaluate(where)
    while True:
        await page.wait_for_timeout(300)
        before = top
        top, height = await page.evaluate(where)
        if top == before:
            break
    await until(page, f"{_BOX}.scrollHeight > {height} + 200")
    assert await page.evaluate(f"{_BOX}.scrollTop") == top


async def follows_to_the_end(asha: Visitor) -> None:
    await asha.reply_to("At length")
    await until(asha.page, f"{_DISTANCE} < 2")
    await expect(asha.entry("At length").get_by_text("The end of it.", exact=True)).to_be_in_viewport()
    await expect(asha.button("To the newest message")).to_have_count(0)


@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=lambda screen: screen.name)
async def test_nobody_scrolls_and_the_end_stays_in_view(site: Site, visit: Visit, screen: Screen) -> None:
    asha = await visit(screen)
    await asha.sign_up()
    await slow_down(asha)
    await asha.page.evaluate(_WATCH)
    for _ in range(2):
        await at_length(site, asha, chunk_seconds=0.03)
        await follows_to_the_end(asha)
        assert await asha.page.evaluate("window.lost") == 0, "it stopped following, though nobody moved"


async def _wheel(page: Page) -> None:
    await page.mouse.move(700, 400)
    await page.mouse.wheel(0, -400)


async def _press(page: Page, key: str) -> None:
    await page.get_by_role("region", name="Messages").focus()
    await page.keyboard.press(key)


async def _drag_down(page: Page) -> None:
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": 200, "y": 300}]})
    for y in range(310, 610, 30):
        await devtools.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": 200, "y": y}]})
    await devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


async def _select_upwards(page: Page) -> None:
    """Dragging a selection past the edge scrolls the view, like dragging the scrollbar."""
    await page.mouse.move(700, 400)
    await page.mouse.down()
    await page.mouse.move(700, 2, steps=4)
    await until(page, f"{_DISTANCE} > 300")
    await page.mouse.up()


_UPWARDS: dict[str, tuple[Screen, Callable[[Page], Awaitable[None]]]] = {
    "wheel": (DESKTOP, _wheel),
    "PageUp": (DESKTOP, lambda page: _press(page, "PageUp")),
    "Home": (DESKTOP, lambda page: _press(page, "Home")),
    "ArrowUp": (DESKTOP, lambda page: _press(page, "ArrowUp")),
    "Shift+Space": (DESKTOP, lambda page: _press(page, "Shift+Space")),
    "mouse": (DESKTOP, _select_upwards),
    "touch": (PHONE, _drag_down),
}


@pytest.mark.parametrize("way", _UPWARDS)
async def test_a_move_upwards_ends_it_and_the_button_takes_it_up(site: Site, visit: Visit, way: str) -> None:
    screen, move_up = _UPWARDS[way]
    asha = await visit(screen)
    await asha.sign_up()
    await at_length(site, asha, chunk_seconds=0.12)
    await move_up(asha.page)
    await is_still(asha)
    await asha.button("To the newest message").click()
    await until(asha.page, f"{_DISTANCE} < 2")
    await follows_to_the_end(asha)


async def test_moving_back_to_the_end_takes_it_up(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await at_length(site, asha, chunk_seconds=0.12)
    await _wheel(asha.page)
    await is_still(asha)
    await asha.page.mouse.wheel(0, 20_000)
    await follows_to_the_end(asha)


async def test_what_no_person_does_never_ends_it(site: Site, visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    await at_length(site, asha, chunk_seconds=0.12)
    page = asha.page
    for height in (500, 844, 460):  # a keyboard on the screen comes and goes
        await page.set_viewport_size({"width": 390, "height": height})
        await until(page, f"{_DISTANCE} < 2")
    await page.evaluate("document.querySelector('.bubble').style.paddingBottom = '600px'")
    await page.evaluate("document.querySelector('.bubble').style.paddingBottom = ''")
    await page.evaluate(f"{_BOX}.scrollTop -= 300")  # an extension, or a script
    await follows_to_the_end(asha)


async def test_sending_takes_it_up_and_another_tab_does_not(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await at_length(site, asha, chunk_seconds=0.03)
    await _wheel(asha.page)
    await asha.reply_to("At length")
    await asha.page.mouse.wheel(0, -20_000)
    await until(asha.page, f"{_BOX}.scrollTop === 0")
    other = await asha.another_tab()
    assert "stand-in" in await other.ask("From the other tab")
    await expect(asha.entry("From the other tab")).to_have_attribute("data-status", "completed")
    assert await asha.page.evaluate(f"{_BOX}.scrollTop") == 0
    site.gemini.reply("", match="Once more", chunks=pieces(), chunk_seconds=0.03)
    await asha.write("Once more")
    await asha.reply_to("Once more")
    await until(asha.page, f"{_DISTANCE} < 2")

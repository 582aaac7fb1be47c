"""Thoughts, replies that reach their length limit and are continued, and messages that were not counted."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.browser.fake_stream import fake_stream
from tests.browser.visitor import DESKTOP, PHONE_DARK, Screen, Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]


async def message_of(asha: Visitor, number: int = -1) -> dict[str, Any]:
    """The message as the server has it."""
    await asha.page.wait_for_url("**/#/chatroom/*")
    room = asha.page.url.rpartition("/")[2]
    messages: list[dict[str, Any]] = (await asha.api("GET", f"/chatroom/{room}", await asha.token()))["data"][
        "messages"
    ]
    return messages[number]


@pytest.mark.parametrize("screen", [DESKTOP, PHONE_DARK], ids=lambda screen: screen.name)
async def test_thoughts_are_seen_while_the_model_thinks_and_folded_afterwards(
    site: Site, visit: Visit, screen: Screen
) -> None:
    asha = await visit(screen)
    await asha.sign_up()
    thoughts = asha.page.locator(".thoughts")
    summary = thoughts.locator("summary")
    async with fake_stream(asha.page) as stream:
        await asha.write("Think about it")
        stream.thought("**Weighing the options**\n\nThe first one is cheap. The sec")
        await expect(summary).to_contain_text("Thinking…")
        await expect(summary).to_contain_text(re.compile(r"\d+ s"))
        await expect(summary.locator(".last-line")).to_have_text("The first one is cheap.")
        await expect(asha.page.locator(".dots")).to_have_count(0)
        stream.thought("ond one is not.\n\n**Deciding**\n")
        await expect(summary.locator(".last-line")).to_have_text("Deciding")
        await expect(summary).to_contain_text("3 s")
        await asha.accessible()
        stream.delta("Take the first.", "1-15")
        await expect(summary).to_have_text(re.compile(r"^Thought for \d+ s$"))
        await expect(thoughts).not_to_have_attribute("open", "")
        stream.thought("\n\nChecking once more.")
        await expect(summary).to_contain_text("Thinking…")
        stream.delta(" It is cheap.", "1-28")
        whole = "**Weighing the options**\n\n- The first one\n- The second one"
        stream.done(
            await message_of(asha)
            | {
                "status": "completed",
                "response": "Take the first. It is cheap.",
                "thoughts": whole,
                "thinkingSeconds": 72.4,
                "finishReason": "STOP",
            }
        )
        await expect(summary).to_have_text("Thought for 1 min 12 s")
        await expect(thoughts.locator(".markdown")).to_have_count(0)
        await summary.click()
        await expect(thoughts.locator("strong")).to_have_text("Weighing the options")
        await expect(thoughts.locator("li")).to_have_count(2)
        await expect(summary).to_be_in_viewport()
        await asha.accessible()
        await expect(asha.entry("Think").locator(".reply > .markdown")).to_have_text("Take the first. It is cheap.")


async def test_a_new_attempt_voids_the_thoughts(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    async with fake_stream(asha.page) as stream:
        await asha.write("Twice")
        stream.thought("Never mind.")
        await expect(asha.page.locator(".last-line")).to_have_text("Never mind.")
        stream.event("reset", {"attempt": 2}, "2-0")
        await expect(asha.page.locator(".thoughts")).to_have_count(0)
        stream.thought("Better.")
        await expect(asha.page.locator(".last-line")).to_have_text("Better.")
        stream.delta("Yes.", "2-4")
        stream.done(await message_of(asha) | {"status": "completed", "response": "Yes."})
        assert await asha.reply_to("Twice")


async def test_a_reply_that_was_cut_goes_on(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    entry = asha.entry("Too long")
    site.gemini.reply("It breaks off", match="Too long", finish_reason="MAX_TOKENS", chunks=2)
    await asha.ask("Too long")
    await asha.sees("The reply has reached its length limit.")
    await asha.accessible()
    message, asked = await message_of(asha), []

    async def accept(route: Route) -> None:
        asked.append((route.request.post_data_json, "idempotency-key" in route.request.headers))
        limits = {"used": 2, "total": 5, "resetsAt": "2030-01-01T00:00:00.000Z"}
        accepted = {"data": message | {"status": "queued"}, "remainingMessages": 3, "dailyLimitInfo": limits}
        await route.fulfill(status=202, json=accepted)

    await asha.page.route("**/continue", accept)
    async with fake_stream(asha.page) as stream:
        await asha.button("Continue").click()
        await expect(asha.button("Stop")).to_be_visible()
        await expect(asha.button("Continue")).to_have_count(0)
        await expect(entry.locator(".markdown")).to_have_text("It breaks off")
        stream.delta(" and goes on", "1-25")
        await expect(entry.locator(".markdown")).to_have_text("It breaks off and goes on")
        await asha.sees("3 of 5 messages left today")
        stream.delta(" to its end.", "1-37")
        whole = "It breaks off and goes on to its end."
        stream.done(message | {"response": whole, "finishReason": "STOP"})
        await expect(entry).to_have_attribute("data-status", "completed")
        await expect(entry.locator(".markdown")).to_have_text(whole)
        await expect(asha.button("Continue")).to_have_count(0)
        assert stream.positions == ["1-13"], "from where the text ends, not from the end of its stream"
    assert asked == [({}, True)]


async def test_a_reply_from_before_a_reload_goes_on(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    entry = asha.entry("Too long")
    site.gemini.reply("It breaks off", match="Too long", finish_reason="MAX_TOKENS")
    await asha.ask("Too long")
    message = await message_of(asha)
    await asha.page.reload()
    limits = {"used": 2, "total": 5, "resetsAt": "2030-01-01T00:00:00.000Z"}
    accepted = {"data": message | {"status": "queued"}, "remainingMessages": 3, "dailyLimitInfo": limits}

    async def accept(route: Route) -> None:
        await route.fulfill(status=202, json=accepted)

    await asha.page.route("**/continue", accept)
    async with fake_stream(asha.page) as stream:
        await asha.button("Continue").click()
        await expect(asha.button("Stop")).to_be_visible()
        await expect(entry.locator(".markdown")).to_have_text("It breaks off")
        stream.delta("It breaks off and", "1-17")  # the position was unknown, so the stream starts at the beginning
        await expect(entry.locator(".markdown")).to_have_text("It breaks off and")
        stream.done(message | {"response": "It breaks off and ends.", "finishReason": "STOP"})
        await expect(entry.locator(".markdown")).to_have_text("It breaks off and ends.")
        assert stream.positions == [""]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            {"status": "failed", "counted": False, "error": {"code": "model_not_configured", "detail": "No key."}},
            "The service is not set up to use Gemini. Your message is fine. Not counted.",
        ),
        ({"status": "cancelled", "counted": False}, "You stopped this before it began. Not counted."),
        ({"status": "cancelled", "counted": True, "response": "Half"}, "You stopped this reply."),
        ({"status": "blocked", "counted": True, "error": {"code": "reply_blocked", "detail": ""}}, None),
    ],
)
async def test_what_was_not_counted_says_so(
    site: Site, visit: Visit, message: dict[str, Any], said: str | None
) -> None:
    asha = await visit()
    await asha.sign_up()
    async with fake_stream(asha.page) as stream:
        await asha.write("Hello")
        await expect(asha.entry("Hello")).to_have_attribute("data-status", "queued")
        stream.done(await message_of(asha) | {"response": None} | message)
        await expect(asha.page.locator(".ending")).to_have_text(said or "The model's safety filter blocked the reply.")


async def test_thoughts_of_the_whole_product_are_there_after_a_reload(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    thought = "**Looking it up**\n\nIt is *there*."
    site.gemini.reply("One two three four", match="Really", thought=thought, chunks=4, chunk_seconds=0.5)
    await asha.write("Really think")
    summary = asha.page.locator(".thoughts summary")
    await expect(summary.locator(".last-line")).to_have_text("It is there.")
    await asha.reply_to("Really think")
    for _ in range(2):
        await expect(summary).to_have_text(re.compile(r"^Thought for \d+ s$"))
        await asha.page.reload()
    await summary.click()
    await expect(asha.page.locator(".thoughts strong")).to_have_text("Looking it up")


async def test_a_cut_reply_of_the_whole_product_goes_on(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    site.gemini.reply("Too long a title", match="Title:", times=None)
    for before in ("with its stream known", "after a reload"):
        site.gemini.reply("It breaks", match=before, finish_reason="MAX_TOKENS")
        await asha.ask(f"Too long, {before}")
        if before == "after a reload":
            await asha.page.reload()
        site.gemini.reply(" off, and goes on to its end.", chunks=4, chunk_seconds=0.2)
        await asha.button("Continue").click()
        await expect(asha.button("Continue")).to_have_count(0)
        assert await asha.reply_to(before) == "It breaks off, and goes on to its end."
    await asha.sees("1 of 5 messages left today")

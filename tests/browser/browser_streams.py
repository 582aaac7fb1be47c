"""Replies in several tabs, without a connection, and through network failures."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from playwright.async_api import Route, expect

from tests.browser.visitor import PHONE, Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]
LONG = " ".join(f"word{number}" for number in range(300))
OFFLINE = (r"ERR_INTERNET_DISCONNECTED", r"ERR_NETWORK_CHANGED")


async def test_two_tabs_follow_the_same_reply(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await asha.ask("Hello")
    other = await asha.another_tab()
    await other.sees("Hello")

    site.gemini.reply(LONG, match="At length", chunks=60, chunk_seconds=0.05)
    await asha.write("At length")
    for tab in (asha, other):
        await tab.sees("word20 ")
        await expect(tab.button("Stop")).to_be_visible()
    assert await asha.reply_to("At length") == await other.reply_to("At length") == LONG
    assert sum(call["lastUserText"] == "At length" for call in site.gemini.calls()) == 1

    # Cancelled in one tab, it is cancelled in both; then regenerated in the other.
    site.gemini.reply(LONG, match="Once more", chunks=100, chunk_seconds=0.1)
    await other.write("Once more")
    await asha.sees("word4 ")
    await asha.entry("Once more").locator(".markdown").wait_for()
    await asha.button("Stop").click()
    await other.sees("You stopped this reply.")
    await asha.entry("Once more").get_by_role("button", name="Regenerate").click()
    for tab in (asha, other):
        await expect(tab.entry("Once more")).to_have_attribute("data-status", "completed")
        assert "stand-in" in await tab.reply_to("Once more")

    # A room's name, the allowance, and the end of the session.
    await asha.button("Name, instructions, delete").click()
    await asha.page.get_by_label("Name", exact=True).fill("Renamed")
    await asha.page.get_by_role("textbox", name="Instructions").fill("Answer in verse.")
    await asha.button("Save").click()
    await expect(other.page.get_by_role("heading", name="Renamed")).to_be_visible()
    await other.sees("1 of 5 messages left today")
    await asha.open_account()
    await asha.page.get_by_role("dialog").get_by_role("button", name="Sign out", exact=True).click()
    await other.sees("You signed out in another tab.")


async def test_tabs_that_start_together_do_not_lose_the_session(visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    tabs = [asha, await asha.another_tab(), await asha.another_tab()]
    for _ in range(3):
        await asyncio.gather(*(tab.page.reload() for tab in tabs))
        for tab in tabs:
            await expect(tab.page.get_by_label("Your message")).to_be_visible()


async def test_offline_and_back(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    site.gemini.reply(LONG, match="At length", chunks=60, chunk_seconds=0.06)
    await asha.write("At length")
    await asha.sees("word10 ")
    async with asha.allowing(*OFFLINE):
        await asha.context.set_offline(True)
        await asha.sees("You are offline.")
        await asha.sees("Continues when you are online again.")
        await asha.accessible()
        seen = await asha.entry("At length").locator(".markdown").inner_text()
        await asha.page.wait_for_timeout(800)
        assert await asha.entry("At length").locator(".markdown").inner_text() == seen
        await asha.context.set_offline(False)
        assert await asha.reply_to("At length") == LONG, "nothing is missing, nothing is there twice"
        await expect(asha.text("You are offline.")).to_have_count(0)


async def test_a_message_that_is_written_offline_is_sent_once(site: Site, visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    await asha.ask("Hello")
    async with asha.allowing(*OFFLINE):
        await asha.context.set_offline(True)
        await asha.write("From the train")
        await asha.sees("Waiting for the connection …")
        await asha.context.set_offline(False)
        assert "stand-in" in await asha.reply_to("From the train")
    assert sum(call["lastUserText"] == "From the train" for call in site.gemini.calls()) == 1
    await asha.sees("3 of 5 messages left today")


async def test_an_answer_that_is_lost_is_asked_for_again(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await asha.ask("Hello")
    lost: list[str] = []  # keys of requests that took effect and whose response was lost

    async def lose_the_first(route: Route) -> None:
        if lost or route.request.method != "POST":
            await route.continue_()
            return
        await route.fetch()
        lost.append(route.request.headers["idempotency-key"])
        await route.abort("connectionreset")

    async with asha.allowing("ERR_CONNECTION_RESET"):
        await asha.page.route(re.compile(r"/chatroom/[^/]+/message$"), lose_the_first)
        assert "stand-in" in (await asha.ask("Only once"))
    assert len(lost) == 1
    assert sum(call["lastUserText"] == "Only once" for call in site.gemini.calls()) == 1
    await asha.page.reload()
    await expect(asha.page.locator(".bubble", has_text="Only once")).to_have_count(1)
    await asha.sees("3 of 5 messages left today")


async def test_a_stream_that_is_cut_goes_on(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    seen: list[str] = []

    async def cut_twice(route: Route) -> None:
        seen.append(route.request.headers.get("last-event-id", ""))
        if len(seen) == 1:
            events = 'retry: 10\n\nid: 1-5\nevent: delta\ndata: {"text":"word0"}\n\n'
            await route.fulfill(status=200, content_type="text/event-stream", body=events)
        elif len(seen) == 2:
            await route.fulfill(
                status=503, headers={"Retry-After": "1"}, json={"code": "streams_exhausted", "status": 503}
            )
        else:
            await route.continue_()

    await asha.page.route("**/stream", cut_twice)
    site.gemini.reply(LONG, match="At length", chunks=20, chunk_seconds=0.05)
    async with asha.allowing("503"):
        assert await asha.ask("At length") == LONG
    assert seen[:3] == ["", "1-5", "1-5"]


async def test_a_reply_that_begins_anew(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    site.gemini.fault("cut", match="Twice", after=3)
    site.gemini.reply(LONG, match="Twice", chunks=10, chunk_seconds=0.05)
    await asha.write("Twice")
    await asha.sees("Hello! I am the local")
    assert await asha.reply_to("Twice") == LONG, "and nothing of the first attempt"


async def test_the_server_is_killed_in_mid_reply(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    site.gemini.reply(LONG, match="At length", chunks=60, chunk_seconds=0.1)
    await asha.write("At length")
    await asha.sees("word10 ")
    async with asha.allowing("ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE"):
        site.kill_api()  # it restarts after a second
        assert await asha.reply_to("At length") == LONG
    assert sum(call["lastUserText"] == "At length" for call in site.gemini.calls()) == 1
    assert "stand-in" in await asha.ask("Still there?")


async def test_what_goes_wrong_is_said_in_words(site: Site, visit: Visit) -> None:
    asha = await visit()
    async with asha.allowing("404", "409", "400"):
        # An unknown number leads to sign-up, a known one to login.
        await asha.page.get_by_label("Mobile number").fill("12")
        async with asha.allowing("422"):
            await asha.button("Send me a code").click()
            await asha.sees("This is not a valid mobile number.")
        await asha.accessible()
        await asha.page.get_by_label("Mobile number").fill(asha.mobile)
        await asha.button("Send me a code").click()
        async with asha.allowing("422"):
            await asha.button("Create account").click()
            await expect(asha.page.get_by_label("Your name")).to_be_focused()
            await expect(asha.page.get_by_label("Your name")).to_have_accessible_description("This must not be blank.")
        await asha.page.get_by_label("Your name").fill("Asha")
        await asha.button("Create account").click()
        await asha.page.get_by_label("Six-digit code").fill("000000")
        await asha.button("Sign in", exact=True).click()
        await asha.sees("This code is wrong or has expired.")
        await asha.accessible()
        await asha.button("Fill in").click()
        await asha.button("Sign in", exact=True).click()
        await asha.sees("Hello, Asha")

    site.gemini.fault("bad_request", match="Not this", times=None)  # it is retried without thinking
    assert await asha.ask("Not this") == ""
    await asha.sees("The model rejected the message. Not counted.")
    await asha.sees("5 of 5 messages left today")
    await asha.accessible()
    site.gemini.clear()
    await asha.button("Try again").click()
    await expect(asha.entry("Not this")).to_have_attribute("data-status", "completed")

    site.gemini.fault("blocked", match="Nor this")
    await asha.ask("Nor this")
    await asha.sees("The model's safety filter blocked the reply.")

    site.gemini.reply("It breaks off here", match="Too long", finish_reason="MAX_TOKENS")
    await asha.ask("Too long")
    await asha.sees("The reply has reached its length limit.")

    # Meanwhile another device uses up the allowance.
    room = asha.page.url.rpartition("/")[2]
    token = await asha.token()
    for number in range(2):
        await asha.api("POST", f"/chatroom/{room}/message", token, {"input": f"Elsewhere {number}"})
    async with asha.allowing("403"):
        await asha.write("One too many")
        await asha.sees("It was not sent: today's messages are used up.")
    await asha.sees("You have used today's 5 messages.")
    await asha.accessible()
    await asha.button("Edit", exact=True).click()
    await expect(asha.page.get_by_label("Your message")).to_have_value("One too many")


async def test_a_room_that_is_deleted_elsewhere(visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await asha.ask("Hello")
    room = asha.page.url.rpartition("/")[2]
    await asha.api("DELETE", f"/chatroom/{room}", await asha.token())
    async with asha.allowing("404"):
        await asha.page.reload()
        await asha.sees("This chatroom does not exist any more.")
    await asha.sees("Your chatrooms appear here.")


async def test_a_token_that_has_ended_is_renewed(visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    asked: list[str] = []

    async def refuse_the_first(route: Route) -> None:
        asked.append(route.request.headers["authorization"])
        if len(asked) == 1:
            await route.fulfill(status=401, json={"code": "token_expired", "status": 401, "detail": "It has expired."})
        else:
            await route.continue_()

    await asha.page.route(re.compile(r"/chatroom/$"), refuse_the_first)
    async with asha.allowing("401"):
        assert "stand-in" in await asha.ask("Hello")
    assert len(asked) == 2
    assert asked[0] != asked[1]


async def test_a_session_that_is_ended_elsewhere(visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    await asha.api("DELETE", "/auth/sessions", await asha.token())
    async with asha.allowing("401"):
        await asha.write("Hello?")
        await asha.sees("You were signed out.")
    await asha.accessible()

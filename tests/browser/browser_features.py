"""Rooms, older messages, the account, the keyboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import expect

from tests.browser.visitor import PHONE, Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]


async def test_rooms_are_made_named_and_deleted(site: Site, visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    page = asha.page
    await asha.button("New chatroom with a name and instructions").click()
    await page.get_by_label("Name", exact=True).fill("Verses")
    await page.get_by_role("textbox", name="Instructions").fill("Answer in verse.")
    await page.get_by_label("Let the model name it").uncheck()
    await asha.accessible()
    await asha.button("Create").click()
    await expect(page.get_by_role("heading", name="Verses")).to_be_visible()
    await asha.sees("No messages yet.")
    await asha.accessible()
    await asha.ask("Hello")
    assert "Answer in verse." in site.gemini.calls()[-1]["systemInstruction"]

    await asha.open_chats()
    await asha.button("Change or delete “Verses”").click()
    await page.get_by_label("Name", exact=True).fill("Poems")
    await asha.button("Save").click()
    await expect(page.get_by_role("link", name="Poems")).to_be_visible()
    await asha.button("Change or delete “Poems”").click()
    await asha.button("Delete chatroom").click()
    await asha.sees("Delete this chatroom with all its messages?")
    await expect(asha.button("Keep")).to_be_focused()
    await asha.accessible()
    await page.get_by_role("dialog").get_by_role("button", name="Delete chatroom").click()
    await expect(page.get_by_role("link", name="Poems")).to_have_count(0)
    await expect(page.get_by_role("heading", name="New chatroom")).to_be_visible()


async def test_older_messages_come_by_scrolling_up(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    session = await asha.subscribe()
    assert session
    token = await asha.token()
    room = (await asha.api("POST", "/chatroom/", token, {"name": "Long"}))["data"]["id"]
    for number in range(75):
        path = f"/chatroom/{room}/message"
        await asha.api("POST", path, token, {"input": f"Message {number}."}, {"Prefer": "wait=20"})
    await asha.page.goto(f"{site.url}/#/chatroom/{room}")
    await asha.page.reload()
    await expect(asha.page.locator(".entry")).to_have_count(30)
    await expect(asha.page.get_by_text("Message 74.", exact=True)).to_be_in_viewport()
    await asha.page.get_by_role("region", name="Messages").focus()
    first = asha.page.get_by_text("Message 45.", exact=True)
    for count in (60, 75):
        await asha.page.keyboard.press("Home")
        await expect(asha.page.locator(".entry")).to_have_count(count)
        if count == 60:
            await expect(first).to_be_in_viewport()
    await expect(asha.button("Show earlier messages")).to_have_count(0)
    await asha.button("To the newest message").click()
    await expect(asha.page.get_by_text("Message 74.", exact=True)).to_be_in_viewport()


async def test_the_account(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    page = asha.page
    dialog = page.get_by_role("dialog")
    await asha.open_account()
    await page.get_by_label("Name", exact=True).fill("Asha Iyer")
    await asha.button("Save name").click()
    await asha.sees("Saved.")
    await asha.button("Set or change the password").click()
    await asha.button("Send me a code").click()
    await asha.sees("This server cannot send text messages. Your code is")
    code = (await dialog.locator(".send-code .hint").inner_text()).strip(".").rpartition(" ")[2]
    await page.get_by_label("Six-digit code").fill(code)
    await page.get_by_label("New password").fill("short")
    await asha.button("Set password").click()
    await asha.sees("Use at least 8 characters.")
    await asha.accessible()
    await page.get_by_label("New password").fill("password")
    async with asha.allowing("422"):
        await asha.button("Set password").click()
        await asha.sees("This password is too common.")
    await page.get_by_label("New password").fill("a good long password")
    await asha.button("Set password").click()
    await asha.sees("Your password is set.")
    await dialog.get_by_role("button", name="Sign out", exact=True).click()

    await asha.button("Use a password").click()
    await page.get_by_label("Mobile number").fill(asha.mobile)
    await page.get_by_label("Password").fill("a wrong password")
    async with asha.allowing("401"):
        await asha.button("Sign in", exact=True).click()
        await asha.sees("The number or the password is wrong.")
    await asha.accessible()
    await page.get_by_label("Password").fill("a good long password")
    await asha.button("Sign in", exact=True).click()
    await asha.sees("Hello, Asha")

    await asha.open_account()
    await asha.button("Delete account").click()
    await asha.accessible()
    await page.get_by_label("your current password").check()
    await page.get_by_label("Current password", exact=True).fill("a wrong password")
    async with asha.allowing("400"):
        await dialog.get_by_role("button", name="Delete account", exact=True).click()
        await asha.sees("The current password is wrong.")
    await page.get_by_label("Current password", exact=True).fill("a good long password")
    await dialog.get_by_role("button", name="Delete account", exact=True).click()
    await asha.sees("Your account is deleted.")
    async with asha.allowing("404"):
        await page.get_by_label("Mobile number").fill(asha.mobile)
        await asha.button("Send me a code").click()
        await expect(page.get_by_role("heading", name="Create your account")).to_be_visible()


async def test_all_of_it_by_the_keyboard(visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    page, press = asha.page, asha.page.keyboard.press
    await expect(page.get_by_label("Your message")).to_be_focused()
    await page.keyboard.type("First line")
    await press("Shift+Enter")
    await page.keyboard.type("second line")
    await press("Enter")
    assert "stand-in" in await asha.reply_to("First line\nsecond line")
    await expect(page.get_by_label("Your message")).to_be_focused()

    await page.reload()
    await asha.sees("First line")
    skip, names = page.get_by_text("Skip to the message box"), []
    while not await skip.evaluate("link => link === document.activeElement"):
        await press("Shift+Tab")
        names.append(await page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
        assert len(names) < 30, names
    assert {"Messages", "New chatroom", "Upgrade to Pro", "Name, instructions, delete"} <= {
        name.strip() for name in names
    }
    await press("Enter")
    await expect(page.get_by_label("Your message")).to_be_focused()

    account = asha.button("Account of")
    await account.focus()
    await press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    inside = (
        "document.querySelector('dialog').contains(document.activeElement) || document.activeElement === document.body"
    )
    for _ in range(20):
        await press("Tab")
        assert await page.evaluate(inside)
    await press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(account).to_be_focused()


async def test_a_screen_reader_hears_of_it_by_and_by(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    live = asha.page.get_by_role("log")
    await expect(live).to_have_attribute("aria-live", "polite")
    site.gemini.reply("One sentence. " * 40, match="Speak", chunks=80, chunk_seconds=0.05)
    await asha.ask("Speak")
    said = await live.locator("p").all_inner_texts()
    assert 1 <= len(said) <= 8, "not each word by itself"
    assert "One sentence." in said[-1]


async def test_copying(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await asha.sign_up()
    reply = "Some *code*:\n\n```python\nprint(1)\n\nprint(2)\n```"
    site.gemini.reply(reply, match="Code", chunks=3)
    await asha.ask("Code")
    await asha.button("Copy python code").click()
    await expect(asha.page.locator(".copy-code")).to_have_text("Copied")
    assert await asha.page.evaluate("navigator.clipboard.readText()") == "print(1)\n\nprint(2)\n"
    await asha.button("Copy", exact=True).last.click()
    await expect(asha.page.locator(".actions")).to_contain_text("Copied")
    assert await asha.page.evaluate("navigator.clipboard.readText()") == reply


async def test_a_phones_list_of_chats(visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    chats = asha.page.get_by_role("navigation", name="Chatrooms")
    await expect(chats).to_be_hidden()
    await asha.open_chats()
    await expect(chats).to_be_visible()
    await asha.accessible()
    await asha.page.keyboard.press("Escape")
    await expect(chats).to_be_hidden()
    await expect(asha.button("Show the list of chatrooms")).to_be_focused()
    width = await asha.page.evaluate("document.documentElement.scrollWidth")
    assert width <= asha.screen.width

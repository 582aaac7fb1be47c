"""Room lists over two API processes, each of which remembers its replies: none is ever old."""

from __future__ import annotations

import asyncio

import httpx

from tests.support.http_client import Person, sign_up


async def listed(person: Person, **query: str) -> list[str]:
    page = (await person.ask("GET", "/chatroom", params=query)).raise_for_status().json()
    return [room["name"] for room in page["data"]]


async def test_each_change_shows_everywhere_at_once(http: httpx.AsyncClient, second_http: httpx.AsyncClient) -> None:
    here = await sign_up(http)
    there = here.at(second_http)
    assert await listed(here) == await listed(there) == []
    expected: list[str] = []
    rooms: list[str] = []
    for number, (writer, reader) in enumerate([(here, there), (there, here)] * 3):
        created = await writer.ask("POST", "/chatroom", {"name": f"Room {number}"})
        rooms.append(created.json()["data"]["id"])
        expected.insert(0, f"Room {number}")
        for _ in range(2):  # encoded, and remembered
            assert await listed(reader) == await listed(writer) == expected
    for number, (writer, reader) in enumerate([(here, there), (there, here)]):
        await writer.ask("PATCH", f"/chatroom/{rooms[number]}", {"name": "Renamed"})
        expected[-1 - number] = "Renamed"
        assert await listed(reader) == await listed(writer) == expected
    assert (await here.ask("DELETE", f"/chatroom/{rooms[0]}")).status_code < 300
    assert await listed(there) == await listed(here) == expected[:-1]


async def test_pages_and_people_are_kept_apart(http: httpx.AsyncClient) -> None:
    ann, bob = await sign_up(http), await sign_up(http)
    for name in ("one", "two", "three"):
        await ann.ask("POST", "/chatroom", {"name": name})
    await bob.ask("POST", "/chatroom", {"name": "of Bob"})
    for _ in range(2):
        assert await listed(ann) == ["three", "two", "one"]
        assert await listed(ann, limit="2") == ["three", "two"]
        assert await listed(bob) == ["of Bob"]


async def test_lists_amid_changes_are_of_their_moment(http: httpx.AsyncClient) -> None:
    """A list that begins after a change was answered shows it."""
    person = await sign_up(http)

    async def add_and_look(number: int) -> None:
        for turn in range(5):
            name = f"Room {number} {turn}"
            await person.ask("POST", "/chatroom", {"name": name})
            assert name in await listed(person)

    await asyncio.gather(*(add_and_look(number) for number in range(8)))

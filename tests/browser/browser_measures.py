"""The amount of data loaded, and the time until something is visible. The figures are printed at the end."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable

from playwright.async_api import expect

from tests.browser.visitor import Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]
Measured = Callable[[str, str], None]

MOST_BYTES = 150 * 1024

_PAINT = """new Promise(resolve => new PerformanceObserver(list => {
    for (const entry of list.getEntriesByName('first-contentful-paint')) resolve(entry.startTime);
}).observe({type: 'paint', buffered: true}))"""

_WATCH = """() => {
    window.seen = null;
    new MutationObserver(() => {
        if (window.seen === null && document.querySelector('.entry:last-child .markdown')?.textContent) {
            requestAnimationFrame(() => { window.seen ??= performance.timeOrigin + performance.now(); });
        }
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


async def test_what_goes_over_the_wire(site: Site, visit: Visit, measured: Measured) -> None:
    asha = await visit()
    await asha.page.goto("about:blank")
    devtools = await asha.context.new_cdp_session(asha.page)
    await devtools.send("Network.enable")
    await devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[int] = []
    devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    paints: list[float] = []
    for _ in range(5):
        sizes.clear()
        await asha.page.goto(site.url)
        await expect(asha.page.get_by_role("heading", name="Sign in")).to_be_visible()
        paints.append(await asha.page.evaluate(_PAINT))
    measured("the page over the wire, headers included", f"{sum(sizes) / 1024:.1f} KB in {len(sizes)} requests")
    measured("first contentful paint, nothing cached", f"{statistics.median(paints):.0f} ms, at most {max(paints):.0f}")
    assert sum(sizes) < MOST_BYTES
    assert max(paints) < 5_000, "a bound on a hang; the figure is in the table"


async def test_how_soon_the_first_word_is_seen(site: Site, visit: Visit, measured: Measured) -> None:
    asha = await visit()
    await asha.sign_up()
    await asha.subscribe()
    await asha.page.evaluate(_WATCH)
    delays: list[float] = []
    wait = 0.4  # seconds until the model's first chunk
    for number in range(12):
        site.gemini.reply("One two three four five six", match=f"Number {number}.", first_chunk_seconds=wait, chunks=3)
        await asha.page.evaluate("window.seen = null")
        await asha.ask(f"Number {number}.")
        said = next(call for call in reversed(site.gemini.calls()) if call["lastUserText"] == f"Number {number}.")
        seen: float = await asha.page.evaluate("window.seen")
        delays.append(seen - 1000 * (said["at"] + wait))
    delays.sort()
    measured(
        "the model's first word until it is painted", f"{statistics.median(delays):.0f} ms, at most {delays[-1]:.0f}"
    )
    assert delays[-1] < 5_000, "a bound on a hang; the figure is in the table"

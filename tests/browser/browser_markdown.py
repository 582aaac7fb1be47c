"""Replies that are hard to lay out: tables, long words, both writing directions, and the accepted tags."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from tests.browser.visitor import DESKTOP, PHONE, PHONE_DARK, Screen, Site, Visitor

Visit = Callable[..., Awaitable[Visitor]]

THREE = """| Feature | Description | Availability |
|---|---|---:|
| Subscription management | Internationalisation of invoices, with all that accountants ask for | 1234567 |
| Authentication | One-time codes | 2026-11-28 |"""
SIX = """| Country | Capital | Population | Area (km²) | Currency | Government |
|---|---|---:|---:|---|---|
| Liechtenstein | Vaduz | 39,584 | 160 | Swiss franc | Constitutional monarchy |
| Antigua and Barbuda | Saint John's | 93,219 | 442 | Eastern Caribbean dollar | Parliamentary |"""
CELLS = """| H<sub>2</sub>O | Press<br>twice | Key |
|---|---|---|
| x<sup>2</sup> | one<br/>two<br />three | <kbd>Ctrl</kbd>+<kbd>C</kbd> |
| <details><summary>More</summary>**hidden** text</details> | <ul><li>no</li></ul> | <sub class="x">no</sub> |"""

URL = "https://example.com/" + "a-very-long-path/" * 8 + "?" + "q" * 120
WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2
LONG = f"""# {WORD}

A paragraph with {WORD} and {URL} and `{WORD}`.

- {WORD}
  1. {URL}

> {WORD}

<details><summary>{WORD}</summary>

{WORD}

</details>

```
{WORD}{WORD}
```

The end of it."""

#: Words that are broken across lines or overflow their cells.
_BROKEN = """table => [...table.querySelectorAll('th, td')].flatMap(cell => {
    const found = [], box = cell.getBoundingClientRect();
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
        for (const word of texts.currentNode.data.matchAll(/[\\p{L}\\p{N}.,']+/gu)) {
            const range = document.createRange();
            range.setStart(texts.currentNode, word.index);
            range.setEnd(texts.currentNode, word.index + word[0].length);
            const [part, ...rest] = range.getClientRects();
            if (rest.length || part.left < box.left - 1 || part.right > box.right + 1) found.push(word[0]);
        }
    return found;
})"""
_WIDER_THAN_THE_PAGE = """[document.documentElement, document.querySelector('.scroll')]
    .some(box => box.scrollWidth > box.clientWidth)"""


async def shown(site: Site, asha: Visitor, text: str, **parameters: Any) -> Locator:
    """The rendered reply."""
    site.gemini.reply("Layouts", match="Title:", times=None)
    site.gemini.reply(text, match="Show it", **parameters)
    await asha.ask("Show it")
    return asha.entry("Show it").locator(".markdown")


@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=lambda screen: screen.name)
@pytest.mark.parametrize(("table", "columns"), [(THREE, 3), (SIX, 6)])
async def test_no_word_of_a_table_is_broken(site: Site, visit: Visit, screen: Screen, table: str, columns: int) -> None:
    asha = await visit(screen)
    await asha.sign_up()
    markdown = await shown(site, asha, f"Before it.\n\n{table}\n\nAfter it.", chunks=20)
    frame = markdown.locator(".table")
    await expect(markdown.locator("th")).to_have_count(columns)
    assert await markdown.locator("table").evaluate(_BROKEN) == []
    assert not await asha.page.evaluate(_WIDER_THAN_THE_PAGE)
    await asha.accessible()
    if screen is PHONE and columns == 6:
        await expect(frame).to_have_accessible_name(
            "Table: Country, Capital, Population, Area (km²), Currency, Government"
        )
        assert await frame.evaluate("frame => frame.scrollWidth > frame.clientWidth")
        await frame.focus()
        await asha.page.keyboard.press("ArrowRight")
        await asha.page.wait_for_timeout(300)
        assert await frame.evaluate("frame => frame.scrollLeft") > 0


@pytest.mark.parametrize("screen", [PHONE_DARK, DESKTOP], ids=lambda screen: screen.name)
async def test_long_words_stay_on_the_page(site: Site, visit: Visit, screen: Screen) -> None:
    asha = await visit(screen)
    await asha.sign_up()
    markdown = await shown(site, asha, LONG)
    await markdown.locator("summary").click()
    await asha.accessible()
    assert not await asha.page.evaluate(_WIDER_THAN_THE_PAGE)
    edge = await markdown.evaluate("box => box.getBoundingClientRect().right")
    for part in await markdown.locator("h3, p, li, summary, blockquote, .code").all():
        assert await part.evaluate("part => part.getBoundingClientRect().right") <= edge + 1
        assert await part.evaluate("part => part.scrollWidth <= part.clientWidth + 1")
    assert await markdown.locator("pre").evaluate("code => code.scrollWidth > code.clientWidth"), (
        "code scrolls by itself"
    )
    await asha.ask(f"{WORD} {URL}")
    assert not await asha.page.evaluate(_WIDER_THAN_THE_PAGE)
    await asha.accessible()


async def test_the_tags_that_count(site: Site, visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    text = f"""CO<sub>2</sub>, E = mc<sup>2</sup>, <kbd>Esc</kbd><br>a new line, and a <b>bold</b> `<br>`.

<br>
Begins with a *tag*.

The <details> tag alone hides nothing.

{CELLS}

<details>
<summary>The **proof**</summary>

It is `short`:

```html
</details>
```

<details><summary>Inner</summary>deeper</details>

</details>

<sup onclick="window.pwned = 1">attributes</sup> <kbd style="color: red">do not</kbd> <br class="x">

The end of it."""
    markdown = await shown(site, asha, text, chunks=30)
    for tag, content in [("sub", "2"), ("sup", "2"), ("kbd", "Esc"), ("em", "tag")]:
        await expect(markdown.locator(f"p > {tag}").first).to_have_text(content)
    await expect(markdown.locator("p").first).to_contain_text("<b>bold</b> <br>")
    await asha.sees("The <details> tag alone hides nothing.")
    for tag, count in [("sub", 1), ("sup", 1), ("br", 3), ("kbd", 2), ("details", 1)]:
        await expect(markdown.locator(f"table {tag}")).to_have_count(count)
    await expect(markdown.locator("td").last).to_have_text('<sub class="x">no</sub>')
    await expect(markdown.locator("td").nth(4)).to_have_text("<ul><li>no</li></ul>")
    proof = markdown.locator(".block > details")
    await expect(proof.locator("> summary strong")).to_have_text("proof")
    await expect(proof.get_by_text("It is short:")).to_be_hidden()
    await proof.locator("> summary").click()
    await expect(proof.get_by_text("It is short:")).to_be_visible()
    await expect(proof.locator("pre")).to_contain_text("</details>")
    await expect(proof.locator("details > summary")).to_have_text("Inner")
    await asha.sees('<sup onclick="window.pwned = 1">attributes</sup>')
    assert await markdown.locator("[onclick], [style], .x").count() == 0
    await asha.accessible()


async def test_what_is_open_and_scrolled_stays_so_while_it_is_written(site: Site, visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    rows = "\n".join(f"| {number} | a | b | c | d | {WORD} |" for number in range(40))
    table = f"| Number | A | B | C | D | Word |\n|---|---|---|---|---|---|\n{rows}"
    site.gemini.reply(f"<details><summary>More</summary>\n\n{table}\n\n</details>", match="Show", chunks=120)
    await asha.write("Show")
    await asha.page.locator(".markdown summary").click()
    frame = asha.page.locator(".markdown .table")
    await expect(frame.locator("td").nth(5)).to_have_text(WORD)  # the table is wide by now
    # In one step: the element may be replaced soon after.
    await asha.page.evaluate(
        "(frame => { frame.scrollLeft = 150; frame.focus(); })(document.querySelector('.markdown .table'))"
    )
    await asha.reply_to("Show")
    assert await frame.evaluate("frame => frame.scrollLeft") == 150
    await expect(frame).to_be_focused()
    await expect(asha.page.locator(".markdown details")).to_have_attribute("open", "")


DIRECTIONS = """Hello in English.

مرحبا بالعالم، هذا نص عربي.

`npm install` ثم شغّل الخادم.

- שלום עולם
- Hello
  - متداخل
    - أعمق

| الاسم | السعر |
|---|---|
| شاي | 120 |

> اقتباس من كتاب

```python
print("مرحبا")  # تعليق
```

123"""


async def test_each_block_runs_its_own_way(site: Site, visit: Visit) -> None:
    asha = await visit(PHONE)
    await asha.sign_up()
    markdown = await shown(site, asha, DIRECTIONS)

    async def direction(part: Locator) -> str:
        return str(await part.evaluate("part => getComputedStyle(part).direction"))

    paragraphs = [await direction(part) for part in await markdown.locator(".block > p").all()]
    assert paragraphs == ["ltr", "rtl", "rtl", "ltr"]
    assert [await direction(part) for part in await markdown.locator("li").all()] == ["rtl", "ltr", "rtl", "rtl"]
    for part, expected in [
        ("table", "rtl"),
        ("td >> nth=1", "rtl"),
        ("blockquote", "rtl"),
        ("pre", "ltr"),
        ("p code", "ltr"),
    ]:
        assert await direction(markdown.locator(part).first) == expected, part
    for item in await markdown.locator("li").all():
        start = "marginRight" if await direction(item) == "rtl" else "marginLeft"
        assert await item.evaluate(f"item => parseFloat(getComputedStyle(item).{start})") >= 20, "room for its marker"
    markers = [
        await part.evaluate("part => getComputedStyle(part).listStyleType")
        for part in await markdown.locator("ul").all()
    ]
    assert markers == ["disc", "circle", "square"]
    await asha.accessible()


async def test_the_next_message_is_near_the_reply_before_it(site: Site, visit: Visit) -> None:
    asha = await visit()
    await asha.sign_up()
    markdown = await shown(site, asha, "Short.")
    await asha.ask("And then?")
    gap = await markdown.evaluate(
        "reply => document.querySelector('.entry:last-child .bubble').getBoundingClientRect().top"
        " - reply.getBoundingClientRect().bottom"
    )
    assert 24 < gap < 60

// A reply's Markdown as DOM, block by block, so that what is written already stays as it is while more comes.
//
// Raw HTML in it is shown as text. What is left goes through DOMPurify, and images become links: one that a reply
// names would tell its server that somebody reads it, and what its address says.

import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token, type Tokens } from "marked";

const escape = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escape(text),
    image: ({ href, text }: Tokens.Image) => `<a href="${escape(href)}">${escape(text || "image")}</a>`,
    checkbox: ({ checked }: Tokens.Checkbox) => (checked ? "☑ " : "☐ "),
    heading({ depth, tokens }: Tokens.Heading) {
      const level = Math.min(depth + 3, 6); // below the page's own headings
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const ALLOWED: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ADD_URI_SAFE_ATTR: ["align", "start"], // or else they, too, would have to look like an address
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.tagName === "A") {
    element.setAttribute("target", "_blank");
    element.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

const sources = new WeakMap<Element, string>();

/** Makes `container` show the text. `whole`: nothing follows, so what was shown may be looked at anew. */
export function show(container: HTMLElement, text: string, whole: boolean): void {
  const blocks = marked.lexer(text).filter((token) => token.type !== "space" && token.type !== "def");
  blocks.forEach((token, index) => {
    const shown = container.children[index];
    if (shown && sources.get(shown) === token.raw && !(whole && token.raw.includes("["))) return;
    const block = element("div", "block");
    block.append(fragment(token));
    sources.set(block, token.raw);
    if (shown) shown.replaceWith(block);
    else container.append(block);
  });
  while (container.children.length > blocks.length) container.lastElementChild?.remove();
}

function fragment(token: Token): DocumentFragment {
  const clean = DOMPurify.sanitize(marked.parser([token]), ALLOWED);
  for (const code of clean.querySelectorAll("pre")) frameCode(code);
  for (const table of clean.querySelectorAll("table")) {
    const frame = element("div", "table");
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  return clean;
}

/** Above the code: its language and a button, which the list of messages listens to. */
function frameCode(pre: HTMLPreElement): void {
  const language = /language-([\w+#.-]{1,30})/.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "";
  const frame = element("div", "code");
  const head = element("div", "code-head");
  const name = element("span", "");
  name.textContent = language || "code";
  const copy = element("button", "quiet copy-code") as HTMLButtonElement;
  copy.type = "button";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", `Copy ${language ? `${language} ` : ""}code`);
  head.append(name, copy);
  pre.replaceWith(frame);
  pre.tabIndex = 0;
  frame.append(head, pre);
}

function element(tag: string, className: string): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  return made;
}

/** For a screen reader: without the marks. */
export function plain(text: string): string {
  return text
    .replace(/```[^\n]*\n?/g, "")
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/[*_`#>|~]+/g, "")
    .trim();
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

// Renders a reply's Markdown block by block, so that finished blocks stay unchanged while more text arrives.
//
// Raw HTML is shown as text, except for the tags in tags.ts. The result goes through DOMPurify. Images become links,
// because loading an image would report to its server that the reply is read.

import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token, type Tokens } from "marked";
import { direct, directionOf } from "./direction";
import { escape, tags } from "./tags";

const marked = new Marked(tags, {
  gfm: true,
  renderer: {
    image: ({ href, text }: Tokens.Image) => `<a href="${escape(href)}">${escape(text || "image")}</a>`,
    checkbox: ({ checked }: Tokens.Checkbox) => (checked ? "☑ " : "☐ "),
    heading({ depth, tokens }: Tokens.Heading) {
      const level = Math.min(depth + 2, 6); // below the page's own headings
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const ALLOWED: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "details", "em", "h3", "h4", "h5", "h6", "hr", "kbd", "li", "ol", "p", "pre",
    "strong", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ADD_URI_SAFE_ATTR: ["align", "start"], // otherwise they would have to look like URLs
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

/** Renders the text in `container`. `whole`: the text is complete, so earlier blocks may be rendered again. */
export function show(container: HTMLElement, text: string, whole: boolean): void {
  const blocks = marked.lexer(text).filter((token) => token.type !== "space" && token.type !== "def");
  blocks.forEach((token, index) => {
    const shown = container.children[index];
    if (shown && sources.get(shown) === token.raw && !(whole && token.raw.includes("["))) return;
    const block = element("div", "block");
    block.append(fragment(token));
    sources.set(block, token.raw);
    if (!shown) container.append(block);
    else {
      const restore = saveState(shown);
      shown.replaceWith(block);
      restore(block);
    }
  });
  while (container.children.length > blocks.length) container.lastElementChild?.remove();
  container.dir = directionOf(container) || "ltr";
}

/** Saves the scroll positions, open sections and focus of a block; the result restores them in its replacement. */
function saveState(block: Element): (replacement: Element) => void {
  const parts = (of: Element): HTMLElement[] => [
    ...of.querySelectorAll<HTMLElement>("pre, .table, details, summary, a, button"),
  ];
  const before = parts(block).map((part) => ({
    left: part.matches("pre, .table") ? part.scrollLeft : 0,
    isOpen: part instanceof HTMLDetailsElement && part.open,
    isFocused: part === document.activeElement,
  }));
  return (replacement) =>
    parts(replacement).forEach((part, index) => {
      const was = before[index];
      if (was?.left) part.scrollLeft = was.left;
      if (was?.isOpen && part instanceof HTMLDetailsElement) part.open = true;
      if (was?.isFocused) part.focus({ preventScroll: true });
    });
}

function fragment(token: Token): DocumentFragment {
  const clean = DOMPurify.sanitize(marked.parser([token]), ALLOWED);
  direct(clean);
  for (const code of clean.querySelectorAll("pre")) frameCode(code);
  for (const table of clean.querySelectorAll("table")) frameTable(table);
  for (const list of clean.querySelectorAll("ol")) {
    if (list.start + list.children.length > 100) list.className = "wide"; // three-digit numbers
  }
  return clean;
}

const LONG_TEXT = 28; // characters above which a cell is wider than its longest word
const A_NUMBER = /^[\p{Sc}+\-\u2212~\u2248<>]?\s?\p{Nd}[\p{Nd}\s.,:/\u2013\u2212%+\-]{0,18}(?:\p{Sc}|\s?\p{L}{1,3})?$/u;

/** Puts a table into a scrolling frame, wide enough to read. */
function frameTable(table: HTMLTableElement): void {
  const frame = element("div", "table");
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  const names = [...table.querySelectorAll("th")].map((cell) => cell.textContent.trim()).filter(Boolean);
  frame.setAttribute("aria-label", names.length > 0 ? `Table: ${names.join(", ").slice(0, 80)}` : "Table");
  for (const cell of table.querySelectorAll("td")) {
    const text = cell.textContent.trim();
    if (A_NUMBER.test(text)) cell.className = "number";
    else if (text.length > LONG_TEXT) cell.className = "long";
  }
  frame.dir = table.dir;
  table.replaceWith(frame);
  frame.append(table);
}

/** Adds the language and a copy button, whose clicks the message list handles. */
function frameCode(pre: HTMLPreElement): void {
  const language = /language-([\w+#.-]{1,30})/.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "";
  const frame = element("div", "code");
  frame.dir = "ltr";
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

/** The text without Markdown syntax, for screen readers. */
export function plain(text: string): string {
  return text
    .replace(/```[^\n]*\n?/g, "")
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/<\/?(?:br|sub|sup|kbd|details|summary)(?: open| ?\/)?>/gi, " ")
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

// The HTML tags that models use where Markdown has no syntax: <br>, <sub>, <sup>, <kbd>, and <details> with <summary>.
// They are accepted without attributes only; every other tag is shown as text.

import type { MarkedExtension, Token, Tokens } from "marked";

export const escape = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const BREAK = /^<br ?\/?>$/i;
const PAIR = /^<(sub|sup|kbd)>(.*?)<\/\1>/i;
const BEGINS_INLINE = /^ {0,3}<(?:br ?\/?|\/?(?:sub|sup|kbd))>/i;
const BLOCK = /^ {0,3}<details(?: open)?>\s*<summary>([\s\S]*?)<\/summary>/i;
const IN_LINE = /^<details(?: open)?>\s*<summary>(.*?)<\/summary>(.*?)<\/details>/i;

interface Pair extends Tokens.Generic {
  tag: string;
  tokens: Token[];
}

interface Details extends Tokens.Generic {
  summary: Token[];
  tokens: Token[];
}

export const tags: MarkedExtension = {
  renderer: {
    html: ({ text }: Tokens.HTML | Tokens.Tag) => (BREAK.test(text) ? text : escape(text)),
  },
  tokenizer: {
    // On its own line such a tag would start an HTML block, in which Markdown is ignored; here it starts a paragraph.
    html(source) {
      return BEGINS_INLINE.test(source) ? undefined : false;
    },
  },
  extensions: [
    {
      name: "pair",
      level: "inline",
      start: (source) => source.search(/<(?:sub|sup|kbd)>/i),
      tokenizer(source): Pair | undefined {
        const [raw, tag, inner] = PAIR.exec(source) ?? [];
        if (!raw || !tag || !inner) return undefined;
        return { type: "pair", raw, tag: tag.toLowerCase(), tokens: this.lexer.inlineTokens(inner, []) };
      },
      renderer(token) {
        const { tag, tokens } = token as Pair;
        return `<${tag}>${this.parser.parseInline(tokens)}</${tag}>`;
      },
    },
    {
      name: "details",
      level: "block",
      start: (source) => /^ {0,3}<details/im.exec(source)?.index,
      tokenizer(source): Details | undefined {
        const begin = BLOCK.exec(source);
        if (!begin) return undefined;
        const [inner, raw] = untilClosed(source, begin[0].length);
        return {
          type: "details",
          raw,
          summary: this.lexer.inlineTokens((begin[1] ?? "").trim(), []),
          tokens: this.lexer.blockTokens(inner, []),
        };
      },
      renderer(token) {
        const { summary, tokens } = token as Details;
        return `<details><summary>${this.parser.parseInline(summary)}</summary>${this.parser.parse(tokens)}</details>`;
      },
    },
    {
      name: "detailsInLine", // in a table cell or within a paragraph
      level: "inline",
      start: (source) => source.search(/<details/i),
      tokenizer(source): Details | undefined {
        const found = IN_LINE.exec(source);
        if (!found) return undefined;
        const [raw, summary = "", inner = ""] = found;
        return {
          type: "detailsInLine",
          raw,
          summary: this.lexer.inlineTokens(summary.trim(), []),
          tokens: this.lexer.inlineTokens(inner.trim(), []),
        };
      },
      renderer(token) {
        const { summary, tokens } = token as Details;
        const { parser } = this;
        return `<details><summary>${parser.parseInline(summary)}</summary>${parser.parseInline(tokens)}</details>`;
      },
    },
  ],
};

/** The content, and the whole match with its end tag. While a reply is written the end may be missing; then the rest is content. */
function untilClosed(source: string, from: number): [inner: string, raw: string] {
  let depth = 1;
  let fence = "";
  let at = from;
  for (const line of source.slice(from).split(/(?<=\n)/)) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
    if (fence) {
      if (mark.startsWith(fence)) fence = "";
    } else if (mark) {
      fence = mark;
    } else {
      for (const tag of line.matchAll(/<(\/?)details(?: open)?>/gi)) {
        depth += tag[1] ? -1 : 1;
        if (depth === 0) {
          const end = at + tag.index;
          return [source.slice(from, end), source.slice(0, end + tag[0].length)];
        }
      }
    }
    at += line.length;
  }
  return [source.slice(from), source];
}

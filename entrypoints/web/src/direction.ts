// The direction of each block of a reply: that of its first letter. Code runs left to right and does not count.

const FIRST_LETTER = /\p{L}/u;
const RIGHT_TO_LEFT = /[\p{sc=Hebr}\p{sc=Arab}\p{sc=Syrc}\p{sc=Thaa}\p{sc=Nkoo}\p{sc=Adlm}\p{sc=Mand}\p{sc=Samr}\p{sc=Rohg}]/u;
const BLOCKS = "p, h3, h4, h5, h6, li, blockquote, table, th, td, details, summary";

/** A block without letters takes the direction of its surroundings. */
export function direct(root: ParentNode): void {
  for (const code of root.querySelectorAll<HTMLElement>("code, pre")) code.dir = "ltr";
  for (const block of root.querySelectorAll<HTMLElement>(BLOCKS)) {
    const direction = directionOf(block);
    if (direction) block.dir = direction;
  }
}

export function directionOf(node: Node): "ltr" | "rtl" | "" {
  if (node instanceof Text) {
    const letter = FIRST_LETTER.exec(node.data)?.[0];
    return letter === undefined ? "" : RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr";
  }
  if (node instanceof Element && /^(?:CODE|PRE|BUTTON)$/.test(node.tagName)) return "";
  for (const child of node.childNodes) {
    const direction = directionOf(child);
    if (direction) return direction;
  }
  return "";
}

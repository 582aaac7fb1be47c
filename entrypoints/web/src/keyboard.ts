// Whether Enter sends (physical keyboards) or starts a new line (on-screen keyboards, which have no Shift+Enter).

const touch = matchMedia("(pointer: coarse)");
const KEYBOARD_HEIGHT = 120; // pixels, at least, of an on-screen keyboard
let hasKeys = false;
let width = 0;
let tallest = 0;

function measure(): void {
  const height = visualViewport?.height ?? innerHeight;
  if (innerWidth !== width) tallest = 0; // rotated
  width = innerWidth;
  tallest = Math.max(tallest, height);
}

addEventListener("resize", measure);
visualViewport?.addEventListener("resize", measure);
measure();

// A physical keyboard on a touch device reveals itself by its keys: they have a code, and nothing covers the page.
addEventListener(
  "keydown",
  (event) => {
    const isShown = tallest - (visualViewport?.height ?? innerHeight) > KEYBOARD_HEIGHT;
    if (!isComposing(event) && /^(?:Key|Digit|Arrow|F\d|Tab|Escape)/.test(event.code) && !isShown) hasKeys = true;
  },
  true,
);

export const entersSends = (): boolean => !touch.matches || hasKeys;

/** A key that an input method uses, such as Enter to accept a suggestion. Safari reports this only by the key code. */
export const isComposing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;

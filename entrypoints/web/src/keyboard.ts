// Whether Enter sends, as with a keyboard of keys, or begins a new line, as with one on the screen, which has no Shift+Enter.

const touch = matchMedia("(pointer: coarse)");
const LEAST = 120; // pixels that a keyboard on the screen takes
let hasKeys = false;
let width = 0;
let tallest = 0;

function measure(): void {
  const height = visualViewport?.height ?? innerHeight;
  if (innerWidth !== width) tallest = 0; // turned
  width = innerWidth;
  tallest = Math.max(tallest, height);
}

addEventListener("resize", measure);
visualViewport?.addEventListener("resize", measure);
measure();

// A touch screen with a keyboard beside it shows by its keys: they have a place on it, and nothing covers the page.
addEventListener(
  "keydown",
  (event) => {
    const isShown = tallest - (visualViewport?.height ?? innerHeight) > LEAST;
    if (!isComposing(event) && /^(?:Key|Digit|Arrow|F\d|Tab|Escape)/.test(event.code) && !isShown) hasKeys = true;
  },
  true,
);

export const entersSends = (): boolean => !touch.matches || hasKeys;

/** A key that belongs to an input method, such as the Enter that takes its proposal. Safari says so by the code alone. */
export const isComposing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;

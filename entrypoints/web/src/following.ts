// Keeps the end of a scrolling box in view while its content grows, until the reader moves up.
//
// Growing content, table layout and on-screen keyboards cause scroll events, too, also upwards. So only a gesture ends
// following.

const NEAR = 90; // pixels from the end within which no button is needed
const AT_END = 30; // pixels from the end within which a move down starts following again
const REPORT_MS = 500; // the time a busy browser may take to report a scroll
const DRAG = 10; // pixels that a finger must move; less is a tap

type Listen = <E extends Event>(target: EventTarget, name: string, listener: (event: E) => void) => void;

/** Whether the view follows. `onChange` reports whether the reader is far from the end. */
export class Following {
  private isOn = true;
  private isAway = false;
  private isHeld = false;
  private lastTop = 0;
  /** Where the end is, and where it was before it moved: a scroll to the earlier end may be reported late. */
  private end = 0;
  private before = { end: 0, until: 0 };

  constructor(
    private readonly box: HTMLElement,
    private readonly onChange: (isAway: boolean) => void,
  ) {}

  /** Watches the box and `content`; returns a function that stops it. */
  attach(content: Element): () => void {
    const leaving = new AbortController();
    const on: Listen = (target, name, listener) =>
      target.addEventListener(name, listener as EventListener, { passive: true, signal: leaving.signal });
    on<WheelEvent>(this.box, "wheel", (event) => {
      const isSideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (event.deltaY < 0 && !isSideways && !event.ctrlKey) this.leave();
    });
    on<KeyboardEvent>(this.box, "keydown", (event) => {
      const isUp = ["PageUp", "Home", "ArrowUp"].includes(event.key) || (event.key === " " && event.shiftKey);
      if (isUp && !event.defaultPrevented) this.leave();
    });
    on<FocusEvent>(this.box, "focusin", (event) => {
      if (event.target instanceof Element && this.isAbove(event.target)) this.leave();
    });
    on(this.box, "scroll", () => this.scrolled());
    this.watchFinger(on);
    this.watchMouse(on);
    const observer = new ResizeObserver(() => this.settle());
    observer.observe(content);
    observer.observe(this.box);
    leaving.signal.addEventListener("abort", () => observer.disconnect());
    return () => leaving.abort();
  }

  /** Moves to the end and follows it again. */
  toEnd(): void {
    this.isOn = true;
    this.settle();
  }

  private settle(): void {
    if (this.isOn) {
      this.box.scrollTop = this.box.scrollHeight;
      this.lastTop = this.box.scrollTop;
    }
    this.note();
    this.report();
  }

  private note(): void {
    const end = this.box.scrollHeight - this.box.clientHeight;
    if (end === this.end) return;
    // Growth by more than a window is earlier messages, inserted above.
    const isWritten = end - this.end < this.box.clientHeight;
    this.before = { end: isWritten ? this.end : end, until: performance.now() + REPORT_MS };
    this.end = end;
  }

  /** Stays here until the reader moves down to the end, or calls toEnd. */
  leave(): void {
    // Only a box that can scroll can be moved. Its position is not checked: browsers scroll before they report.
    if (this.box.scrollHeight > this.box.clientHeight) this.isOn = false;
  }

  private scrolled(): void {
    const top = this.box.scrollTop;
    this.note();
    const end = performance.now() < this.before.until ? this.before.end : this.end;
    if (top > this.lastTop && top > end - AT_END) this.isOn = true;
    else if (top < this.lastTop && this.isHeld && this.distance() > 2) this.isOn = false; // a shrinking end leaves no distance
    this.lastTop = top;
    this.report();
  }

  private distance(): number {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight;
  }

  /** Whether a focused element is out of view while the end is in view. */
  private isAbove(element: Element): boolean {
    if (element === this.box) return false;
    const below = this.box.getBoundingClientRect().top + this.box.clientTop - this.box.scrollTop + this.box.scrollHeight;
    return below - element.getBoundingClientRect().bottom > this.box.clientHeight;
  }

  private report(): void {
    const isAway = !this.isOn && this.distance() > NEAR;
    if (isAway !== this.isAway) this.onChange(isAway);
    this.isAway = isAway;
  }

  private watchFinger(on: Listen): void {
    let last: Touch | undefined;
    let down = 0; // pixels that the finger moved down, which moves the view up
    on<TouchEvent>(this.box, "touchstart", (event) => {
      last = event.touches[0];
      down = 0;
    });
    on<TouchEvent>(this.box, "touchmove", (event) => {
      const touch = event.touches[0];
      if (touch && last && event.touches.length === 1) {
        const [x, y] = [touch.clientX - last.clientX, touch.clientY - last.clientY];
        if (Math.abs(y) >= Math.abs(x)) down = Math.max(0, down + y);
        if (down > DRAG) this.leave();
      }
      last = touch;
    });
  }

  /** A held button drags the scrollbar, or a selection past the edge; the middle button scrolls until the next click. */
  private watchMouse(on: Listen): void {
    let isMiddle = false;
    on<PointerEvent>(window, "pointerdown", (event) => {
      this.isHeld = event.pointerType === "mouse" && event.target instanceof Node && this.box.contains(event.target);
      isMiddle = event.button === 1;
    });
    const release = (): void => {
      if (!isMiddle) this.isHeld = false;
    };
    on(window, "pointerup", release);
    on(window, "pointercancel", release);
    // Browsers do not always report a release over a scrollbar.
    on<PointerEvent>(window, "pointermove", (event) => {
      if (event.buttons === 0) release();
    });
  }
}

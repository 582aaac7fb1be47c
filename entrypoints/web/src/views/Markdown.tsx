import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { show } from "../markdown";

/** The DOM below is markdown.ts's, not Preact's. */
export function Markdown({ text, whole }: { text: string; whole: boolean }): JSX.Element {
  const container = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (container.current) show(container.current, text, whole);
  }, [text, whole]);
  return <div ref={container} class="markdown" />;
}

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Entry } from "../conversation";
import { plain } from "../markdown";
import type { Message } from "../types";
import { seconds } from "../words";
import { Markdown } from "./Markdown";

/** The model's thoughts above the reply, collapsed; while it thinks, the latest line and the time are visible. */
export function Thoughts({ entry, message }: { entry: Entry; message: Message }): JSX.Element | null {
  const [isOpen, setOpen] = useState(false);
  const text = entry.thoughts.value || message.thoughts || "";
  const since = entry.thinkingSince.value;
  if (text === "") return null;
  const took = message.thinkingSeconds ?? entry.thinkingMs.value / 1000;
  return (
    <details class="thoughts" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {since !== null ? (
          <>
            <span class="spinner small" />
            Thinking… <Elapsed since={since} before={entry.thinkingMs.value} />
            {!isOpen && (
              <span class="last-line" dir="auto">
                {lastLine(text)}
              </span>
            )}
          </>
        ) : (
          <>{took > 0 ? `Thought for ${seconds(took)}` : "Thoughts"}</>
        )}
      </summary>
      {isOpen && <Markdown text={text} whole={since === null} />}
    </details>
  );
}

function Elapsed({ since, before }: { since: number; before: number }): JSX.Element {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return <span class="detail">{seconds((before + Math.max(now - since, 0)) / 1000)}</span>;
}

/** The latest complete sentence, which stays long enough to be read, or else the last line so far. */
function lastLine(text: string): string {
  const line = plain(text.trimEnd().split("\n").at(-1) ?? "");
  return line.match(/[^.!?。।]+[.!?。।]+(?=\s|$)/gu)?.at(-1)?.trim() ?? line;
}

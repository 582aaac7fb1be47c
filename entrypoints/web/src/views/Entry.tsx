import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { current, discard, isFinal, regenerate, sendAgain, type Entry } from "../conversation";
import { copy } from "../markdown";
import { Markdown } from "./Markdown";
import { isUsedUp, online } from "../store";
import type { Message } from "../types";
import { Icon } from "./ui";
import { momentOf, timeOf, whyUnanswered } from "../words";

export function EntryView({ entry, isLast }: { entry: Entry; isLast: boolean }): JSX.Element {
  const message = entry.message.value;
  return (
    <li class="entry" data-status={message?.status ?? entry.sending.value ?? ""}>
      <div class="input">
        <h2 class="unseen">You</h2>
        <p class="bubble" dir="auto">
          {entry.input}
        </p>
        {message && (
          <time class="when" dateTime={message.createdAt} title={momentOf(message.createdAt)}>
            {timeOf(message.createdAt)}
          </time>
        )}
        <Sending entry={entry} />
      </div>
      {message && <Reply entry={entry} message={message} isLast={isLast} />}
    </li>
  );
}

function Sending({ entry }: { entry: Entry }): JSX.Element | null {
  switch (entry.sending.value) {
    case "sending":
      return <p class="status">Sending …</p>;
    case "waiting":
      return <p class="status">{online.value ? "Not reached the server yet. Trying again …" : "Waiting for the connection …"}</p>;
    case "unsent":
      return (
        <div class="unsent">
          <p class="error">{entry.why.value || "It was not sent."}</p>
          <button type="button" class="quiet" onClick={() => void sendAgain(entry)}>
            Send again
          </button>
          <button
            type="button"
            class="quiet"
            onClick={() => {
              discard(entry);
              dispatchEvent(new CustomEvent("suggest", { detail: entry.input }));
            }}
          >
            Edit
          </button>
        </div>
      );
    default:
      return null;
  }
}

function Reply({ entry, message, isLast }: { entry: Entry; message: Message; isLast: boolean }): JSX.Element {
  const text = entry.text.value;
  const isEnded = isFinal(message);
  return (
    <div class={`reply ${isEnded ? "" : "writing"}`}>
      <h2 class="unseen">Gemini</h2>
      {text !== "" && <Markdown text={text} whole={isEnded} />}
      {!isEnded && <Progress entry={entry} message={message} hasText={text !== ""} />}
      {isEnded && <Ending message={message} />}
      {isEnded && <Actions entry={entry} text={text} isLast={isLast} />}
    </div>
  );
}

function Progress({ entry, message, hasText }: { entry: Entry; message: Message; hasText: boolean }): JSX.Element | null {
  const [isLong, setLong] = useState(false);
  useEffect(() => {
    setLong(false);
    const timer = setTimeout(() => setLong(true), 8000);
    return () => clearTimeout(timer);
  }, [message.status, hasText]);
  let words = "";
  if (!entry.isConnected.value) words = online.value ? "Connecting again …" : "Goes on when you are online again.";
  else if (entry.isStopping.value) words = "Stopping …";
  else if (!hasText) words = isLong ? "This takes longer than usual. It is still being worked on." : "";
  if (hasText && words === "") return null;
  return (
    <p class="status">
      {!hasText && (
        <span class="dots" role="img" aria-label="The reply is on its way">
          <i />
          <i />
          <i />
        </span>
      )}
      {words}
    </p>
  );
}

function Ending({ message }: { message: Message }): JSX.Element | null {
  switch (message.status) {
    case "failed":
    case "blocked":
      return <p class="ending bad">{whyUnanswered(message)}</p>;
    case "cancelled":
      return <p class="ending">{message.response ? "You stopped this reply." : "You stopped this before it began."}</p>;
    default:
      return message.finishReason === "MAX_TOKENS" ? (
        <p class="ending">The reply was cut here: it has reached its greatest length.</p>
      ) : null;
  }
}

function Actions({ entry, text, isLast }: { entry: Entry; text: string; isLast: boolean }): JSX.Element {
  const [copied, setCopied] = useState(false);
  const failed = entry.message.value?.status === "failed";
  return (
    <div class={`actions ${isLast || failed ? "shown" : ""}`}>
      {text !== "" && (
        <button
          type="button"
          class="quiet"
          onClick={() =>
            void copy(text).then((done) => {
              setCopied(done);
              setTimeout(() => setCopied(false), 2000);
            })
          }
        >
          <Icon name={copied ? "check" : "copy"} /> {copied ? "Copied" : "Copy"}
        </button>
      )}
      <button
        type="button"
        class="quiet"
        disabled={current.value !== null || isUsedUp.value}
        title={isUsedUp.value ? "Today's messages are used up" : "Counts as a message"}
        onClick={() => void regenerate(entry)}
      >
        <Icon name="again" /> {failed ? "Try again" : "Regenerate"}
      </button>
    </div>
  );
}

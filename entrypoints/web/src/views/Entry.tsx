import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { continueReply, current, discard, isFinal, regenerate, sendAgain, type Entry } from "../conversation";
import { copy } from "../markdown";
import { Markdown } from "./Markdown";
import { isUsedUp, online } from "../store";
import { Thoughts } from "./Thoughts";
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
      return <p class="status">{online.value ? "The server has not replied yet. Trying again …" : "Waiting for the connection …"}</p>;
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
      <Thoughts entry={entry} message={message} />
      {text !== "" && <Markdown text={text} whole={isEnded} />}
      {!isEnded && <Progress entry={entry} message={message} />}
      {isEnded && <Ending entry={entry} message={message} />}
      {isEnded && <Actions entry={entry} text={text} isLast={isLast} />}
    </div>
  );
}

function Progress({ entry, message }: { entry: Entry; message: Message }): JSX.Element | null {
  const isContinued = message.status === "queued";
  const hasText = entry.thinkingSince.value !== null || (entry.text.value !== "" && !isContinued);
  const [isLong, setLong] = useState(false);
  useEffect(() => {
    setLong(false);
    const timer = setTimeout(() => setLong(true), 8000);
    return () => clearTimeout(timer);
  }, [message.status, hasText]);
  let words = "";
  if (!entry.isConnected.value) words = online.value ? "Reconnecting …" : "Continues when you are online again.";
  else if (entry.isStopping.value) words = "Stopping …";
  else if (!hasText) words = isLong ? "This is taking longer than usual." : "";
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

function Ending({ entry, message }: { entry: Entry; message: Message }): JSX.Element | null {
  const cost = message.counted ? "" : " Not counted.";
  switch (message.status) {
    case "failed":
    case "blocked":
      return <p class="ending bad">{whyUnanswered(message) + cost}</p>;
    case "cancelled":
      return <p class="ending">{(message.response ? "You stopped this reply." : "You stopped this before it began.") + cost}</p>;
    default:
      return message.finishReason === "MAX_TOKENS" ? <Cut entry={entry} /> : null;
  }
}

function Cut({ entry }: { entry: Entry }): JSX.Element {
  const [isAsking, setAsking] = useState(false);
  return (
    <div class="ending cut">
      <p>The reply has reached its length limit.</p>
      <AskButton
        class="secondary"
        isAsking={isAsking}
        onClick={() => {
          setAsking(true);
          void continueReply(entry).finally(() => setAsking(false));
        }}
      >
        Continue
      </AskButton>
    </div>
  );
}

/** Asks the model again, which counts as a message. */
function AskButton(props: { class: string; isAsking?: boolean; onClick: () => void; children: ComponentChildren }): JSX.Element {
  return (
    <button
      type="button"
      class={props.class}
      disabled={current.value !== null || isUsedUp.value || props.isAsking}
      title={isUsedUp.value ? "Today's messages are used up" : "Counts as a message"}
      onClick={props.onClick}
    >
      {props.children}
    </button>
  );
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
      <AskButton class="quiet" onClick={() => void regenerate(entry)}>
        <Icon name="again" /> {failed ? "Try again" : "Regenerate"}
      </AskButton>
    </div>
  );
}

import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { current, sendMessage, state, stop } from "../conversation";
import { entersSends, isComposing } from "../keyboard";
import { dialog, isUsedUp, now, profile, roomId, sidebarOpen, usage } from "../store";
import { Icon } from "./ui";
import { duration, timeOf } from "../words";

const MAX_CHARACTERS = 8000;

const drafts = new Map<string, string>();

export function Composer(): JSX.Element {
  const room = roomId.value ?? "";
  const [text, setText] = useState(drafts.get(room) ?? "");
  const box = useRef<HTMLTextAreaElement>(null);
  const open = current.value;
  const characters = [...text].length;
  const isTooLong = characters > MAX_CHARACTERS;
  const canSend = open === null && text.trim() !== "" && !isTooLong && !isUsedUp.value && state.value !== "loading";

  useEffect(() => {
    setText(drafts.get(room) ?? "");
    if (entersSends() && !sidebarOpen.value) box.current?.focus();
  }, [room]);

  useEffect(() => {
    drafts.set(room, text);
  }, [text]);

  useEffect(() => {
    const suggest = (event: Event): void => {
      setText((event as CustomEvent<string>).detail);
      box.current?.focus();
    };
    addEventListener("suggest", suggest);
    return () => removeEventListener("suggest", suggest);
  }, []);

  useEffect(() => {
    const stopByEscape = (event: KeyboardEvent): void => {
      if (event.key !== "Escape" || event.defaultPrevented || isComposing(event)) return;
      const shown = current.peek();
      if (shown && !shown.isStopping.peek() && dialog.peek() === null && !sidebarOpen.peek()) void stop(shown);
    };
    addEventListener("keydown", stopByEscape);
    return () => removeEventListener("keydown", stopByEscape);
  }, []);

  // Grows with its text, up to the style's limit.
  useLayoutEffect(() => {
    if (!box.current) return;
    box.current.style.height = "auto";
    box.current.style.height = `${box.current.scrollHeight}px`;
  }, [text]);

  function submit(): void {
    if (!canSend) return;
    drafts.delete(room);
    setText("");
    void sendMessage(text.trim());
    box.current?.focus();
  }

  return (
    <div class="composer">
      <div class="column">
        {isUsedUp.value && <UsedUp />}
        <form
          class="write"
          onSubmit={(event) => {
            event.preventDefault();
            submit();
          }}
        >
          <label class="unseen" for="message">
            Your message
          </label>
          <textarea
            id="message"
            ref={box}
            rows={1}
            value={text}
            placeholder="Write a message"
            aria-describedby="message-note"
            aria-invalid={isTooLong ? true : undefined}
            enterkeyhint={entersSends() ? "send" : "enter"}
            onInput={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
              if (!entersSends() && !event.ctrlKey && !event.metaKey) return;
              event.preventDefault();
              submit();
            }}
          />
          {open === null ? (
            <button type="submit" class="send" aria-label="Send" title="Send" aria-disabled={!canSend}>
              <Icon name="send" />
            </button>
          ) : (
            <button
              type="button"
              class="send stop"
              aria-label="Stop"
              title="Stop (Esc)"
              aria-disabled={open.isStopping.value || open.message.value === null}
              onClick={() => void stop(open)}
            >
              <Icon name="stop" />
            </button>
          )}
        </form>
        <p id="message-note" class="hint note">
          {isTooLong ? (
            <span class="error">
              {characters.toLocaleString()} of {MAX_CHARACTERS.toLocaleString()} characters: please shorten it.
            </span>
          ) : (
            <Allowance />
          )}
        </p>
      </div>
    </div>
  );
}

function Allowance(): JSX.Element | null {
  const found = usage.value;
  if (found === null || found.remaining === "unlimited" || isUsedUp.value) {
    return <>Replies can be wrong. Check important facts.</>;
  }
  return (
    <>
      {found.remaining} of {found.total} messages left today. Resets at {timeOf(found.resetsAt)}.
    </>
  );
}

function UsedUp(): JSX.Element | null {
  const found = usage.value;
  if (found === null) return null;
  return (
    <div class="used-up" role="status">
      <p>
        <strong>You have used today's {found.total} messages.</strong> The allowance resets at {timeOf(found.resetsAt)}, in{" "}
        {duration(Date.parse(found.resetsAt) - now.value)}.
      </p>
      {profile.value?.subscriptionTier === "Basic" && (
        <button type="button" class="primary" onClick={() => (dialog.value = { name: "subscription" })}>
          Upgrade
        </button>
      )}
    </div>
  );
}

import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { asked, current, entries, isLoadingOlder, loadOlder, older, refresh, state, trouble } from "../conversation";
import { Composer } from "./Composer";
import { Following } from "../following";
import { copy } from "../markdown";
import { EntryView } from "./Entry";
import { announcements, dialog, notice, online, profile, room, roomId, sidebarOpen } from "../store";
import { Icon, IconButton } from "./ui";

export function Conversation(): JSX.Element {
  const title = room.value?.name ?? (roomId.value ? "Chatroom" : "New chatroom");
  useEffect(() => {
    document.title = roomId.value ? `${title} · Chat with Gemini` : "Chat with Gemini";
  }, [title]);
  const isNew = state.value === "none" && entries.value.length === 0;
  return (
    <main class="conversation" inert={sidebarOpen.value}>
      <header class="bar">
        <IconButton
          class="narrow-only"
          icon="menu"
          label="Show the list of chatrooms"
          aria-expanded={sidebarOpen.value}
          aria-controls="chatrooms"
          onClick={() => (sidebarOpen.value = true)}
        />
        <h1>{title}</h1>
        {room.value ? (
          <IconButton
            icon="edit"
            label="Name, instructions, delete"
            onClick={() => room.value && (dialog.value = { name: "room", room: room.value })}
          />
        ) : (
          <IconButton
            icon="edit"
            label="New chatroom with a name and instructions"
            onClick={() => (dialog.value = { name: "new-chatroom" })}
          />
        )}
      </header>
      <Notices />
      {state.value === "loading" ? (
        <Loading />
      ) : state.value === "failed" ? (
        <div class="empty-state">
          <p>{trouble.value}</p>
          <button type="button" class="secondary" onClick={() => void refresh()}>
            Try again
          </button>
        </div>
      ) : isNew ? (
        <Welcome />
      ) : (
        <Messages key={roomId.value ?? "new"} />
      )}
      <Composer />
      <div class="unseen" role="log" aria-live="polite" aria-label="Announcements">
        {announcements.value.map(({ key, text }) => (
          <p key={key}>{text}</p>
        ))}
      </div>
    </main>
  );
}

function Notices(): JSX.Element {
  const shown = notice.value;
  return (
    <div class="notices" role="status">
      {!online.value && <p class="notice busy">You are offline. The page continues when the connection is back.</p>}
      {shown && (
        <div class={`notice ${shown.kind}`}>
          {shown.kind === "busy" && <span class="spinner small" />}
          <p>{shown.text}</p>
          <IconButton icon="close" label="Dismiss" onClick={() => (notice.value = null)} />
        </div>
      )}
    </div>
  );
}

function Loading(): JSX.Element {
  return (
    <div class="scroll" aria-busy="true">
      <div class="column">
        <p class="unseen" role="status">
          Loading the messages
        </p>
        <div class="bone short" />
        <div class="bone" />
        <div class="bone" />
        <div class="bone half" />
      </div>
    </div>
  );
}

const IDEAS = [
  "Explain how tides work, in a few sentences",
  "Plan a weekend in Jaipur for two",
  "Write a Python function that finds prime numbers",
];

function Welcome(): JSX.Element {
  const first = profile.value?.name.trim().split(/\s+/)[0] ?? "";
  return (
    <div class="empty-state">
      <span class="mark large">
        <Icon name="spark" />
      </span>
      <h2>{first ? `Hello, ${first}` : "Hello"}</h2>
      <p>Ask a question, or start with one of these.</p>
      <ul class="ideas">
        {IDEAS.map((idea) => (
          <li key={idea}>
            <button type="button" class="idea" onClick={() => dispatchEvent(new CustomEvent("suggest", { detail: idea }))}>
              {idea}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Messages(): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const following = useRef<Following | null>(null);
  const [isAway, setAway] = useState(false);
  const list = entries.value;
  const last = list.at(-1);
  const first = list[0]?.key;
  const known = useRef({ first, height: 0, count: 0 });

  useLayoutEffect(() => {
    const box = scroller.current;
    const content = box?.firstElementChild;
    if (!box || !content) return undefined;
    following.current = new Following(box, setAway);
    const detach = following.current.attach(content);
    const observer = new ResizeObserver(() => (known.current.height = box.scrollHeight));
    observer.observe(content);
    return () => {
      detach();
      observer.disconnect();
    };
  }, []);

  // Older messages are inserted above; the visible part keeps its place.
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const before = known.current;
    if (before.count === 0) following.current?.toEnd();
    else if (before.first !== first && list.length > before.count) box.scrollTop += box.scrollHeight - before.height;
    known.current = { first, height: box.scrollHeight, count: list.length };
  }, [list]);

  // A person who asks for a reply wants to see it, wherever they were reading.
  useLayoutEffect(() => following.current?.toEnd(), [asked.value]);

  return (
    <div class="scroll-frame">
      <div
        ref={scroller}
        class="scroll"
        role="region"
        aria-label="Messages"
        tabIndex={0}
        onScroll={() => {
          if (scroller.current && scroller.current.scrollTop < 200 && older.value) void loadOlder();
        }}
        onClick={(event) => {
          // Opening a section of a finished reply must not scroll to the end.
          if (event.target instanceof Element && event.target.closest("summary") && !current.value) following.current?.leave();
          void copyCode(event.target);
        }}
      >
        <div class="column">
          {older.value && (
            <button type="button" class="link older" aria-busy={isLoadingOlder.value} onClick={() => void loadOlder()}>
              {isLoadingOlder.value ? "Loading earlier messages …" : "Show earlier messages"}
            </button>
          )}
          {list.length === 0 && <p class="hint center">No messages yet. Write the first one below.</p>}
          <ol class="messages">
            {list.map((entry) => (
              <EntryView key={entry.key} entry={entry} isLast={entry === last} />
            ))}
          </ol>
        </div>
      </div>
      {isAway && (
        <button type="button" class="to-end" aria-label="To the newest message" title="To the newest message" onClick={() => following.current?.toEnd()}>
          <Icon name="down" />
        </button>
      )}
    </div>
  );
}

async function copyCode(target: EventTarget | null): Promise<void> {
  const button = target instanceof Element ? target.closest<HTMLButtonElement>("button.copy-code") : null;
  if (!button) return;
  const code = button.closest(".code")?.querySelector("pre")?.textContent ?? "";
  button.textContent = (await copy(code)) ? "Copied" : "Not possible";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

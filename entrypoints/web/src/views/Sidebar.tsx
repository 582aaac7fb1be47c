import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import {
  dialog,
  isUsedUp,
  loadMoreRooms,
  moreRooms,
  navigate,
  notifyOnError,
  profile,
  roomId,
  rooms,
  sidebarOpen,
  usage,
} from "../store";
import { Icon, IconButton } from "./ui";

export function Sidebar(): JSX.Element {
  const element = useRef<HTMLElement>(null);
  const isOpen = sidebarOpen.value;
  useEffect(() => {
    if (!isOpen) return undefined;
    element.current?.querySelector<HTMLElement>("button, a")?.focus();
    const close = (event: KeyboardEvent): void => {
      if (event.key === "Escape" && dialog.value === null) sidebarOpen.value = false;
    };
    addEventListener("keydown", close);
    return () => {
      removeEventListener("keydown", close);
      if (dialog.value === null) document.querySelector<HTMLElement>("[aria-controls=chatrooms]")?.focus();
    };
  }, [isOpen]);

  return (
    <nav
      ref={element}
      id="chatrooms"
      class={`sidebar ${isOpen ? "open" : ""}`}
      aria-label="Chatrooms"
    >
      <div class="sidebar-head">
        <span class="brand">
          <span class="mark">
            <Icon name="chat" />
          </span>
          <span>Chat</span>
        </span>
        <IconButton class="narrow-only" icon="close" label="Close the list of chatrooms" onClick={() => (sidebarOpen.value = false)} />
      </div>
      <button type="button" class="new-chatroom" onClick={() => navigate(null)}>
        <Icon name="plus" /> New chatroom
      </button>
      <Rooms />
      <Standing />
      <button type="button" class="account" onClick={() => (dialog.value = { name: "account" })}>
        <Icon name="user" />
        <span class="who">
          <span class="unseen">Account of </span>
          <span class="name">{profile.value?.name}</span>
          <span class="detail">{profile.value?.mobile}</span>
        </span>
      </button>
    </nav>
  );
}

function Rooms(): JSX.Element {
  const list = rooms.value;
  if (list === null) return <div class="rooms" aria-busy="true" />;
  if (list.length === 0) return <p class="rooms empty">Your chatrooms appear here.</p>;
  return (
    <div class="rooms">
      <ul>
        {list.map((room) => (
          <li key={room.id} class={room.id === roomId.value ? "current" : ""}>
            <a
              href={`#/chatroom/${room.id}`}
              aria-current={room.id === roomId.value ? "page" : undefined}
              onClick={(event) => {
                if (event.metaKey || event.ctrlKey || event.shiftKey) return;
                event.preventDefault();
                navigate(room.id);
              }}
            >
              {room.name}
            </a>
            <IconButton
              icon="more"
              label={`Change or delete “${room.name}”`}
              onClick={() => (dialog.value = { name: "room", room })}
            />
          </li>
        ))}
      </ul>
      {moreRooms.value && (
        <button type="button" class="link" onClick={() => void notifyOnError(loadMoreRooms())}>
          Show more chatrooms
        </button>
      )}
    </div>
  );
}

function Standing(): JSX.Element | null {
  const found = usage.value;
  if (found === null || profile.value === null) return null;
  const isPro = profile.value.subscriptionTier === "Pro";
  const total = found.total === "unlimited" ? 0 : found.total;
  return (
    <div class="standing">
      <p class="standing-line">
        <span class={`tier ${isPro ? "pro" : ""}`}>{profile.value.subscriptionTier}</span>
        <span class="detail">{isPro ? "Unlimited messages" : `${found.used} of ${total} messages today`}</span>
      </p>
      {!isPro && (
        <div
          class={`meter ${isUsedUp.value ? "full" : ""}`}
          role="meter"
          aria-label="Messages used today"
          aria-valuemin={0}
          aria-valuemax={total}
          aria-valuenow={found.used}
        >
          <div style={{ width: `${(100 * found.used) / Math.max(total, 1)}%` }} />
        </div>
      )}
      <button type="button" class={isPro ? "quiet" : "secondary"} onClick={() => (dialog.value = { name: "subscription" })}>
        {isPro ? "Manage subscription" : "Upgrade to Pro"}
      </button>
    </div>
  );
}

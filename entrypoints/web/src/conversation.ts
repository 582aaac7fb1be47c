// The open conversation: its messages, those being sent, and the replies being streamed.

import { batch, computed, effect, signal, type Signal } from "@preact/signals";
import { call, newKey, Refused, Unreachable } from "./api";
import { plain } from "./markdown";
import {
  announce,
  createRoom,
  forgetRoom,
  keepRoom,
  loadProfile,
  loadRooms,
  navigate,
  notice,
  phase,
  problemText,
  roomId,
  rooms,
  setUsage,
  notifyTabs,
  whenRoomChanges,
} from "./store";
import { follow, reconnectAfter } from "./stream";
import type { AcceptedReply, MessageReply, OpenChatroomReply } from "./api-types";
import type { Message, Status } from "./types";

const PAGE = 30;
const FINAL: Status[] = ["completed", "failed", "cancelled", "blocked"];

/** One input and its reply. */
export interface Entry {
  /** Unique on this page; a message that is being sent has no id yet. */
  key: string;
  input: string;
  message: Signal<Message | null>;
  /** The reply so far. */
  text: Signal<string>;
  /** The stream position at the end of `text`; "" if unknown. */
  position: string;
  /** The thoughts so far, as streamed to this page. */
  thoughts: Signal<string>;
  /** When the current phase of thinking began. */
  thinkingSince: Signal<number | null>;
  /** Duration of the earlier phases. */
  thinkingMs: Signal<number>;
  sending: Signal<"sending" | "waiting" | "unsent" | null>;
  /** Why sending failed. */
  why: Signal<string>;
  isStopping: Signal<boolean>;
  isConnected: Signal<boolean>;
  idempotencyKey: string;
  unsubscribe: (() => void) | null;
}

export type State = "none" | "loading" | "ready" | "failed";

export const state = signal<State>("none");
export const trouble = signal("");
export const entries = signal<Entry[]>([]);
export const older = signal<string | null>(null);
export const isLoadingOlder = signal(false);

export const isFinal = (message: Message | null): boolean => message !== null && FINAL.includes(message.status);
export const isOpen = (entry: Entry): boolean =>
  entry.sending.value === "sending" || entry.sending.value === "waiting" || (entry.message.value !== null && !isFinal(entry.message.value));
/** The newest entry that is being sent or answered. */
export const current = computed(() => entries.value.findLast(isOpen) ?? null);

// --- opening

/** Rooms just created here, which are empty. */
const fresh = new Set<string>();
let opened: string | null = null;

effect(() => {
  const wanted = phase.value === "in" ? roomId.value : null;
  if (wanted !== opened) void open(wanted);
});

async function open(id: string | null): Promise<void> {
  opened = id;
  const isFresh = id !== null && fresh.delete(id);
  batch(() => {
    if (!isFresh) {
      for (const entry of entries.peek()) entry.unsubscribe?.();
      entries.value = [];
    }
    older.value = null;
    trouble.value = "";
    state.value = id === null ? "none" : isFresh ? "ready" : "loading";
  });
  if (id !== null && !isFresh) await refresh(id);
}

/** Incremented by anything that makes a pending reply stale. */
let generation = 0;

/** Loads the open room's latest messages, including those sent by other tabs and devices. */
export async function refresh(id = opened): Promise<void> {
  if (id === null) return;
  const mine = ++generation;
  try {
    const reply = await page(id);
    if (id !== opened || mine !== generation) return;
    keepRoom(reply.data);
    batch(() => {
      if (state.value !== "ready") older.value = reply.nextCursor;
      merge(reply.data.messages);
      state.value = "ready";
    });
  } catch (error) {
    if (id !== opened || mine !== generation) return;
    if (error instanceof Refused && error.problem.status === 404) {
      forgetRoom(id);
      notice.value = { text: "This chatroom does not exist any more.", kind: "bad" };
    } else if (state.peek() !== "ready") {
      trouble.value = problemText(error);
      state.value = "failed";
    }
  }
}

export async function loadOlder(): Promise<void> {
  const id = opened;
  const before = older.peek();
  if (id === null || before === null || isLoadingOlder.peek()) return;
  isLoadingOlder.value = true;
  try {
    const reply = await page(id, before);
    if (id !== opened) return;
    batch(() => {
      entries.value = [...reply.data.messages.map(entryOf), ...entries.peek()];
      older.value = reply.nextCursor;
    });
  } catch (error) {
    notice.value = { text: problemText(error), kind: "bad" };
  } finally {
    isLoadingOlder.value = false;
  }
}

const page = (id: string, before?: string): Promise<OpenChatroomReply> =>
  call<OpenChatroomReply>("GET", `/chatroom/${id}?limit=${PAGE}${before ? `&before=${before}` : ""}`);

function merge(messages: Message[]): void {
  const known = new Map(entries.peek().flatMap((entry) => (entry.message.peek() ? [[entry.message.peek()?.id, entry]] : [])));
  const keys = new Map(entries.peek().map((entry) => [entry.idempotencyKey, entry]));
  const found: Entry[] = [];
  for (const message of messages) {
    const entry = known.get(message.id) as Entry | undefined;
    if (entry === undefined) found.push(entryOf(message));
    else reconcile(entry, message);
  }
  if (found.length === 0) return;
  const sent = [...keys.values()].filter((entry) => entry.message.peek() !== null);
  const unsent = entries.peek().filter((entry) => entry.message.peek() === null);
  const all = [...sent, ...found];
  const at = (entry: Entry): number => Date.parse(entry.message.peek()?.createdAt ?? "");
  entries.value = [...all.sort((one, other) => at(one) - at(other)), ...unsent];
}

function newEntry(input: string, message: Message | null): Entry {
  return {
    key: message?.id ?? newKey(),
    input,
    message: signal(message),
    text: signal(message?.response ?? ""),
    position: "",
    thoughts: signal(""),
    thinkingSince: signal(null),
    thinkingMs: signal(0),
    sending: signal(null),
    why: signal(""),
    isStopping: signal(false),
    isConnected: signal(true),
    idempotencyKey: newKey(),
    unsubscribe: null,
  };
}

function entryOf(message: Message): Entry {
  const entry = newEntry(message.input, message);
  if (!isFinal(message)) watch(entry);
  return entry;
}

/** Updates an entry with the server's state of its message. */
function reconcile(entry: Entry, message: Message): void {
  if (isFinal(message)) {
    entry.unsubscribe?.();
    entry.unsubscribe = null;
    end(entry, message);
  } else if (entry.unsubscribe === null) {
    batch(() => {
      entry.message.value = message;
      if (message.response === null) startOver(entry); // a continued reply keeps its text
    });
    watch(entry);
  }
}

// --- streaming

function watch(entry: Entry): void {
  const message = entry.message.peek();
  if (message === null || entry.unsubscribe !== null) return;
  const path = `/chatroom/${message.chatroomId}/message/${message.id}`;
  const begun = Date.now();
  let isKnown = entry.position !== ""; // otherwise the stream starts at the beginning
  let isFirstThought = true;
  let announcedTo = entry.text.peek().length; // characters announced to screen readers
  let announcedAt = Date.now();

  const ask = async (): Promise<void> => {
    try {
      reconcile(entry, (await call<MessageReply>("GET", path)).data);
    } catch {
      // the next refresh will
    }
  };
  const begins = (): void => {
    const known = entry.message.peek();
    if (known && known.status === "queued") entry.message.value = { ...known, status: "generating" };
  };
  entry.unsubscribe = follow(`${path}/stream`, entry.position, {
    delta(text, position) {
      batch(() => {
        begins();
        pauseThinking(entry);
        entry.text.value = isKnown ? entry.text.peek() + text : text;
      });
      isKnown = true;
      entry.position = position;
      const whole = entry.text.peek();
      const stop = Math.max(whole.lastIndexOf("\n\n"), whole.lastIndexOf(". "));
      if (stop > announcedTo && Date.now() - announcedAt > 2500) {
        announce(plain(whole.slice(announcedTo, stop + 1)));
        announcedTo = stop + 1;
        announcedAt = Date.now();
      }
    },
    thought(text) {
      if (entry.thoughts.peek() === "") announce("Thinking.");
      batch(() => {
        begins();
        // The model has been thinking for a while when its first thought arrives.
        entry.thinkingSince.value ??= entry.thoughts.peek() === "" && entry.text.peek() === "" ? begun : Date.now();
        const isLater = isFirstThought && entry.thoughts.peek() !== "";
        entry.thoughts.value += isLater ? `\n\n${text}` : text;
      });
      isFirstThought = false;
    },
    reset(position) {
      startOver(entry);
      isKnown = true;
      entry.position = position;
      announcedTo = 0;
    },
    done(ended) {
      announce(plain((ended.response ?? "").slice(announcedTo)) || "The reply has ended.");
      entry.unsubscribe = null;
      end(entry, ended);
      afterwards(entry, ended);
    },
    failed() {
      entry.unsubscribe = null;
      void ask().then(() => {
        announce("There is no reply.");
        void loadProfile().catch(() => undefined); // a failed message is refunded
      });
    },
    complete() {
      entry.unsubscribe = null;
      void ask();
    },
    gone(problem) {
      entry.unsubscribe = null;
      if (problem.status === 404) entries.value = entries.peek().filter((one) => one !== entry);
    },
    connected(is) {
      entry.isConnected.value = is;
    },
  });
}

function pauseThinking(entry: Entry): void {
  const since = entry.thinkingSince.peek();
  if (since === null) return;
  entry.thinkingMs.value += Date.now() - since;
  entry.thinkingSince.value = null;
}

function startOver(entry: Entry): void {
  batch(() => {
    entry.text.value = "";
    entry.position = "";
    entry.thoughts.value = "";
    entry.thinkingSince.value = null;
    entry.thinkingMs.value = 0;
  });
}

function end(entry: Entry, message: Message): void {
  batch(() => {
    pauseThinking(entry);
    if (message.thoughts !== null) entry.thoughts.value = message.thoughts;
    entry.message.value = message;
    entry.text.value = message.response ?? "";
    entry.isStopping.value = false;
    entry.isConnected.value = true;
  });
}

/** A room without a title is named shortly after its first reply. */
function afterwards(entry: Entry, message: Message): void {
  if (!rooms.peek()?.find((one) => one.id === message.chatroomId)?.autoTitle) return;
  for (const wait of [600, 2000, 6000]) {
    setTimeout(() => {
      const room = rooms.peek()?.find((one) => one.id === message.chatroomId);
      if (room?.autoTitle && phase.peek() === "in" && !isOpen(entry)) void loadRooms().catch(() => undefined);
    }, wait);
  }
}

// --- sending

/** Incremented when this page asks for a reply at the end of the conversation. */
export const asked = signal(0);

export async function sendMessage(input: string): Promise<void> {
  const entry = newEntry(input, null);
  entry.sending.value = "sending";
  batch(() => {
    entries.value = [...entries.peek(), entry];
    asked.value += 1;
  });
  await deliver(entry);
}

export async function sendAgain(entry: Entry): Promise<void> {
  entry.sending.value = "sending";
  entry.why.value = "";
  await deliver(entry);
}

export function discard(entry: Entry): void {
  entry.unsubscribe?.();
  entries.value = entries.peek().filter((one) => one !== entry);
}

async function deliver(entry: Entry): Promise<void> {
  try {
    const room = opened ?? (await roomFor(entry));
    const accepted = await withRetry(entry, () =>
      call<AcceptedReply>("POST", `/chatroom/${room}/message`, { body: { input: entry.input }, key: entry.idempotencyKey }),
    );
    batch(() => {
      entry.sending.value = null;
      entry.message.value = accepted.data;
      // A refresh may have delivered the message before this reply.
      for (const one of entries.peek()) {
        if (one !== entry && one.message.peek()?.id === accepted.data.id) discard(one);
      }
    });
    accept(accepted);
    if (!isFinal(accepted.data)) watch(entry);
    else end(entry, accepted.data);
    notifyTabs({ about: "room", id: room });
  } catch (error) {
    entry.sending.value = "unsent";
    entry.why.value = problemText(error);
    if (error instanceof Refused) {
      // The next try needs a new key.
      if (error.problem.status < 500 && error.problem.status !== 429) entry.idempotencyKey = newKey();
      if (error.problem.code === "quota_exceeded") {
        entry.why.value = "It was not sent: today's messages are used up.";
        await loadProfile().catch(() => undefined);
      }
    }
    announce(`Not sent. ${entry.why.peek()}`);
  }
}

/** Repeats the call until the outcome is certain. The idempotency key makes that safe. */
async function withRetry<T>(entry: Entry, ask: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      const again =
        error instanceof Unreachable ||
        (error instanceof Refused && (error.problem.status >= 502 || error.problem.code === "idempotency_key_in_use"));
      if (!again || tries >= 8) throw error;
      entry.sending.value = "waiting";
      const asked = error instanceof Refused ? (error.problem.retryAfter ?? 0) * 1000 : 0;
      await reconnectAfter(Math.max(asked, Math.min(500 * 2 ** tries, 10_000)));
    }
  }
}

/** The room to send to. A new chatroom is created with its first message, and the model names it. */
async function roomFor(entry: Entry): Promise<string> {
  const line = plain(entry.input.trim().split("\n")[0] ?? "") || "New chatroom";
  const name = line.length > 48 ? `${line.slice(0, 48).trimEnd()}…` : line;
  const key = newKey();
  const room = await withRetry(entry, () => createRoom({ name, autoTitle: true }, key));
  if (opened === null) {
    fresh.add(room.id);
    navigate(room.id);
  }
  return room.id;
}

function accept(accepted: AcceptedReply): void {
  setUsage({ ...accepted.dailyLimitInfo, remaining: accepted.remainingMessages });
  notifyTabs({ about: "profile" });
}

// --- stopping, regenerating, continuing

export async function stop(entry: Entry): Promise<void> {
  const message = entry.message.peek();
  if (message === null || isFinal(message)) return;
  entry.isStopping.value = true;
  try {
    const path = `/chatroom/${message.chatroomId}/message/${message.id}/cancel`;
    const { data } = await call<MessageReply>("POST", path);
    if (isFinal(data)) {
      reconcile(entry, data);
      announce("Stopped.");
    }
  } catch (error) {
    entry.isStopping.value = false;
    if (!(error instanceof Refused && error.problem.code === "message_ended")) {
      notice.value = { text: problemText(error), kind: "bad" };
    }
  }
}

export function regenerate(entry: Entry): Promise<void> {
  return askAgain(entry, "regenerate");
}

/** Continues a reply that reached its length limit. */
export function continueReply(entry: Entry): Promise<void> {
  return askAgain(entry, "continue");
}

async function askAgain(entry: Entry, verb: "regenerate" | "continue"): Promise<void> {
  const message = entry.message.peek();
  if (message === null) return;
  try {
    const path = `/chatroom/${message.chatroomId}/message/${message.id}/${verb}`;
    const accepted = await call<AcceptedReply>("POST", path, { ...(verb === "continue" ? { body: {} } : {}), key: newKey() });
    generation += 1;
    batch(() => {
      entry.message.value = accepted.data;
      if (verb === "regenerate") startOver(entry);
      if (entry === entries.peek().at(-1)) asked.value += 1;
    });
    accept(accepted);
    watch(entry);
    notifyTabs({ about: "room", id: message.chatroomId });
  } catch (error) {
    notice.value = { text: problemText(error), kind: "bad" };
    if (error instanceof Refused && error.problem.code === "quota_exceeded") await loadProfile().catch(() => undefined);
    else if (error instanceof Unreachable) void refresh();
  }
}

whenRoomChanges((id) => {
  if (id === opened) void refresh(id);
});

// The open conversation: its messages, what is being sent, and the replies that are being followed.

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
  tellTabs,
  whenRoomChanges,
} from "./store";
import { follow, reconnectAfter } from "./stream";
import type { Accepted, Message, Room, Status } from "./types";

const PAGE = 30;
const FINAL: Status[] = ["completed", "failed", "cancelled", "blocked"];

/** One input and its reply. */
export interface Entry {
  /** Its own on this page; a message that is on its way has no id yet. */
  key: string;
  input: string;
  message: Signal<Message | null>;
  /** The reply, as far as it has come. */
  text: Signal<string>;
  /** Where in its stream the text ends; "" if that is not known. */
  position: string;
  /** What the model thinks, as far as it has come while this page was there. */
  thoughts: Signal<string>;
  /** When it began to, while it does. */
  thinkingSince: Signal<number | null>;
  /** How long it did before. */
  thinkingMs: Signal<number>;
  sending: Signal<"sending" | "waiting" | "unsent" | null>;
  /** Why it was not sent. */
  why: Signal<string>;
  isStopping: Signal<boolean>;
  isConnected: Signal<boolean>;
  idempotencyKey: string;
  letGo: (() => void) | null;
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

/** Rooms that were made here a moment ago, and are therefore empty. */
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
      for (const entry of entries.peek()) entry.letGo?.();
      entries.value = [];
    }
    older.value = null;
    trouble.value = "";
    state.value = id === null ? "none" : isFresh ? "ready" : "loading";
  });
  if (id !== null && !isFresh) await refresh(id);
}

/** Counts what makes an answer that is still on its way an old one. */
let news = 0;

/** Brings the open room up to date: what another tab or device has sent is shown and followed, too. */
export async function refresh(id = opened): Promise<void> {
  if (id === null) return;
  const mine = ++news;
  try {
    const reply = await page(id);
    if (id !== opened || mine !== news) return;
    keepRoom(reply.data);
    batch(() => {
      if (state.value !== "ready") older.value = reply.nextCursor;
      merge(reply.data.messages);
      state.value = "ready";
    });
  } catch (error) {
    if (id !== opened || mine !== news) return;
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

interface Page {
  data: Room & { messages: Message[] };
  nextCursor: string | null;
}

const page = (id: string, before?: string): Promise<Page> =>
  call<Page>("GET", `/chatroom/${id}?limit=${PAGE}${before ? `&before=${before}` : ""}`);

function merge(messages: Message[]): void {
  const known = new Map(entries.peek().flatMap((entry) => (entry.message.peek() ? [[entry.message.peek()?.id, entry]] : [])));
  const keys = new Map(entries.peek().map((entry) => [entry.idempotencyKey, entry]));
  const found: Entry[] = [];
  for (const message of messages) {
    const entry = known.get(message.id) as Entry | undefined;
    if (entry === undefined) found.push(entryOf(message));
    else take(entry, message);
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
    letGo: null,
  };
}

function entryOf(message: Message): Entry {
  const entry = newEntry(message.input, message);
  if (!isFinal(message)) watch(entry);
  return entry;
}

/** What the server says about a message that is shown already. */
function take(entry: Entry, message: Message): void {
  if (isFinal(message)) {
    entry.letGo?.();
    entry.letGo = null;
    end(entry, message);
  } else if (entry.letGo === null) {
    batch(() => {
      entry.message.value = message;
      if (message.response === null) startOver(entry); // or else it is continued
    });
    watch(entry);
  }
}

// --- following

function watch(entry: Entry): void {
  const message = entry.message.peek();
  if (message === null || entry.letGo !== null) return;
  const path = `/chatroom/${message.chatroomId}/message/${message.id}`;
  const begun = Date.now();
  let isKnown = entry.position !== ""; // or else the text comes anew, from its beginning
  let isFirstThought = true;
  let said = entry.text.peek().length; // characters that were announced
  let saidAt = Date.now();

  const ask = async (): Promise<void> => {
    try {
      take(entry, (await call<{ data: Message }>("GET", path)).data);
    } catch {
      // the next refresh tells
    }
  };
  const begins = (): void => {
    const known = entry.message.peek();
    if (known && known.status === "queued") entry.message.value = { ...known, status: "generating" };
  };
  entry.letGo = follow(`${path}/stream`, entry.position, {
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
      if (stop > said && Date.now() - saidAt > 2500) {
        announce(plain(whole.slice(said, stop + 1)));
        said = stop + 1;
        saidAt = Date.now();
      }
    },
    thought(text) {
      if (entry.thoughts.peek() === "") announce("Thinking.");
      batch(() => {
        begins();
        // The first one comes when the model has been thinking for a while.
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
      said = 0;
    },
    done(ended) {
      announce(plain((ended.response ?? "").slice(said)) || "The reply has ended.");
      entry.letGo = null;
      end(entry, ended);
      afterwards(entry, ended);
    },
    failed() {
      entry.letGo = null;
      void ask().then(() => {
        announce("There is no reply.");
        void loadProfile().catch(() => undefined); // a failed message gives its allowance back
      });
    },
    complete() {
      entry.letGo = null;
      void ask();
    },
    gone(problem) {
      entry.letGo = null;
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

/** A room that waits for a name gets it a moment after its first reply. */
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

/** Counts what was asked for here, at the end of the conversation. */
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
  entry.letGo?.();
  entries.value = entries.peek().filter((one) => one !== entry);
}

async function deliver(entry: Entry): Promise<void> {
  try {
    const room = opened ?? (await madeFor(entry));
    const accepted = await insistently(entry, () =>
      call<Accepted>("POST", `/chatroom/${room}/message`, { body: { input: entry.input }, key: entry.idempotencyKey }),
    );
    batch(() => {
      entry.sending.value = null;
      entry.message.value = accepted.data;
      // A look at the room may have brought it before this answer did.
      for (const one of entries.peek()) {
        if (one !== entry && one.message.peek()?.id === accepted.data.id) discard(one);
      }
    });
    accept(accepted);
    if (!isFinal(accepted.data)) watch(entry);
    else end(entry, accepted.data);
    tellTabs({ about: "room", id: room });
  } catch (error) {
    entry.sending.value = "unsent";
    entry.why.value = problemText(error);
    if (error instanceof Refused) {
      // That answer is kept for the key: asking again needs another.
      if (error.problem.status < 500 && error.problem.status !== 429) entry.idempotencyKey = newKey();
      if (error.problem.code === "quota_exceeded") {
        entry.why.value = "It was not sent: today's messages are used up.";
        await loadProfile().catch(() => undefined);
      }
    }
    announce(`Not sent. ${entry.why.peek()}`);
  }
}

/** Until the server has answered for certain. The key makes the repetition safe. */
async function insistently<T>(entry: Entry, ask: () => Promise<T>): Promise<T> {
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

/** The room of a new chatroom is made with its first message, and named after it by the model. */
async function madeFor(entry: Entry): Promise<string> {
  const line = plain(entry.input.trim().split("\n")[0] ?? "") || "New chatroom";
  const name = line.length > 48 ? `${line.slice(0, 48).trimEnd()}…` : line;
  const key = newKey();
  const room = await insistently(entry, () => createRoom({ name, autoTitle: true }, key));
  if (opened === null) {
    fresh.add(room.id);
    navigate(room.id);
  }
  return room.id;
}

function accept(accepted: Accepted): void {
  setUsage({ ...accepted.dailyLimitInfo, remaining: accepted.remainingMessages });
  tellTabs({ about: "profile" });
}

// --- stopping, asking again

export async function stop(entry: Entry): Promise<void> {
  const message = entry.message.peek();
  if (message === null || isFinal(message)) return;
  entry.isStopping.value = true;
  try {
    const path = `/chatroom/${message.chatroomId}/message/${message.id}/cancel`;
    const { data } = await call<{ data: Message }>("POST", path);
    if (isFinal(data)) {
      take(entry, data);
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

/** A reply that was cut at its greatest length goes on where it ends. */
export function continueReply(entry: Entry): Promise<void> {
  return askAgain(entry, "continue");
}

async function askAgain(entry: Entry, verb: "regenerate" | "continue"): Promise<void> {
  const message = entry.message.peek();
  if (message === null) return;
  try {
    const path = `/chatroom/${message.chatroomId}/message/${message.id}/${verb}`;
    const accepted = await call<Accepted>("POST", path, { ...(verb === "continue" ? { body: {} } : {}), key: newKey() });
    news += 1;
    batch(() => {
      entry.message.value = accepted.data;
      if (verb === "regenerate") startOver(entry);
      if (entry === entries.peek().at(-1)) asked.value += 1;
    });
    accept(accepted);
    watch(entry);
    tellTabs({ about: "room", id: message.chatroomId });
  } catch (error) {
    notice.value = { text: problemText(error), kind: "bad" };
    if (error instanceof Refused && error.problem.code === "quota_exceeded") await loadProfile().catch(() => undefined);
    else if (error instanceof Unreachable) void refresh();
  }
}

whenRoomChanges((id) => {
  if (id === opened) void refresh(id);
});

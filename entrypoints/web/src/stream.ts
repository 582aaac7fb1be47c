// Streams a reply while it is written, and reconnects after any interruption.

import { Refused, send } from "./api";
import type { Message, Problem } from "./types";

export interface Follower {
  /** `position` is the end of `text`; a later stream can resume there. */
  delta(text: string, position: string): void;
  /** The next chunk of the thoughts' summary. */
  thought(text: string): void;
  /** A new attempt: the text so far is void. */
  reset(position: string): void;
  done(message: Message): void;
  failed(problem: Problem): void;
  /** The reply has ended and had arrived completely. */
  complete(): void;
  /** The message or the session no longer exists. */
  gone(problem: Problem): void;
  connected(is: boolean): void;
}

const SILENCE_MS = 45_000; // the server sends at least a comment every 15 s
const MAX_BACK_OFF_MS = 20_000;

/** Streams from `position` ("": the beginning) until the reply ends. Returns a function that unsubscribes; the model keeps writing. */
export function follow(path: string, position: string, follower: Follower): () => void {
  const leaving = new AbortController();
  void run(path, position, follower, leaving.signal);
  return () => leaving.abort();
}

async function run(path: string, position: string, follower: Follower, leaving: AbortSignal): Promise<void> {
  let pause = 1000;
  let failures = 0;

  while (!leaving.aborted) {
    const attempt = new AbortController();
    const hangUp = (): void => attempt.abort();
    leaving.addEventListener("abort", hangUp);
    addEventListener("offline", hangUp);
    let silence = setTimeout(hangUp, SILENCE_MS);
    let wait: number | null = null;
    let isEnded = false;
    try {
      const headers = { Accept: "text/event-stream", ...(position ? { "Last-Event-ID": position } : {}) };
      const response = await send("GET", path, {}, { headers, signal: attempt.signal });
      if (response.status === 204) {
        follower.complete();
        return;
      }
      follower.connected(true);
      for await (const event of events(response)) {
        clearTimeout(silence);
        silence = setTimeout(hangUp, SILENCE_MS);
        if (event.retry !== null) pause = event.retry;
        if (event.id) position = event.id;
        if (event.name !== "") failures = 0;
        isEnded ||= handle(event, follower);
      }
      if (isEnded) return;
    } catch (error) {
      if (error instanceof Refused) {
        if (error.problem.status < 500 && error.problem.status !== 429) {
          follower.gone(error.problem);
          return;
        }
        wait = (error.problem.retryAfter ?? 1) * 1000;
      }
    } finally {
      clearTimeout(silence);
      leaving.removeEventListener("abort", hangUp);
      removeEventListener("offline", hangUp);
      if (!isEnded) attempt.abort();
    }
    if (isEnded || leaving.aborted) return;
    if (failures > 0 || !navigator.onLine) follower.connected(false);
    // Half of it is random, so that many clients do not reconnect at once.
    const backOff = Math.min(pause * 2 ** Math.min(failures, 6), MAX_BACK_OFF_MS) * (0.5 + Math.random() / 2);
    await reconnectAfter(Math.max(wait ?? 0, failures === 0 ? 50 : backOff), leaving);
    failures += 1;
  }
}

/** Waits, but not beyond the return of the connection; without a connection, only for that. */
export async function reconnectAfter(milliseconds: number, leaving?: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = navigator.onLine ? setTimeout(end, milliseconds) : undefined;
    function end(): void {
      clearTimeout(timer);
      removeEventListener("online", end);
      leaving?.removeEventListener("abort", end);
      resolve();
    }
    addEventListener("online", end);
    leaving?.addEventListener("abort", end);
  });
}

/** Returns whether this was the last event. */
function handle(event: ServerEvent, follower: Follower): boolean {
  switch (event.name) {
    case "delta":
      follower.delta((JSON.parse(event.data) as { text: string }).text, event.id);
      return false;
    case "thought":
      follower.thought((JSON.parse(event.data) as { text: string }).text);
      return false;
    case "reset":
      follower.reset(event.id);
      return false;
    case "done":
      follower.done(JSON.parse(event.data) as Message);
      return true;
    case "error":
      follower.failed(JSON.parse(event.data) as Problem);
      return true;
    default:
      return false;
  }
}

interface ServerEvent {
  name: string;
  data: string;
  id: string;
  retry: number | null;
}

async function* events(response: Response): AsyncGenerator<ServerEvent> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (!reader) return;
  let rest = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) yield parse(block);
  }
}

function parse(block: string): ServerEvent {
  const event: ServerEvent = { name: "", data: "", id: "", retry: null };
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event.name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") event.id = value;
    else if (field === "retry" && /^\d+$/.test(value)) event.retry = Number(value);
  }
  event.data = data.join("\n");
  return event;
}

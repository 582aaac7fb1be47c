// Calls of the API. The access token lives in this module's memory and nowhere else; the refresh token in an HttpOnly
// cookie that no script can read, ours included (see entrypoints/http/refresh_cookie.py).

import type { Problem, SignedIn } from "./types";

/** The server said no. */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.code);
  }
}

/** No answer at all: whether the call took effect is unknown. */
export class Unreachable extends Error {}

export interface Options {
  body?: unknown;
  /** Idempotency-Key: the call may be repeated with it and takes effect once. */
  key?: string;
  /** Of somebody who is not signed in yet. */
  anonymous?: boolean;
  /** Have the server put the refresh token into its cookie, or take it away. */
  cookie?: boolean;
}

const PATIENCE_MS = 20_000;
const FRESH = 0.9; // of its life; then a token is renewed before it ends
const SIGNED_IN = "signed-in"; // says only that it is worth asking for the cookie's session

let access: { token: string; until: number } | null = null;
let renewal: Promise<void> | null = null;
let onEnd: () => void = () => {};

/** `listener` is called when the session turns out to be over. */
export function whenSessionEnds(listener: () => void): void {
  onEnd = listener;
}

export function wasSignedIn(): boolean {
  try {
    return localStorage.getItem(SIGNED_IN) !== null;
  } catch {
    return true;
  }
}

export function keepSession(signedIn: SignedIn): void {
  access = { token: signedIn.token, until: Date.now() + signedIn.expiresIn * 1000 * FRESH };
  try {
    localStorage.setItem(SIGNED_IN, "1");
  } catch {
    // without storage, each visit asks
  }
}

export function dropSession(): void {
  access = null;
  try {
    localStorage.removeItem(SIGNED_IN);
  } catch {
    // nothing was kept
  }
}

/** Visible ASCII, 128 bits. crypto.randomUUID is missing on pages that came over plain HTTP. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, options);
  return (await bodyOf(response)) as T;
}

/** The answer as it is, if it is a good one; signed in, and once more if the access token has just ended. */
export async function send(
  method: string,
  path: string,
  options: Options = {},
  more: { headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Response> {
  for (let first = true; ; first = false) {
    const headers: Record<string, string> = { ...more.headers };
    if (!options.anonymous) headers["Authorization"] = `Bearer ${await token()}`;
    if (options.body !== undefined) headers["Content-Type"] = "application/json";
    if (options.key) headers["Idempotency-Key"] = options.key;
    if (options.cookie) headers["X-Refresh-Token"] = "cookie";
    const response = await ask(path, {
      method,
      headers,
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
      signal: more.signal ?? AbortSignal.timeout(PATIENCE_MS),
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (first && !options.anonymous && (problem.code === "token_expired" || problem.code === "token_invalid")) {
      access = null;
      continue;
    }
    throw new Refused(problem);
  }
}

/** A new access token by the cookie. Raises Refused if the session is over, Unreachable if nobody answers. */
export function renew(): Promise<void> {
  renewal ??= alone(async () => {
    try {
      const options = { anonymous: true, cookie: true };
      keepSession(await call<SignedIn>("POST", "/auth/refresh", options));
    } catch (error) {
      if (error instanceof Refused && error.problem.status === 401) {
        dropSession();
        onEnd();
      }
      throw error;
    }
  }).finally(() => {
    renewal = null;
  });
  return renewal;
}

async function token(): Promise<string> {
  if (access === null || access.until < Date.now()) await renew();
  if (access === null) throw new Unreachable();
  return access.token;
}

/** One tab at a time: a refresh token is good for one refresh, and all tabs share the cookie. */
async function alone(work: () => Promise<void>): Promise<void> {
  // Without locks (plain HTTP) the server's ten seconds of patience with the former token do.
  if (!navigator.locks) return work();
  await navigator.locks.request("refresh", work);
}

async function ask(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, { ...init, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Unreachable();
  }
}

async function bodyOf(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    throw new Unreachable();
  }
}

async function problemOf(response: Response): Promise<Problem> {
  const retryAfter = Number(response.headers.get("Retry-After"));
  const more = retryAfter > 0 ? { retryAfter } : {};
  try {
    const problem = (await response.json()) as Problem;
    if (typeof problem.code === "string") return { ...problem, status: response.status, ...more };
  } catch {
    // somebody between us and the server has answered
  }
  return { status: response.status, code: "unknown", detail: "", ...more };
}

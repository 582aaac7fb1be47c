// API calls. The access token is only in this module's memory; the refresh token is in an HttpOnly cookie, which no
// script can read (see entrypoints/http/steps/refresh_cookie.py).

import type { Problem, SignedIn } from "./types";

/** The server refused the call. */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.code);
  }
}

/** No reply: whether the call took effect is unknown. */
export class Unreachable extends Error {}

export interface Options {
  body?: unknown;
  /** Idempotency-Key: repeated with the same key, the call takes effect once. */
  key?: string;
  /** Sent without an access token. */
  anonymous?: boolean;
  /** Asks the server to set or clear the refresh token's cookie. */
  cookie?: boolean;
}

const TIMEOUT_MS = 20_000;
const FRESH = 0.9; // share of a token's life after which it is renewed
const SIGNED_IN = "signed-in"; // the cookie may hold a session

let access: { token: string; until: number } | null = null;
let renewal: Promise<void> | null = null;
let onEnd: () => void = () => {};

/** `listener` is called when the session has ended. */
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
    // without storage, each visit tries the cookie
  }
}

export function dropSession(): void {
  access = null;
  try {
    localStorage.removeItem(SIGNED_IN);
  } catch {
    // no storage
  }
}

/** 128 random bits. crypto.randomUUID does not exist on pages served over plain HTTP. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, options);
  return (await bodyOf(response)) as T;
}

/** The response of a successful call; retried once if the access token has just expired. Throws Refused or Unreachable. */
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
      signal: more.signal ?? AbortSignal.timeout(TIMEOUT_MS),
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

/** Gets a new access token with the cookie. Throws Refused if the session is over, Unreachable without a reply. */
export function renew(): Promise<void> {
  renewal ??= withRefreshLock(async () => {
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

/** One tab at a time: all tabs share the cookie, and a refresh token works once. */
async function withRefreshLock(work: () => Promise<void>): Promise<void> {
  // Without locks (plain HTTP), the server accepts the previous token until the new one is used.
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
    // a proxy has replied
  }
  return { status: response.status, code: "unknown", detail: "", ...more };
}

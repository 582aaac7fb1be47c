// Texts for people: problems, times, devices.

import type { Message, Problem } from "./types";

/** For a request that this page should not have made: a bug, or a page older than the server. */
const OUTDATED = "The page and the server do not match. Please reload the page.";
const SIGNED_OUT = "You were signed out. Sign in again.";
const BUSY = "The service is busy.";

/** By the API's code. null: the server's own sentence says more. */
const PROBLEMS: Record<string, string | null> = {
  already_subscribed: "You already have a subscription. Manage it instead.",
  body_too_large: "This is too long.",
  busy: BUSY,
  chatroom_not_found: "This chatroom no longer exists.",
  codes_exhausted: "Codes cannot be sent today. Sign in with your password.",
  codes_off: "Too many wrong codes were entered for this number. Use your password, or a device that has signed in before.",
  codes_sent_too_often: "Too many codes were requested for this number. Use the latest one.",
  country_not_allowed: "Codes cannot be sent to numbers of this country.",
  credentials_invalid: "The number or the password is wrong.",
  database_unavailable: BUSY,
  expectation_failed: OUTDATED,
  headers_too_large: OUTDATED,
  idempotency_key_in_use: "The same request is still running.",
  idempotency_key_reused: OUTDATED,
  idempotency_key_unsupported: OUTDATED,
  internal_error: "Something went wrong on our side.",
  malformed_body: OUTDATED,
  malformed_request: OUTDATED,
  message_ended: "The reply has already ended.",
  message_not_continuable: "This reply did not reach its length limit.",
  message_not_ended: "The reply is still being written.",
  message_not_found: "This message no longer exists.",
  method_not_allowed: OUTDATED,
  mobile_invalid: "This is not a valid mobile number. Write it with its country code, such as +91 98765 43210.",
  mobile_taken: "An account with this number already exists. Sign in instead.",
  not_subscribed: "There is no subscription to manage.",
  otp_invalid: "This code is wrong or has expired. Check it, or request a new one.",
  password_wrong: "The current password is wrong.",
  payments_refused: "The payment service rejected the request.",
  payments_unavailable: "The payment service is unavailable.",
  proof_required: "Confirm your identity with a code or your password.",
  quota_exceeded: null,
  rate_limited: "Too many requests.",
  redis_unavailable: BUSY,
  refresh_token_invalid: SIGNED_OUT,
  request_timeout: "The request took too long to arrive. Please try again.",
  route_not_found: OUTDATED,
  sending_too_fast: "You are sending messages too fast.",
  session_not_found: "This device was already signed out.",
  streams_exhausted: BUSY,
  timeout: BUSY,
  token_expired: SIGNED_OUT,
  token_invalid: SIGNED_OUT,
  token_missing: SIGNED_OUT,
  too_many_chatrooms: "You have reached the limit of conversations. Delete one.",
  too_many_concurrent: BUSY,
  too_many_guesses: "Too many wrong attempts.",
  too_many_in_flight: "Several of your messages are still being answered. Wait for one of them to finish.",
  too_many_streams: "This conversation is open in too many places. Close one of them.",
  user_not_found: "There is no account with this number yet.",
  validation_failed: null,
  webhook_invalid: null, // Stripe's call
};

/** By the code in a message's `error`. */
const UNANSWERED: Record<string, string> = {
  generation_failed: "Something went wrong on our side.",
  model_not_configured: "The service is not set up to use Gemini. Your message is fine.",
  model_overloaded: "The model is overloaded right now.",
  model_quota_exhausted: "The service has used up its model quota for today.",
  model_rate_limited: "The model is handling too many requests right now.",
  model_refused: "The model rejected the message.",
  model_timed_out: "The model took too long.",
  model_unavailable: "The model could not be reached.",
  reply_blocked: "The model's safety filter blocked the reply.",
  reply_empty: "The model returned an empty reply.",
  workers_died: "The reply was interrupted too often.",
};

export function explain(problem: Problem): string {
  const known = PROBLEMS[problem.code];
  const wrong = problem.errors?.[0];
  const text =
    problem.code === "validation_failed" && wrong
      ? sentence(wrong.detail)
      : (known ?? (problem.status >= 500 || !problem.detail ? BUSY : problem.detail));
  if (problem.retryAfter && (problem.status === 429 || problem.status === 503)) {
    return `${text} Try again in ${duration(problem.retryAfter * 1000)}.`;
  }
  return problem.status >= 500 ? `${text} Please try again.` : text;
}

/** Why a message that has ended has no reply. */
export function whyUnanswered(message: Message): string {
  const code = message.error?.code ?? "";
  return UNANSWERED[code] ?? message.error?.detail ?? "There is no reply.";
}

/** Completes a detail such as "must not be blank"; one that starts with a capital is already a sentence. */
function sentence(detail: string): string {
  return /^[a-z]/.test(detail) ? `This ${detail.replace(/\.$/, "")}.` : detail;
}

export function duration(milliseconds: number): string {
  const seconds = Math.max(1, Math.ceil(milliseconds / 1000));
  if (seconds < 60) return seconds === 1 ? "a second" : `${seconds} seconds`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return minutes === 1 ? "a minute" : `${minutes} minutes`;
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  return rest ? `${hours} h ${rest} min` : hours === 1 ? "an hour" : `${hours} hours`;
}

/** A short duration that counts up. */
export function seconds(time: number): string {
  const whole = Math.max(1, Math.round(time));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const timeOf = (iso: string): string => clock.format(new Date(iso));
export const dateOf = (iso: string): string => day.format(new Date(iso));
export const momentOf = (iso: string): string => moment.format(new Date(iso));

const BROWSERS: [RegExp, string][] = [
  [/Edg\//, "Edge"],
  [/OPR\//, "Opera"],
  [/Firefox\//, "Firefox"],
  [/Chrome\/|CriOS\//, "Chrome"],
  [/Safari\//, "Safari"],
  [/^curl\//, "curl"],
  [/python|httpx/i, "Python"],
];
const SYSTEMS: [RegExp, string][] = [
  [/iPhone/, "iPhone"],
  [/iPad/, "iPad"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "Mac"],
  [/CrOS/, "ChromeOS"],
  [/Linux/, "Linux"],
];

export function deviceName(userAgent: string): string {
  const browser = BROWSERS.find(([pattern]) => pattern.test(userAgent))?.[1];
  const system = SYSTEMS.find(([pattern]) => pattern.test(userAgent))?.[1];
  if (browser && system) return `${browser} on ${system}`;
  return browser ?? system ?? (userAgent.slice(0, 40) || "Unknown device");
}

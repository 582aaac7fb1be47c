// What people read: problems, times, devices.

import type { Message, Problem } from "./types";

const PROBLEMS: Record<string, string> = {
  mobile_invalid: "This is not a valid mobile number. Write it with its country code, such as +91 98765 43210.",
  country_not_allowed: "Codes cannot be sent to numbers of this country.",
  mobile_taken: "There is an account with this number already. Sign in instead.",
  user_not_found: "There is no account with this number yet.",
  otp_invalid: "This code is wrong or no longer good. Check it, or ask for a new one.",
  codes_off: "Too many wrong codes were given for this number. Please contact support.",
  credentials_invalid: "The number or the password is wrong.",
  password_wrong: "The current password is wrong.",
  too_many_guesses: "Too many wrong guesses.",
  codes_sent_too_often: "Codes were sent to this number too often. Use the last one.",
  rate_limited: "That was too much at once.",
  too_many_in_flight: "Several of your messages are still being answered. Wait for one of them.",
  sending_too_fast: "You are sending messages very fast.",
  too_many_streams: "This conversation is open in many places. Close one of them.",
  chatroom_not_found: "This chatroom does not exist any more.",
  message_not_found: "This message does not exist any more.",
  session_not_found: "This device was signed out already.",
  message_not_ended: "The reply is still being written.",
  already_subscribed: "You have a subscription already. Manage it instead.",
  not_subscribed: "There is no subscription to manage.",
  payments_unavailable: "The payment service cannot be reached.",
  payments_refused: "The payment service did not accept the request.",
  body_too_large: "This is too long.",
  internal_error: "Something went wrong on our side.",
  refresh_token_invalid: "You were signed out. Sign in again.",
  token_invalid: "You were signed out. Sign in again.",
};

const UNANSWERED: Record<string, string> = {
  model_unavailable: "The model could not be reached.",
  model_not_configured: "The service is not set up to reach Gemini. Nothing is wrong with your message.",
  model_rate_limited: "The model has too much to do right now.",
  model_quota_exhausted: "The service has used up its share of the model for today.",
  model_refused: "The model did not accept the message.",
  reply_empty: "The model gave no answer.",
  reply_blocked: "The model's safety filter refused to answer this.",
  workers_died: "The reply was interrupted too often.",
  generation_failed: "Something went wrong on our side.",
};

export function explain(problem: Problem): string {
  const known = PROBLEMS[problem.code];
  const wrong = problem.errors?.[0];
  const text =
    problem.code === "validation_failed" && wrong
      ? sentence(wrong.detail)
      : (known ?? (problem.status >= 500 || !problem.detail ? "The service is busy." : problem.detail));
  if (problem.retryAfter && (problem.status === 429 || problem.status === 503)) {
    return `${text} Try again in ${duration(problem.retryAfter * 1000)}.`;
  }
  return problem.status >= 500 ? `${text} Please try again.` : text;
}

/** Why a message that has ended has no reply. */
export function whyUnanswered(message: Message): string {
  const code = message.error?.code ?? "";
  return UNANSWERED[code] ?? message.error?.detail ?? "There is no answer.";
}

/** "must not be blank" of a value; what begins with a capital is a sentence already. */
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

/** Of what is short, and counts up. */
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

// What goes over the wire, as /openapi.json describes it, for as much as the page uses.

export type Tier = "Basic" | "Pro";
export type Status = "queued" | "generating" | "completed" | "failed" | "cancelled" | "blocked";
export type Count = number | "unlimited";

export interface Usage {
  used: number;
  total: Count;
  remaining: Count;
  resetsAt: string;
}

export interface Profile {
  id: string;
  mobile: string;
  name: string;
  subscriptionTier: Tier;
  usage: Usage;
}

export interface Room {
  id: string;
  name: string;
  createdAt: string;
  instructions: string | null;
  autoTitle: boolean;
}

export interface Message {
  id: string;
  input: string;
  response: string | null;
  thoughts: string | null;
  thinkingSeconds: number | null;
  chatroomId: string;
  createdAt: string;
  status: Status;
  finishReason: string | null;
  /** Whether it cost one of the day's messages. */
  counted: boolean;
  error: { code: string; detail: string } | null;
}

export interface Accepted {
  data: Message;
  remainingMessages: Count;
  dailyLimitInfo: { used: number; total: Count; resetsAt: string };
}

export interface SignedIn {
  token: string;
  expiresIn: number;
}

export interface Device {
  id: string;
  device: string;
  network: string;
  createdAt: string;
  lastSeenAt: string;
  current: boolean;
}

export interface Subscription {
  tier: Tier;
  status: string | null;
  currentPeriodEnd: string | null;
  cancelAtPeriodEnd: boolean;
}

/** RFC 9457. `retryAfter` is in seconds, from the header. */
export interface Problem {
  status: number;
  code: string;
  detail: string;
  errors?: { pointer: string; detail: string }[];
  resetsAt?: string;
  retryAfter?: number;
}

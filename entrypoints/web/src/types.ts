// The API's types by the names that the page uses; api-types.ts is generated.

import type * as api from "./api-types";

export type { Message, Profile, Subscription } from "./api-types";
export type Device = api.Session;
export type Room = api.Chatroom;
export type SignedIn = Pick<api.SignedInReply, "token" | "expiresIn">;
export type Status = api.MessageStatus;
export type Usage = api.DailyUsage;

/** RFC 9457. `retryAfter` is in seconds, from the header. A proxy's error has neither code nor detail. */
export type Problem = Pick<api.Problem, "status" | "code" | "detail" | "errors" | "resetsAt"> & { retryAfter?: number };

// The state of the page and of the session. The open conversation is in conversation.ts.

import { computed, effect, signal } from "@preact/signals";
import { call, dropSession, keepSession, newKey, Refused, renew, Unreachable, wasSignedIn, whenSessionEnds } from "./api";
import type {
  ChangeChatroomBody,
  ChatroomReply,
  ChatroomsReply,
  CreateChatroomBody,
  DeleteUserBody,
  ProfileReply,
  SessionsReply,
  SubscriptionReply,
  UrlReply,
} from "./api-types";
import type { Device, Problem, Profile, Room, SignedIn, Subscription, Usage } from "./types";
import { explain } from "./words";

export type Phase = "starting" | "unreachable" | "out" | "in";
export type DialogName = "new-chatroom" | "room" | "account" | "subscription";

export const phase = signal<Phase>("starting");
export const profile = signal<Profile | null>(null);
export const subscription = signal<Subscription | null>(null);
export const rooms = signal<Room[] | null>(null);
export const moreRooms = signal<string | null>(null);
/** The room that is open; null is a new chatroom. */
export const roomId = signal<string | null>(null);
export const dialog = signal<{ name: DialogName; room?: Room } | null>(null);
export const sidebarOpen = signal(false);
export const online = signal(navigator.onLine);
export const now = signal(Date.now());
export const notice = signal<{ text: string; kind: "good" | "bad" | "busy" } | null>(null);
/** Sentences for screen readers, newest last. */
export const announcements = signal<{ key: number; text: string }[]>([]);

export const usage = computed<Usage | null>(() => profile.value?.usage ?? null);
export const isUsedUp = computed(
  () => usage.value !== null && usage.value.remaining === 0 && Date.parse(usage.value.resetsAt) > now.value,
);
export const room = computed(() => rooms.value?.find((one) => one.id === roomId.value) ?? null);

// --- tabs

type TabMessage = { about: "room"; id: string } | { about: "rooms" | "profile" | "out" | "in" };
const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("chat") : null;
let onRoomChanged: (id: string) => void = () => {};

export function notifyTabs(message: TabMessage): void {
  tabs?.postMessage(message);
}

export function whenRoomChanges(listener: (id: string) => void): void {
  onRoomChanged = listener;
}

tabs?.addEventListener("message", (event: MessageEvent<TabMessage>) => {
  const message = event.data;
  if (message.about === "out") signedOut("You signed out in another tab.");
  else if (message.about === "in") location.reload();
  else if (phase.value !== "in") return;
  else if (message.about === "room") onRoomChanged(message.id);
  else if (message.about === "rooms") {
    void loadRooms().catch(() => undefined);
    if (roomId.value) onRoomChanged(roomId.value);
  } else void loadProfile().catch(() => undefined);
});

// --- signing in and out

whenSessionEnds(() => {
  if (phase.value === "in") signedOut("You were signed out.");
  else phase.value = "out";
});

export async function start(): Promise<void> {
  if (!wasSignedIn()) {
    phase.value = "out";
    return;
  }
  try {
    await renew();
    await enter();
  } catch (error) {
    if (!(error instanceof Refused && error.problem.status === 401)) phase.value = "unreachable";
  }
}

export async function signIn(signedIn: SignedIn): Promise<void> {
  keepSession(signedIn);
  await enter();
  notice.value = null;
  notifyTabs({ about: "in" });
}

async function enter(): Promise<void> {
  await Promise.all([loadProfile(), loadRooms()]);
  phase.value = "in";
}

export async function signOut(): Promise<void> {
  await call("POST", "/auth/logout", { cookie: true });
  leave("");
}

/** `proof`: a code or the current password. */
export async function deleteAccount(proof: DeleteUserBody): Promise<void> {
  await call("DELETE", "/user/me", { body: proof, cookie: true });
  leave("Your account is deleted.");
}

function leave(text: string): void {
  signedOut(text);
  notifyTabs({ about: "out" });
}

function signedOut(text: string): void {
  dropSession();
  dialog.value = null;
  sidebarOpen.value = false;
  roomId.value = null;
  rooms.value = profile.value = subscription.value = null;
  history.replaceState(null, "", "/");
  notice.value = text ? { text, kind: "good" } : null;
  phase.value = "out";
}

// --- the profile and the subscription

export async function loadProfile(): Promise<void> {
  profile.value = (await call<ProfileReply>("GET", "/user/me")).data;
}

export function setUsage(changed: Partial<Usage>): void {
  if (profile.value) profile.value = { ...profile.value, usage: { ...profile.value.usage, ...changed } };
}

export async function loadSubscription(): Promise<Subscription> {
  const found = (await call<SubscriptionReply>("GET", "/subscription/status")).data;
  subscription.value = found;
  if (profile.value && profile.value.subscriptionTier !== found.tier) await loadProfile();
  return found;
}

export async function renameUser(name: string): Promise<void> {
  profile.value = (await call<ProfileReply>("PATCH", "/user/me", { body: { name } })).data;
  notifyTabs({ about: "profile" });
}

/** Opens Stripe's checkout or customer portal. */
export async function goTo(which: "checkout" | "portal"): Promise<void> {
  const [path, options] =
    which === "checkout" ? ["/subscribe/pro", { body: {}, key: newKey() }] : ["/subscription/portal", {}];
  const { url } = await call<UrlReply>("POST", path as string, options as { body?: unknown; key?: string });
  try {
    sessionStorage.setItem("back-to", location.hash);
  } catch {
    // without storage, the person returns to a new chatroom
  }
  location.assign(url);
}

/** Handles the return from Stripe, whose outcome is in the query string. */
export async function backFromStripe(): Promise<void> {
  const outcome = new URLSearchParams(location.search).get("checkout");
  let hash = location.hash;
  try {
    hash ||= sessionStorage.getItem("back-to") ?? "";
    sessionStorage.removeItem("back-to");
  } catch {
    // no storage
  }
  if (location.search || hash !== location.hash) history.replaceState(null, "", `/${hash}`);
  if (outcome === "cancelled") notice.value = { text: "The checkout was cancelled. Nothing was charged.", kind: "good" };
  if (outcome !== "success" || phase.value !== "in") return;
  notice.value = { text: "Thank you! Your payment is being confirmed …", kind: "busy" };
  for (let tries = 0; tries < 60; tries++) {
    const found = await loadSubscription().catch(() => null);
    if (found?.tier === "Pro") {
      await loadProfile().catch(() => undefined);
      notice.value = { text: "Welcome to Pro. Your messages are unlimited now.", kind: "good" };
      notifyTabs({ about: "profile" });
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, tries < 10 ? 500 : 2000));
  }
  notice.value = { text: "The payment is not confirmed yet. Your tier changes as soon as it is.", kind: "busy" };
}

// --- devices

export async function loadDevices(): Promise<Device[]> {
  return (await call<SessionsReply>("GET", "/auth/sessions")).data;
}

// --- rooms

export async function loadRooms(): Promise<void> {
  const reply = await call<ChatroomsReply>("GET", "/chatroom/?limit=50");
  const open = room.value; // may be on a later page
  rooms.value = open && !reply.data.some((one) => one.id === open.id) ? [...reply.data, open] : reply.data;
  moreRooms.value = reply.nextCursor;
}

export async function loadMoreRooms(): Promise<void> {
  const reply = await call<ChatroomsReply>("GET", `/chatroom/?limit=50&cursor=${moreRooms.value}`);
  const known = new Set(rooms.value?.map((one) => one.id));
  rooms.value = [...(rooms.value ?? []), ...reply.data.filter((one) => !known.has(one.id))];
  moreRooms.value = reply.nextCursor;
}

export async function createRoom(wanted: CreateChatroomBody, key: string): Promise<Room> {
  const { data } = await call<ChatroomReply>("POST", "/chatroom/", { body: wanted, key });
  rooms.value = [data, ...(rooms.value ?? []).filter((one) => one.id !== data.id)];
  notifyTabs({ about: "rooms" });
  return data;
}

export async function changeRoom(id: string, change: ChangeChatroomBody): Promise<void> {
  const { data } = await call<ChatroomReply>("PATCH", `/chatroom/${id}`, { body: change });
  keepRoom(data);
  notifyTabs({ about: "rooms" });
}

export async function deleteRoom(id: string): Promise<void> {
  try {
    await call("DELETE", `/chatroom/${id}`);
  } catch (error) {
    if (!(error instanceof Refused && error.problem.code === "chatroom_not_found")) throw error;
  }
  forgetRoom(id);
  notifyTabs({ about: "rooms" });
}

export function keepRoom(changed: Room): void {
  const known = rooms.value?.some((one) => one.id === changed.id);
  rooms.value = known
    ? (rooms.value ?? []).map((one) => (one.id === changed.id ? changed : one))
    : [...(rooms.value ?? []), changed];
}

export function forgetRoom(id: string): void {
  rooms.value = (rooms.value ?? []).filter((one) => one.id !== id);
  if (roomId.value === id) navigate(null);
}

export function navigate(id: string | null): void {
  sidebarOpen.value = false;
  if (roomId.value === id && (id !== null || !location.hash)) return;
  history.pushState(null, "", id ? `/#/chatroom/${id}` : "/");
  readAddress();
}

export function readAddress(): void {
  roomId.value = /^#\/chatroom\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? null;
}

// --- notices and announcements

const GOOD_NOTICE_MS = 10_000;

effect(() => {
  const shown = notice.value;
  if (shown?.kind !== "good") return undefined;
  const timer = setTimeout(() => (notice.value = null), GOOD_NOTICE_MS);
  return () => clearTimeout(timer);
});

export function problemText(error: unknown): string {
  if (error instanceof Refused) return explain(error.problem);
  if (error instanceof Unreachable) {
    return navigator.onLine ? "The server cannot be reached. Please try again." : "You are offline.";
  }
  throw error;
}

export function problemOf(error: unknown): Problem | null {
  return error instanceof Refused ? error.problem : null;
}

export async function notifyOnError(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    notice.value = { text: problemText(error), kind: "bad" };
    return false;
  }
}

let spoken = 0;

export function announce(text: string): void {
  if (text) announcements.value = [...announcements.value.slice(-7), { key: ++spoken, text }];
}

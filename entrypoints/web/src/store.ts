// What the page knows, and who is signed in. The conversation that is open has a file of its own.

import { computed, effect, signal } from "@preact/signals";
import { call, dropSession, keepSession, newKey, Refused, renew, Unreachable, wasSignedIn, whenSessionEnds } from "./api";
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
/** Sentences for screen readers, the newest last. */
export const announcements = signal<{ key: number; text: string }[]>([]);

export const usage = computed<Usage | null>(() => profile.value?.usage ?? null);
export const isUsedUp = computed(
  () => usage.value !== null && usage.value.remaining === 0 && Date.parse(usage.value.resetsAt) > now.value,
);
export const room = computed(() => rooms.value?.find((one) => one.id === roomId.value) ?? null);

// --- tabs

type Told = { about: "room"; id: string } | { about: "rooms" | "profile" | "out" | "in" };
const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("chat") : null;
let onRoomChanged: (id: string) => void = () => {};

export function tellTabs(told: Told): void {
  tabs?.postMessage(told);
}

export function whenRoomChanges(listener: (id: string) => void): void {
  onRoomChanged = listener;
}

tabs?.addEventListener("message", (event: MessageEvent<Told>) => {
  const told = event.data;
  if (told.about === "out") signedOut("You signed out in another tab.");
  else if (told.about === "in") location.reload();
  else if (phase.value !== "in") return;
  else if (told.about === "room") onRoomChanged(told.id);
  else if (told.about === "rooms") {
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
  tellTabs({ about: "in" });
}

async function enter(): Promise<void> {
  await Promise.all([loadProfile(), loadRooms()]);
  phase.value = "in";
}

export async function signOut(): Promise<void> {
  await call("POST", "/auth/logout", { cookie: true });
  leave("");
}

export async function deleteAccount(): Promise<void> {
  await call("DELETE", "/user/me", { cookie: true });
  leave("Your account is deleted.");
}

function leave(text: string): void {
  signedOut(text);
  tellTabs({ about: "out" });
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
  profile.value = (await call<{ data: Profile }>("GET", "/user/me")).data;
}

export function setUsage(changed: Partial<Usage>): void {
  if (profile.value) profile.value = { ...profile.value, usage: { ...profile.value.usage, ...changed } };
}

export async function loadSubscription(): Promise<Subscription> {
  const found = (await call<{ data: Subscription }>("GET", "/subscription/status")).data;
  subscription.value = found;
  if (profile.value && profile.value.subscriptionTier !== found.tier) await loadProfile();
  return found;
}

export async function renameUser(name: string): Promise<void> {
  profile.value = (await call<{ data: Profile }>("PATCH", "/user/me", { body: { name } })).data;
  tellTabs({ about: "profile" });
}

/** Off to Stripe's pages. */
export async function goTo(which: "checkout" | "portal"): Promise<void> {
  const [path, options] =
    which === "checkout" ? ["/subscribe/pro", { body: {}, key: newKey() }] : ["/subscription/portal", {}];
  const { url } = await call<{ url: string }>("POST", path as string, options as { body?: unknown; key?: string });
  try {
    sessionStorage.setItem("back-to", location.hash);
  } catch {
    // back to a new chatroom, then
  }
  location.assign(url);
}

/** Back from Stripe's pages: the address says how it went. */
export async function backFromStripe(): Promise<void> {
  const outcome = new URLSearchParams(location.search).get("checkout");
  let hash = location.hash;
  try {
    hash ||= sessionStorage.getItem("back-to") ?? "";
    sessionStorage.removeItem("back-to");
  } catch {
    // nothing was kept
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
      tellTabs({ about: "profile" });
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, tries < 10 ? 500 : 2000));
  }
  notice.value = { text: "The payment is not confirmed yet. Your tier changes as soon as it is.", kind: "busy" };
}

// --- devices

export async function loadDevices(): Promise<Device[]> {
  return (await call<{ data: Device[] }>("GET", "/auth/sessions")).data;
}

// --- rooms

export async function loadRooms(): Promise<void> {
  const reply = await call<{ data: Room[]; nextCursor: string | null }>("GET", "/chatroom/?limit=50");
  const open = room.value; // may be further down than this page
  rooms.value = open && !reply.data.some((one) => one.id === open.id) ? [...reply.data, open] : reply.data;
  moreRooms.value = reply.nextCursor;
}

export async function loadMoreRooms(): Promise<void> {
  const reply = await call<{ data: Room[]; nextCursor: string | null }>(
    "GET",
    `/chatroom/?limit=50&cursor=${moreRooms.value}`,
  );
  const known = new Set(rooms.value?.map((one) => one.id));
  rooms.value = [...(rooms.value ?? []), ...reply.data.filter((one) => !known.has(one.id))];
  moreRooms.value = reply.nextCursor;
}

export interface NewRoom {
  name: string;
  instructions?: string;
  autoTitle?: boolean;
}

export async function createRoom(wanted: NewRoom, key: string): Promise<Room> {
  const { data } = await call<{ data: Room }>("POST", "/chatroom/", { body: wanted, key });
  rooms.value = [data, ...(rooms.value ?? []).filter((one) => one.id !== data.id)];
  tellTabs({ about: "rooms" });
  return data;
}

export async function changeRoom(id: string, change: { name?: string; instructions?: string }): Promise<void> {
  const { data } = await call<{ data: Room }>("PATCH", `/chatroom/${id}`, { body: change });
  keepRoom(data);
  tellTabs({ about: "rooms" });
}

export async function deleteRoom(id: string): Promise<void> {
  try {
    await call("DELETE", `/chatroom/${id}`);
  } catch (error) {
    if (!(error instanceof Refused && error.problem.code === "chatroom_not_found")) throw error;
  }
  forgetRoom(id);
  tellTabs({ about: "rooms" });
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

// --- saying what went well or wrong

const GLAD_MS = 10_000;

effect(() => {
  const shown = notice.value;
  if (shown?.kind !== "good") return undefined;
  const timer = setTimeout(() => (notice.value = null), GLAD_MS);
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

export async function orNotice(work: Promise<unknown>): Promise<boolean> {
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

import { render } from "preact";
import type { JSX } from "preact";
import { refresh } from "./conversation";
import { Conversation } from "./views/Conversation";
import { Dialogs } from "./views/Dialogs";
import { Sidebar } from "./views/Sidebar";
import { SignIn } from "./views/SignIn";
import { backFromStripe, isUsedUp, loadProfile, loadRooms, now, online, phase, readAddress, sidebarOpen, start, usage } from "./store";

function App(): JSX.Element {
  switch (phase.value) {
    case "starting":
      return (
        <main class="splash" aria-busy="true">
          <h1 class="unseen">Chat with Gemini</h1>
          <div class="spinner" role="img" aria-label="Loading" />
        </main>
      );
    case "unreachable":
      return (
        <main class="splash">
          <h1>The server cannot be reached</h1>
          <p>{online.value ? "It may be back in a moment." : "You are offline."}</p>
          <button type="button" class="primary" onClick={() => void begin()}>
            Try again
          </button>
        </main>
      );
    case "out":
      return <SignIn />;
    case "in":
      return (
        <div class="app">
          <a class="skip" href="#message" onClick={skip}>
            Skip to the message box
          </a>
          <Sidebar />
          {sidebarOpen.value && <div class="shade" onClick={() => (sidebarOpen.value = false)} />}
          <Conversation />
          <Dialogs />
        </div>
      );
  }
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("message")?.focus();
}

async function begin(): Promise<void> {
  await start();
  await backFromStripe();
  readAddress();
}

async function catchUp(): Promise<void> {
  if (phase.value !== "in") return;
  await Promise.all([refresh(), loadProfile(), loadRooms()]).catch(() => undefined);
}

let seen = Date.now();
addEventListener("online", () => {
  online.value = true;
  if (phase.value === "unreachable") void begin();
  else void catchUp();
});
addEventListener("offline", () => (online.value = false));
addEventListener("hashchange", readAddress);
matchMedia("(min-width: 761px)").addEventListener("change", () => (sidebarOpen.value = false));
addEventListener("popstate", readAddress);
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // returned from Stripe with the browser's back button
});
document.addEventListener("visibilitychange", () => {
  now.value = Date.now();
  if (document.visibilityState === "hidden") seen = Date.now();
  else if (Date.now() - seen > 3000) void catchUp();
});
setInterval(() => {
  const wasUsedUp = isUsedUp.value;
  now.value = Date.now();
  const isNewDay = usage.value !== null && Date.parse(usage.value.resetsAt) <= now.value;
  if (phase.value === "in" && (isNewDay || wasUsedUp !== isUsedUp.value)) void loadProfile().catch(() => undefined);
}, 15_000);

readAddress();
const root = document.getElementById("app");
if (root) {
  root.replaceChildren();
  render(<App />, root);
}
void begin();

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, newKey } from "../api";
import {
  changeRoom,
  createRoom,
  deleteAccount,
  deleteRoom,
  dialog,
  goTo,
  loadDevices,
  loadSubscription,
  navigate,
  notice,
  profile,
  renameUser,
  rooms,
  signOut,
  subscription,
  usage,
} from "../store";
import type { OtpReply } from "../api-types";
import type { Device, Room, Subscription } from "../types";
import { Dialog, Field, Form, Submit, TextArea, useTask } from "./ui";
import { dateOf, deviceName, momentOf } from "../words";

export function Dialogs(): JSX.Element | null {
  const open = dialog.value;
  if (open === null) return null;
  switch (open.name) {
    case "new-chatroom":
      return <NewChatroom />;
    case "room":
      return open.room ? <RoomSettings key={open.room.id} room={open.room} /> : null;
    case "account":
      return <Account />;
    case "subscription":
      return <SubscriptionDialog />;
  }
}

function close(): void {
  dialog.value = null;
}

// --- rooms

function NewChatroom(): JSX.Element {
  const [name, setName] = useState("");
  const [instructions, setInstructions] = useState("");
  const [autoTitle, setAutoTitle] = useState(true);
  const [key] = useState(newKey);
  const task = useTask();

  async function create(): Promise<void> {
    const wanted = { name: name.trim() || "New chatroom", autoTitle, ...(instructions.trim() ? { instructions } : {}) };
    let made: Room | null = null;
    if (await task.run(async () => (made = await createRoom(wanted, key)))) {
      close();
      if (made) navigate((made as Room).id);
    }
  }

  return (
    <Dialog title="New chatroom" onClose={close}>
      <Form onSubmit={() => void create()}>
        <Field
          label="Name"
          maxLength={100}
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
          hint="Optional."
          error={task.error || undefined}
        />
        <label class="check">
          <input type="checkbox" checked={autoTitle} onChange={(event) => setAutoTitle(event.currentTarget.checked)} />
          <span>Let the model name it after the first reply</span>
        </label>
        <Instructions value={instructions} onInput={setInstructions} />
        <div class="buttons">
          <button type="button" class="secondary" onClick={close}>
            Cancel
          </button>
          <Submit busy={task.isBusy}>Create</Submit>
        </div>
      </Form>
    </Dialog>
  );
}

function Instructions({ value, onInput }: { value: string; onInput: (text: string) => void }): JSX.Element {
  return (
    <TextArea
      label="Instructions"
      rows={4}
      maxLength={4000}
      value={value}
      onInput={(event) => onInput(event.currentTarget.value)}
      hint="The model receives these before every message in this chatroom. For example: “Answer briefly, in Hindi”."
    />
  );
}

function RoomSettings({ room }: { room: Room }): JSX.Element {
  const current = rooms.value?.find((one) => one.id === room.id) ?? room;
  const [name, setName] = useState(current.name);
  const [instructions, setInstructions] = useState(current.instructions ?? "");
  const [isDeleting, setDeleting] = useState(false);
  const save = useTask();
  const remove = useTask();

  async function change(): Promise<void> {
    const changes = {
      ...(name.trim() !== current.name ? { name: name.trim() } : {}),
      ...(instructions !== (current.instructions ?? "") ? { instructions } : {}),
    };
    if (Object.keys(changes).length === 0 || (await save.run(() => changeRoom(room.id, changes)))) close();
  }

  return (
    <Dialog title="This chatroom" onClose={close}>
      <Form onSubmit={() => void change()}>
        <Field
          label="Name"
          required
          maxLength={100}
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
          error={save.error || undefined}
        />
        <Instructions value={instructions} onInput={setInstructions} />
        <div class="buttons">
          <button type="button" class="secondary" onClick={close}>
            Cancel
          </button>
          <Submit busy={save.isBusy}>Save</Submit>
        </div>
      </Form>
      <section class="danger">
        <Confirm
          ask="Delete chatroom"
          question="Delete this chatroom with all its messages? This cannot be undone."
          isAsked={isDeleting}
          setAsked={setDeleting}
          isBusy={remove.isBusy}
          error={remove.error}
          onConfirm={() => void remove.run(() => deleteRoom(room.id)).then((done) => done && close())}
        />
      </section>
    </Dialog>
  );
}

/** A button that asks for confirmation before it does what cannot be undone. */
function Confirm(props: {
  ask: string;
  question: string;
  isAsked: boolean;
  setAsked: (is: boolean) => void;
  isBusy: boolean;
  error: string;
  onConfirm: () => void;
}): JSX.Element {
  if (!props.isAsked) {
    return (
      <button type="button" class="dangerous" onClick={() => props.setAsked(true)}>
        {props.ask} …
      </button>
    );
  }
  return (
    <div class="confirm" role="group" aria-label={props.ask}>
      <p role="alert">{props.error || props.question}</p>
      <div class="buttons">
        <button
          type="button"
          class="secondary"
          ref={(button) => {
            if (button && !button.dataset["focused"]) {
              button.dataset["focused"] = "yes";
              button.focus();
            }
          }}
          onClick={() => props.setAsked(false)}
        >
          Keep
        </button>
        <button type="button" class="dangerous solid" aria-busy={props.isBusy} onClick={props.onConfirm}>
          {props.ask}
        </button>
      </div>
    </div>
  );
}

// --- the account

function Account(): JSX.Element {
  const leaving = useTask();
  return (
    <Dialog title="Your account" onClose={close} wide>
      <Name />
      <Password />
      <Devices />
      <section>
        <h3>Sign out</h3>
        {leaving.error && (
          <p class="error" role="alert">
            {leaving.error}
          </p>
        )}
        <button type="button" class="secondary" aria-busy={leaving.isBusy} onClick={() => void leaving.run(signOut)}>
          Sign out
        </button>
      </section>
      <DeleteAccount />
    </Dialog>
  );
}

function Name(): JSX.Element {
  const [name, setName] = useState(profile.value?.name ?? "");
  const [isSaved, setSaved] = useState(false);
  const task = useTask();
  return (
    <section>
      <Form class="inline" label="Your name" onSubmit={() => void task.run(() => renameUser(name.trim())).then(setSaved)}>
        <Field
          label="Name"
          required
          maxLength={100}
          autocomplete="name"
          value={name}
          onInput={(event) => {
            setName(event.currentTarget.value);
            setSaved(false);
          }}
          hint={isSaved ? "Saved." : `Mobile number ${profile.value?.mobile ?? ""}`}
          error={task.error || undefined}
        />
        <Submit busy={task.isBusy} kind="secondary">
          Save name
        </Submit>
      </Form>
    </section>
  );
}

const MIN_PASSWORD = 8; // characters

const WRONG_PROOF = ["otp_invalid", "password_wrong", "codes_off", "proof_required", "too_many_guesses"];

interface Proof {
  by: "code" | "password";
  setBy: (by: "code" | "password") => void;
  text: string;
  setText: (text: string) => void;
  /** Of the code that was sent. */
  setChallenge: (challenge: string) => void;
  body: { otp: string; challenge?: string } | { currentPassword: string };
}

function useProof(): Proof {
  const [by, setBy] = useState<"code" | "password">("code");
  const [text, setText] = useState("");
  const [challenge, setChallenge] = useState("");
  const body = by === "code" ? { otp: text, ...(challenge && { challenge }) } : { currentPassword: text };
  return { by, setBy, text, setText, setChallenge, body };
}

/** A code or the current password, by which the person proves who they are. */
function ProofFields({ proof, error }: { proof: Proof; error: string | undefined }): JSX.Element {
  const [shown, setShown] = useState<string | null>(null);
  const [isSent, setSent] = useState(false);
  const sending = useTask();
  const isCode = proof.by === "code";

  const send = (): Promise<unknown> =>
    sending.run(async () => {
      const body = { mobile: profile.value?.mobile };
      const { otp, challenge } = await call<OtpReply>("POST", "/auth/forgot-password", { body, anonymous: true });
      proof.setChallenge(challenge);
      setShown(otp ?? null);
      setSent(true);
    });

  return (
    <>
      <fieldset>
        <legend>Confirm your identity with</legend>
        <label class="check">
          <input type="radio" name="by" checked={isCode} onChange={() => proof.setBy("code")} />
          <span>a code sent to {profile.value?.mobile}</span>
        </label>
        <label class="check">
          <input type="radio" name="by" checked={!isCode} onChange={() => proof.setBy("password")} />
          <span>your current password</span>
        </label>
      </fieldset>
      {isCode && (
        <div class="send-code">
          <button type="button" class="secondary" aria-busy={sending.isBusy} onClick={() => void send()}>
            {isSent ? "Send a new code" : "Send me a code"}
          </button>
          <p class={sending.error ? "error" : "hint"} role="status">
            {sending.error ||
              (!isSent ? "" : shown === null ? "The code is on its way." : `This server cannot send text messages. Your code is ${shown}.`)}
          </p>
        </div>
      )}
      <Field
        key={proof.by}
        label={isCode ? "Six-digit code" : "Current password"}
        {...(isCode
          ? { inputMode: "numeric" as const, autocomplete: "one-time-code" }
          : { type: "password" as const, autocomplete: "current-password" })}
        required
        maxLength={isCode ? 64 : 128}
        value={proof.text}
        onInput={(event) => proof.setText(event.currentTarget.value)}
        error={error}
      />
    </>
  );
}

function Password(): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const [password, setPassword] = useState("");
  const [isDone, setDone] = useState(false);
  const [isShort, setShort] = useState(false);
  const proof = useProof();
  const task = useTask();
  const isProofWrong = WRONG_PROOF.includes(task.code) || task.pointer === "/otp";

  async function change(): Promise<void> {
    const tooShort = [...password].length < MIN_PASSWORD;
    setShort(tooShort);
    if (tooShort) return;
    const body = { newPassword: password, ...proof.body };
    if (!(await task.run(() => call("POST", "/auth/change-password", { body })))) return;
    proof.setText("");
    setPassword("");
    setDone(true);
    setOpen(false);
  }

  if (!isOpen) {
    return (
      <section>
        <h3>Password</h3>
        <p class="hint" role="status">
          {isDone ? "Your password is set. All other devices were signed out." : "With a password you can sign in without a code."}
        </p>
        <button type="button" class="secondary" onClick={() => setOpen(true)}>
          Set or change the password
        </button>
      </section>
    );
  }
  return (
    <section>
      <h3>Password</h3>
      <Form label="Password" onSubmit={() => void change()}>
        <ProofFields proof={proof} error={isProofWrong ? task.error : undefined} />
        <Field
          label="New password"
          type="password"
          autocomplete="new-password"
          required
          maxLength={128}
          value={password}
          onInput={(event) => setPassword(event.currentTarget.value)}
          hint={`At least ${MIN_PASSWORD} characters. All other devices are signed out.`}
          error={isShort ? `Use at least ${MIN_PASSWORD} characters.` : isProofWrong ? undefined : task.error || undefined}
        />
        <div class="buttons">
          <button type="button" class="secondary" onClick={() => setOpen(false)}>
            Cancel
          </button>
          <Submit busy={task.isBusy}>Set password</Submit>
        </div>
      </Form>
    </section>
  );
}

function Devices(): JSX.Element {
  const [devices, setDevices] = useState<Device[] | null>(null);
  const [said, setSaid] = useState("");
  const task = useTask();
  const load = (): Promise<unknown> => task.run(async () => setDevices(await loadDevices()));
  useEffect(() => void load(), []);

  const end = (path: string, words: string): Promise<unknown> =>
    task
      .run(async () => {
        await call("DELETE", path);
        setDevices(await loadDevices());
      })
      .then((done) => setSaid(done ? words : ""));
  const others = devices?.filter((device) => !device.current) ?? [];

  return (
    <section>
      <h3>Devices</h3>
      {task.error && (
        <p class="error" role="alert">
          {task.error}
        </p>
      )}
      {devices === null && !task.error && <div class="bone" />}
      <ul class="devices">
        {devices?.map((device) => (
          <li key={device.id}>
            <div>
              <p>
                <strong>{deviceName(device.device)}</strong>
                {device.current && <span class="tier">This device</span>}
              </p>
              <p class="hint">
                {[device.network, `signed in ${momentOf(device.createdAt)}`].filter(Boolean).join(", ")}
              </p>
            </div>
            {!device.current && (
              <button
                type="button"
                class="quiet"
                aria-label={`Sign out ${deviceName(device.device)}, signed in ${momentOf(device.createdAt)}`}
                onClick={() => void end(`/auth/sessions/${device.id}`, "The device is signed out.")}
              >
                Sign out
              </button>
            )}
          </li>
        ))}
      </ul>
      <p class="hint" role="status">
        {said}
      </p>
      {others.length > 0 && (
        <button type="button" class="secondary" onClick={() => void end("/auth/sessions", "All other devices are signed out.")}>
          Sign out all other devices
        </button>
      )}
    </section>
  );
}

function DeleteAccount(): JSX.Element {
  const [isAsked, setAsked] = useState(false);
  const proof = useProof();
  const task = useTask();
  if (!isAsked) {
    return (
      <section class="danger">
        <h3>Delete account</h3>
        <button type="button" class="dangerous" onClick={() => setAsked(true)}>
          Delete account
        </button>
      </section>
    );
  }
  return (
    <section class="danger">
      <h3>Delete account</h3>
      <p>Delete your account, all chatrooms and your subscription, immediately and permanently?</p>
      <Form label="Delete account" onSubmit={() => void task.run(() => deleteAccount(proof.body))}>
        <ProofFields proof={proof} error={task.error || undefined} />
        <div class="buttons">
          <button type="button" class="secondary" onClick={() => setAsked(false)}>
            Keep it
          </button>
          <Submit busy={task.isBusy} kind="dangerous solid">
            Delete account
          </Submit>
        </div>
      </Form>
    </section>
  );
}

// --- the subscription

function SubscriptionDialog(): JSX.Element {
  const task = useTask();
  const loading = useTask();
  useEffect(() => void loading.run(loadSubscription), []);
  const found = subscription.value;
  const isPro = profile.value?.subscriptionTier === "Pro";
  const isManaged = found?.status !== null && found?.status !== undefined;
  const total = usage.value?.total;

  const go = (which: "checkout" | "portal"): void =>
    void task.run(() => goTo(which)).then((done) => {
      if (done) notice.value = { text: "Taking you to the payment page …", kind: "busy" };
    });

  return (
    <Dialog title="Your subscription" onClose={close} wide>
      {loading.error && <p class="error">{loading.error}</p>}
      <p class="lead" role="status">
        {found ? standing(found) : "Loading …"}
      </p>
      <div class="tiers">
        <section class={isPro ? "" : "chosen"}>
          <h3>Basic</h3>
          <p class="price">Free</p>
          <ul>
            <li>{typeof total === "number" ? `${total} messages a day` : "Some messages a day"}</li>
            <li>Your chatrooms are kept</li>
          </ul>
        </section>
        <section class={isPro ? "chosen" : ""}>
          <h3>Pro</h3>
          <p class="price">Cancel at any time</p>
          <ul>
            <li>Unlimited messages</li>
            <li>Longer replies</li>
          </ul>
        </section>
      </div>
      {task.error && (
        <p class="error" role="alert">
          {task.error}
        </p>
      )}
      <div class="buttons">
        {isManaged && (
          <button type="button" class={isPro ? "primary" : "secondary"} aria-busy={task.isBusy} onClick={() => go("portal")}>
            Manage in the portal
          </button>
        )}
        {!isPro && (
          <button type="button" class="primary" aria-busy={task.isBusy} onClick={() => go("checkout")}>
            Upgrade to Pro
          </button>
        )}
      </div>
      <p class="hint">Stripe handles payment, invoices and cancellation.</p>
    </Dialog>
  );
}

function standing(found: Subscription): string {
  const end = found.currentPeriodEnd ? dateOf(found.currentPeriodEnd) : "";
  if (found.status === "past_due") {
    return found.tier === "Pro"
      ? "Your last payment did not go through. Change your card in the portal to keep Pro."
      : "Your last payment did not go through, so you are on Basic. Change your card in the portal.";
  }
  if (found.tier === "Pro") {
    if (found.cancelAtPeriodEnd) return end ? `You are on Pro until ${end}; then you are on Basic.` : "You are on Pro; it ends soon.";
    return end ? `You are on Pro. It renews on ${end}.` : "You are on Pro.";
  }
  return "You are on Basic.";
}

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { call, newKey } from "../api";
import { notice, problemOf, signIn } from "../store";
import type { OtpReply } from "../api-types";
import type { SignedIn } from "../types";
import { Field, Form, Icon, Submit, useTask } from "./ui";

type Step = "mobile" | "new" | "code" | "password";

const TITLES: Record<Step, string> = {
  mobile: "Sign in",
  new: "Create your account",
  code: "Enter your code",
  password: "Sign in with your password",
};

export function SignIn(): JSX.Element {
  const [step, setStep] = useState<Step>("mobile");
  const [mobile, setMobile] = useState("");
  const [name, setName] = useState("");
  const [code, setCode] = useState("");
  const [password, setPassword] = useState("");
  const [challenge, setChallenge] = useState("");
  /** The code, if the server returns it instead of sending it. */
  const [shown, setShown] = useState<string | null>(null);
  const [sentAgain, setSentAgain] = useState(false);
  const task = useTask();
  const form = useRef<HTMLDivElement>(null);

  useEffect(() => {
    form.current?.querySelector<HTMLInputElement>("input[data-first]")?.focus();
  }, [step]);
  useEffect(() => {
    if (task.error) form.current?.querySelector<HTMLInputElement>("[aria-invalid]")?.focus();
  }, [task.error]);

  function go(next: Step): void {
    task.clear();
    notice.value = null;
    setStep(next);
  }

  async function sendCode(): Promise<void> {
    const sent = await call<OtpReply>("POST", "/auth/send-otp", { body: { mobile }, anonymous: true });
    setChallenge(sent.challenge);
    setShown(sent.otp ?? null);
    setCode("");
    go("code");
  }

  const begin = (): Promise<unknown> =>
    task.run(async () => {
      try {
        await sendCode();
      } catch (error) {
        if (problemOf(error)?.code !== "user_not_found") throw error;
        go("new");
      }
    });

  const signUp = (): Promise<unknown> =>
    task.run(async () => {
      await call("POST", "/auth/signup", { body: { mobile, name }, anonymous: true, key: newKey() });
      await sendCode();
    });

  const verify = (): Promise<unknown> =>
    task.run(async () => {
      const body = { mobile, otp: code, challenge };
      await signIn(await call<SignedIn>("POST", "/auth/verify-otp", { body, anonymous: true, cookie: true }));
    });

  const logIn = (): Promise<unknown> =>
    task.run(async () => {
      const body = { mobile, password };
      await signIn(await call<SignedIn>("POST", "/auth/login", { body, anonymous: true, cookie: true }));
    });

  const error = task.error || undefined;
  const mobileField = (
    <Field
      label="Mobile number"
      type="tel"
      inputMode="tel"
      autocomplete="tel"
      required
      maxLength={32}
      data-first
      value={mobile}
      onInput={(event) => setMobile(event.currentTarget.value)}
      hint="With its country code, such as +91 98765 43210."
      error={(step === "password" ? task.pointer === "/mobile" : task.pointer !== "/name") ? error : undefined}
    />
  );

  return (
    <main class="sign-in">
      <div class="card" ref={form}>
        <div class="brand">
          <span class="mark">
            <Icon name="chat" />
          </span>
          <span>Chat with Gemini</span>
        </div>
        <h1>{TITLES[step]}</h1>
        {notice.value && (
          <p class={`notice ${notice.value.kind}`} role="status">
            {notice.value.text}
          </p>
        )}

        {step === "mobile" && (
          <Form onSubmit={begin}>
            {mobileField}
            <Submit busy={task.isBusy}>Send me a code</Submit>
            <p class="links">
              <button type="button" class="link" onClick={() => go("password")}>
                Use a password
              </button>
              <button type="button" class="link" onClick={() => go("new")}>
                Create an account
              </button>
            </p>
          </Form>
        )}

        {step === "new" && (
          <Form onSubmit={signUp}>
            <p class="lead">You need only a name and a mobile number.</p>
            <Field
              label="Your name"
              autocomplete="name"
              required
              maxLength={100}
              data-first
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
              error={task.pointer === "/name" ? error : undefined}
            />
            {mobileField}
            <Submit busy={task.isBusy}>Create account</Submit>
            <p class="links">
              <button type="button" class="link" onClick={() => go("mobile")}>
                I have an account
              </button>
            </p>
          </Form>
        )}

        {step === "code" && (
          <Form onSubmit={verify}>
            <p class="lead">
              {shown === null ? "If this number has an account, a code is on its way to " : "The code for "}
              <strong>{mobile}</strong>
              {shown === null ? "." : " is valid for five minutes."}
            </p>
            {shown !== null && (
              <div class="notice hint-code">
                <p>
                  This server cannot send text messages. Your code is <strong class="digits">{shown}</strong>
                </p>
                <button type="button" class="quiet" onClick={() => setCode(shown)}>
                  Fill in
                </button>
              </div>
            )}
            <Field
              label="Six-digit code"
              inputMode="numeric"
              autocomplete="one-time-code"
              required
              maxLength={64}
              data-first
              class="digits"
              value={code}
              onInput={(event) => setCode(event.currentTarget.value)}
              error={error}
            />
            <Submit busy={task.isBusy}>Sign in</Submit>
            <p class="links">
              <button
                type="button"
                class="link"
                onClick={() => void task.run(sendCode).then(setSentAgain)}
              >
                Send a new code
              </button>
              <button type="button" class="link" onClick={() => go("mobile")}>
                Use another number
              </button>
            </p>
            <p class="unseen" role="status">
              {sentAgain ? "A new code was sent." : ""}
            </p>
          </Form>
        )}

        {step === "password" && (
          <Form onSubmit={logIn}>
            {mobileField}
            <Field
              label="Password"
              type="password"
              autocomplete="current-password"
              required
              maxLength={128}
              value={password}
              onInput={(event) => setPassword(event.currentTarget.value)}
              hint="Forgotten, or none yet? Sign in with a code and set one in your account."
              error={task.pointer === "/mobile" ? undefined : error}
            />
            <Submit busy={task.isBusy}>Sign in</Submit>
            <p class="links">
              <button type="button" class="link" onClick={() => go("mobile")}>
                Use a code
              </button>
            </p>
          </Form>
        )}
      </div>
    </main>
  );
}

// Components that every part of the page uses.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { problemOf, problemText } from "../store";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  send: "M12 19V5M6 11l6-6 6 6",
  again: "M20 11a8 8 0 1 0-2.3 6.2M20 5v6h-6",
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "M5 12.5l4.5 4.5L19 7.5",
  down: "M12 5v14M6 13l6 6 6-6",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20a7.5 7.5 0 0 1 15 0",
  spark: "M12 3l2.2 6.8L21 12l-6.8 2.2L12 21l-2.2-6.8L3 12l6.8-2.2z",
  edit: "M4 20l1-4.5L16 4.5l3.5 3.5L8.5 19zM13.5 7l3.5 3.5",
} as const;

export type IconName = keyof typeof PATHS | "stop" | "chat";

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {name === "stop" ? (
        <rect class="solid" x="7" y="7" width="10" height="10" rx="2" />
      ) : name === "chat" ? (
        <path d="M5 7a2.5 2.5 0 0 1 2.5-2.5h9A2.5 2.5 0 0 1 19 7v6a2.5 2.5 0 0 1-2.5 2.5H11L7 19v-3.5A2.5 2.5 0 0 1 5 13z" />
      ) : (
        <path d={PATHS[name]} />
      )}
    </svg>
  );
}

export function IconButton(
  props: { icon: IconName; label: string; class?: string; onClick: () => void; "aria-expanded"?: boolean; "aria-controls"?: string },
): JSX.Element {
  const { icon, label, class: more, ...rest } = props;
  return (
    <button type="button" class={`icon-button ${more ?? ""}`} aria-label={label} title={label} {...rest}>
      <Icon name={icon} />
    </button>
  );
}

/** The browser's dialog: it traps the focus, closes with Escape and restores the focus. */
export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }): JSX.Element {
  const element = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => {
    const shown = element.current;
    const before = document.activeElement;
    shown?.showModal();
    return () => {
      shown?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      class={props.wide ? "wide" : ""}
      aria-labelledby={title}
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
      onClick={(event) => {
        if (event.target === element.current) props.onClose();
      }}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id={title}>{props.title}</h2>
          <IconButton icon="close" label="Close" onClick={props.onClose} />
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

interface FieldProps {
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  value: string;
  onInput: (event: { currentTarget: HTMLInputElement }) => void;
  type?: "text" | "tel" | "password";
  inputMode?: "text" | "tel" | "numeric";
  autocomplete?: string;
  maxLength?: number;
  required?: boolean;
  class?: string;
  "data-first"?: boolean;
}

export function Field({ label, hint, error, type = "text", ...input }: FieldProps): JSX.Element {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input id={id} aria-invalid={error ? true : undefined} aria-describedby={`${id}-note`} {...input} type={type as "text"} />
      <Note id={`${id}-note`} hint={hint} error={error} />
    </div>
  );
}

export function TextArea(props: {
  label: string;
  hint: string;
  rows: number;
  maxLength: number;
  value: string;
  onInput: (event: { currentTarget: HTMLTextAreaElement }) => void;
}): JSX.Element {
  const { label, hint, ...area } = props;
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea id={id} aria-describedby={`${id}-note`} {...area} />
      <Note id={`${id}-note`} hint={hint} />
    </div>
  );
}

function Note({ id, hint, error }: { id: string; hint?: string | undefined; error?: string | undefined }): JSX.Element {
  return (
    <p id={id} class={error ? "error" : "hint"} role={error ? "alert" : undefined}>
      {error ?? hint}
    </p>
  );
}

export interface Task {
  isBusy: boolean;
  error: string;
  code: string;
  /** The invalid field, if the server named one: "/mobile". */
  pointer: string;
  /** Resolves to whether it succeeded. */
  run: (work: () => Promise<unknown>) => Promise<boolean>;
  clear: () => void;
}

/** An action of a button: one at a time, with its error shown beside it. */
export function useTask(): Task {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const [code, setCode] = useState("");
  const [pointer, setPointer] = useState("");
  const busy = useRef(false);
  return {
    isBusy,
    error,
    code,
    pointer,
    clear() {
      setError("");
      setCode("");
      setPointer("");
    },
    async run(work) {
      if (busy.current) return false;
      busy.current = true;
      setBusy(true);
      try {
        await work();
        setError("");
        setCode("");
        setPointer("");
        return true;
      } catch (failure) {
        setError(problemText(failure));
        setCode(problemOf(failure)?.code ?? "");
        setPointer(problemOf(failure)?.errors?.[0]?.pointer ?? "");
        return false;
      } finally {
        busy.current = false;
        setBusy(false);
      }
    },
  };
}

export function Submit(props: { busy: boolean; children: ComponentChildren; kind?: string }): JSX.Element {
  return (
    <button type="submit" class={props.kind ?? "primary"} aria-disabled={props.busy} aria-busy={props.busy}>
      {props.busy && <span class="spinner small" />}
      {props.children}
    </button>
  );
}

export function Form(props: { onSubmit: () => void; children: ComponentChildren; class?: string; label?: string }): JSX.Element {
  return (
    <form
      class={props.class ?? ""}
      aria-label={props.label}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        props.onSubmit();
      }}
    >
      {props.children}
    </form>
  );
}

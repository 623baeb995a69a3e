// The dialogs of commands: each shows what the command will do, needs one confirmation, and keeps what was typed if it fails.

import { useComputed, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, command, routePath } from "./api";
import { endpointLevel, shares } from "./judge";
import { dismiss, type Done, done, type Order, order, record, undo } from "./orders";
import { Mark, Text } from "./parts";
import { entry } from "./store";
import { plural, visible } from "./text";
import type { CommandResult, Request, Route } from "./types";

export function openAdd(): void {
  order.value = { kind: "add" };
}

export function openHelp(): void {
  order.value = { kind: "help" };
}

/** The dialog that is open, if any. */
export function Dialogs() {
  const open = order.value;
  if (!open) return null;
  return <Dialog key={JSON.stringify([open.kind, "title" in open ? open.title : ""])} order={open} />;
}

function close(): void {
  order.value = null;
}

function Dialog({ order: open }: { order: Order }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby="dialog-title"
      onClose={close}
      onPointerDown={(event) => {
        // Beside a form, which would lose what was typed, a click does nothing.
        const hasText = open.kind !== "simple" && open.kind !== "help";
        if (event.target === dialog.current && !hasText) close();
      }}
    >
      <div class="inside">
        {open.kind === "simple" && <Simple order={open} />}
        {open.kind === "switch" && <Switch route={open.route} />}
        {open.kind === "weight" && <Weight order={open} />}
        {open.kind === "add" && <Add />}
        {open.kind === "help" && <Help />}
      </div>
    </dialog>
  );
}

/** What a dry run found out about the command that is being prepared. */
type Preview =
  | { state: "none" | "checking" }
  | { state: "ok"; result: CommandResult }
  | { state: "unknown" }
  | { state: "refused"; error: ApiError };

interface FormProps {
  title: string;
  verb: string;
  /** The command as it is now; null while something is missing. */
  request: Request | null;
  isHard?: boolean;
  children?: (preview: Preview) => ComponentChildren;
}

/** Checks the command while it changes, shows the effects, and executes it. */
function Form({ title, verb, request, isHard = false, children }: FormProps) {
  const preview = useSignal<Preview>({ state: request ? "checking" : "none" });
  const failure = useSignal<ApiError | null>(null);
  const isRunning = useSignal(false);
  const key = JSON.stringify(request);
  useEffect(() => {
    failure.value = null;
    if (!request) {
      preview.value = { state: "none" };
      return;
    }
    const stopped = new AbortController();
    const timer = setTimeout(async () => {
      if (preview.value.state === "none") preview.value = { state: "checking" };
      const found = await dryRun(request, stopped.signal);
      if (!stopped.signal.aborted) preview.value = found;
    }, preview.value.state === "checking" ? 0 : 200);
    return () => {
      stopped.abort();
      clearTimeout(timer);
    };
  }, [key]);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!request || isRunning.value) return;
    isRunning.value = true;
    try {
      record(await command(request, false));
      close();
    } catch (error) {
      failure.value = asApiError(error);
    }
    isRunning.value = false;
  };
  const { state } = preview.value;
  const isReady = request !== null && (state === "ok" || state === "unknown");
  return (
    <form onSubmit={submit}>
      <h2 id="dialog-title">{title}</h2>
      {children?.(preview.value)}
      <Effects preview={preview.value} hasFields={children !== undefined} />
      {failure.value && <Problem error={failure.value} />}
      <div class="buttons">
        <button type="submit" class={isHard ? "hard" : "primary"} aria-disabled={!isReady} disabled={!isReady || isRunning.value}>
          {isRunning.value ? "Working …" : verb}
        </button>
        <button type="button" onClick={close}>
          Cancel
        </button>
      </div>
    </form>
  );
}

async function dryRun(request: Request, signal: AbortSignal): Promise<Preview> {
  try {
    return { state: "ok", result: await command(request, true, signal) };
  } catch (error) {
    const known = asApiError(error);
    // An older ambassador has no dry runs.
    if (known.message.includes("dry_run") || known.status === 415) return { state: "unknown" };
    return { state: "refused", error: known };
  }
}

function asApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError(0, "the ambassador does not answer");
}

function Effects({ preview, hasFields }: { preview: Preview; hasFields: boolean }) {
  if (preview.state === "refused") return hasFields ? null : <Problem error={preview.error} />;
  const effects = preview.state === "ok" ? (preview.result.effects ?? []) : [];
  return (
    <div class="effects" aria-live="polite">
      {preview.state === "checking" && <p class="dim">Checking …</p>}
      {effects.length > 0 && (
        <>
          <h3>What this does</h3>
          <ul>
            {effects.map((effect) => (
              <li key={effect}>
                <Text>{effect}</Text>
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  );
}

/** An error with its ways out. */
function Problem({ error, id }: { error: ApiError; id?: string }) {
  const listed = error.diagnostics.length > 0 ? error.diagnostics : [{ message: error.message, help: null }];
  return (
    <div class="problem" role="alert" id={id}>
      {listed.map(({ message, help }, i) => (
        <p key={i}>
          <Mark level={3} size={10} />
          <span>
            <Text>{message}</Text>
            {help && (
              <span class="help">
                <Text>{help}</Text>
              </span>
            )}
          </span>
        </p>
      ))}
      {error.known.length > 0 && <p class="help">Known: {error.known.map(visible).join(", ")}</p>}
    </div>
  );
}

function Simple({ order: { title, verb, request, isHard } }: { order: Extract<Order, { kind: "simple" }> }) {
  return <Form title={title} verb={verb} request={request} isHard={isHard ?? false} />;
}

/** A line of text that the server checks. */
function Line({ id, label, value, onInput, preview, placeholder }: {
  id: string; label: string; value: string; onInput: (text: string) => void; preview: Preview; placeholder: string;
}) {
  const isBad = preview.state === "refused";
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        class="mono"
        autocomplete="off"
        autocapitalize="off"
        spellcheck={false}
        autofocus
        placeholder={placeholder}
        value={value}
        aria-invalid={isBad}
        aria-describedby={isBad ? `${id}-error` : undefined}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      {isBad && <Problem error={preview.error} id={`${id}-error`} />}
    </div>
  );
}

function Switch({ route }: { route: Route }) {
  const targets = useSignal("");
  const old = useSignal<"" | "drain" | "cut">("");
  const isTrial = useSignal(true);
  const timeout = useSignal("5m");
  const request = useComputed<Request | null>(() => {
    if (!targets.value.trim()) return null;
    const body: Record<string, unknown> = { targets: targets.value.trim() };
    if (old.value) body.old = old.value;
    if (isTrial.value) body.wait = true;
    if (isTrial.value && timeout.value.trim()) body.timeout = timeout.value.trim();
    return { method: "POST", path: routePath(route.name, "switch"), body };
  });
  return (
    <Form title={`Switch ${route.name}`} verb="Switch" request={request.value}>
      {(preview) => (
        <>
          <p class="now">
            Now: <span class="mono">{route.targets.join(", ")}</span>
          </p>
          <Line id="targets" label="New targets, separated by commas" placeholder="db2:5432" value={targets.value} onInput={(text) => (targets.value = text)} preview={preview} />
          <fieldset>
            <legend>Open sessions of the previous endpoints</legend>
            {([["", "follow the route's option on-remove"], ["drain", "finish"], ["cut", "are reset"]] as const).map(([value, label]) => (
              <label key={value} class="option">
                <input type="radio" name="old" checked={old.value === value} onChange={() => (old.value = value)} /> {label}
              </label>
            ))}
          </fieldset>
          <div class="trial">
            <label>
              <input type="checkbox" checked={isTrial.value} onChange={(event) => (isTrial.value = event.currentTarget.checked)} /> On trial:
              the new endpoints are used once they answer
            </label>
            <label class="within">
              Roll back if it is not complete within
              <input class="mono short" value={timeout.value} disabled={!isTrial.value} onInput={(event) => (timeout.value = event.currentTarget.value)} />
            </label>
          </div>
        </>
      )}
    </Form>
  );
}

function Weight({ order: { route, endpoint } }: { order: Extract<Order, { kind: "weight" }> }) {
  const weight = useSignal(endpoint.weight);
  const most = Math.max(10, ...route.endpoints.map((one) => one.weight), weight.value);
  const request = useComputed<Request | null>(() =>
    weight.value === endpoint.weight
      ? null
      : { method: "POST", path: routePath(route.name, "weight"), body: { endpoint: endpoint.address, weight: weight.value } },
  );
  const set = (text: string) => {
    weight.value = Math.max(0, Math.min(65_535, Math.round(Number(text) || 0)));
  };
  const changed = route.endpoints.map((one) => (one.address === endpoint.address ? { ...one, weight: weight.value } : one));
  const share = shares(changed);
  return (
    <Form title={`Weight of ${endpoint.description}`} verb="Set weight" request={request.value}>
      {(preview) => (
        <>
          <div class="slider">
            <input type="range" min={0} max={most} step={1} autofocus aria-label="Weight" value={weight.value} onInput={(event) => set(event.currentTarget.value)} />
            <input type="number" class="short" min={0} max={65_535} aria-label="Weight as a number" value={weight.value} onInput={(event) => set(event.currentTarget.value)} />
          </div>
          <table class="shares">
            <caption class="spoken">Share of new sessions by endpoint</caption>
            <tbody>
              {changed.slice(0, 12).map((one, i) => (
                <tr key={one.address} class={one.address === endpoint.address ? "this" : ""}>
                  <th scope="row">{one.description}</th>
                  <td class="n">{one.weight}</td>
                  <td class="barcell">
                    <span class="bar" style={{ width: `${100 * (share[i] ?? 0)}%` }} />
                  </td>
                  <td class="n">{endpointLevel(one) === 3 ? "failing" : `${Math.round(100 * (share[i] ?? 0))} %`}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {preview.state === "refused" && <Problem error={preview.error} />}
        </>
      )}
    </Form>
  );
}

function Add() {
  const line = useSignal("");
  const request: Request | null = line.value.trim() ? { method: "POST", path: "/routes", body: { route: line.value.trim() } } : null;
  return (
    <Form title="Add a route" verb="Add route" request={request}>
      {(preview) => (
        <>
          <Line id="line" label="LISTEN=TARGET[,TARGET...][?option=value&...]" placeholder="5432=db1:5432,db2:5432?name=pg&hold=30s" value={line.value} onInput={(text) => (line.value = text)} preview={preview} />
          {!line.value && (
            <p class="dim">
              The syntax is that of the command line. The route lasts until the next restart; for a permanent one, edit the
              configuration.
            </p>
          )}
        </>
      )}
    </Form>
  );
}

const KEYS: [string, string][] = [
  ["/", "search"],
  ["j k ↓ ↑", "next and previous route"],
  ["Enter", "open the details of a route"],
  ["Esc", "close, or clear the search"],
  ["p", "pause or resume the route"],
  ["s", "switch the route to other targets"],
  ["a", "add a route"],
  ["u", "undo the last change"],
  ["1 2 3", "routes, sessions, events"],
  ["t", "theme"],
  ["?", "this list"],
];

function Help() {
  return (
    <form method="dialog">
      <h2 id="dialog-title">Keys</h2>
      <dl class="keys">
        {KEYS.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys.split(" ").map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="dim">Every command shows what it does before it is confirmed. Changes last until the next restart.</p>
      <div class="buttons">
        <button type="submit" class="primary" autofocus>
          Close
        </button>
      </div>
    </form>
  );
}

/** The results of commands, with their undo. */
export function Results() {
  const [newest, ...earlier] = done.value;
  if (!newest) return null;
  return (
    <section class="results" aria-label="Result of the last command">
      <Result one={newest} />
      {earlier.length > 0 && (
        <details>
          <summary>{plural(earlier.length, "earlier change")} in this tab</summary>
          {earlier.map((one) => (
            <Result key={one.id} one={one} />
          ))}
        </details>
      )}
    </section>
  );
}

function Result({ one }: { one: Done }) {
  return (
    <div class="result">
      <div>
        <p>
          <Text>{one.message}</Text>
        </p>
        {one.error && <p class="l3">The undo failed: {visible(one.error)}</p>}
      </div>
      <div class="buttons">
        {one.undo && (
          <button type="button" class="primary" disabled={one.state === "undoing"} onClick={() => void undo(one)}>
            {one.state === "undoing" ? "Undoing …" : "Undo"}
          </button>
        )}
        <button type="button" class="quiet" aria-label="Dismiss" onClick={() => dismiss(one.id)}>
          Dismiss
        </button>
      </div>
    </div>
  );
}

/** The route of the details or of the cursor, for the keys. */
export function routeFor(name: string | null): Route | undefined {
  return name === null ? undefined : entry(name)?.route;
}

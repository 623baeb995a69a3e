// The live connection. One tab of a browser reads `/watch` and passes each message on to the others: a browser opens at most six
// connections to one origin, and the seventh tab would wait for ever. The tab that holds a lock is the one that reads.

import { ApiError, currentToken, send } from "./api";
import { addEvents, apply, asOf, lastSeq, link, type Link, type Message, snapshot, status, tick } from "./store";
import { parse } from "./text";
import type { Event, WholeStatus } from "./types";

/** The server sends at least a comment every 15 s. */
const SILENCE_MS = 35_000;
const RETRY_MAX_MS = 10_000;

type Note =
  | { to: "followers"; messages: Message[] }
  | { to: "followers"; link: Link }
  | { to: "followers"; alive: true }
  | { to: "followers"; snapshot: { status: WholeStatus; at_ms: number; events: Event[] }; link: Link }
  | { to: "leader"; hello: true };

let channel: BroadcastChannel | null = null;
let isLeader = false;
let stop: AbortController | null = null;
let wake: (() => void) | null = null;
let heardAt = 0;

/** Starts, or starts again with another token. */
export function start(): void {
  stop?.abort();
  channel?.close();
  const session = new AbortController();
  stop = session;
  isLeader = false;
  setLink({ state: "connecting" });
  // Without locks (a page that is neither HTTPS nor on loopback), each tab that can be seen has its own stream.
  if (!("locks" in navigator) || !("BroadcastChannel" in window)) {
    void whileVisible(session.signal);
    return;
  }
  // A tab with another token, or none, is on another channel.
  const name = `ambassador:${currentToken()}`;
  channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }: MessageEvent<Note>) => hear(data);
  tell({ to: "leader", hello: true });
  void lead(`ambassador:${hash(name)}`, session.signal, false);
}

/** Connects now if it is waiting for the next attempt. */
export function retry(): void {
  wake?.();
}

async function lead(name: string, signal: AbortSignal, steal: boolean): Promise<void> {
  heardAt = performance.now();
  // A leader that was frozen does not answer; its lock can be taken.
  const watchdog = setInterval(() => {
    const isSilent = performance.now() - heardAt > 2 * SILENCE_MS;
    if (isLeader || !isSilent || document.hidden || signal.aborted) return;
    heardAt = performance.now();
    void lead(name, signal, true);
  }, 5_000);
  signal.addEventListener("abort", () => clearInterval(watchdog));
  try {
    const options: LockOptions = steal ? { steal } : { signal };
    await navigator.locks.request(name, options, async () => {
      if (signal.aborted) return;
      isLeader = true;
      await run(signal);
    });
  } catch {
    // Stopped, or another tab took the lock.
    if (isLeader && !signal.aborted) start();
  } finally {
    clearInterval(watchdog);
  }
}

async function whileVisible(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    if (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
    const visible = new AbortController();
    const hide = () => document.hidden && visible.abort();
    document.addEventListener("visibilitychange", hide);
    await run(AbortSignal.any([signal, visible.signal]));
    document.removeEventListener("visibilitychange", hide);
  }
}

/** Reads the stream, again and again. */
async function run(signal: AbortSignal): Promise<void> {
  let failures = 0;
  let since: number | null = null;
  while (!signal.aborted) {
    let why = "the ambassador closed the connection";
    try {
      await read(signal, () => {
        failures = 0;
        since = null;
        setLink({ state: "live" });
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status === 401) {
        setLink({ state: "locked", why: currentToken() ? error.message : "" });
        return;
      }
      why = error instanceof ApiError ? error.message : "no answer";
    }
    if (signal.aborted) return;
    since ??= asOf() || Date.now();
    setLink({ state: "lost", since, why });
    const delay = Math.min(RETRY_MAX_MS, 500 * 2 ** failures) * (0.75 + Math.random() / 2);
    failures += 1;
    await new Promise<void>((done) => {
      const timer = setTimeout(done, delay);
      wake = () => {
        clearTimeout(timer);
        done();
      };
    });
    wake = null;
  }
}

async function read(signal: AbortSignal, connected: () => void): Promise<void> {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE_MS);
  try {
    const response = await send(`/watch?since=${lastSeq()}`, { signal: AbortSignal.any([signal, silent.signal]) });
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const decoder = new TextDecoder();
    const lines = new Lines();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE_MS);
      const messages = lines.push(decoder.decode(value, { stream: true }));
      if (messages.length > 0) {
        deliver(messages);
        tell({ to: "followers", messages });
        if (link.value.state !== "live" && messages.some((message) => message.kind === "status")) connected();
      } else {
        tell({ to: "followers", alive: true });
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Server-sent events, of which each has one line of data. */
class Lines {
  private pieces: string[] = [];
  private kind = "";

  push(text: string): Message[] {
    const found: Message[] = [];
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this.pieces.push(text.slice(from, end));
      const line = this.pieces.length === 1 ? (this.pieces[0] as string) : this.pieces.join("");
      this.pieces = [];
      from = end + 1;
      if (line.startsWith("event:")) this.kind = line.slice(6).trim();
      else if (line.startsWith("data:")) found.push(message(this.kind, line.slice(5)));
    }
    if (from < text.length) this.pieces.push(text.slice(from));
    return found;
  }
}

function message(kind: string, json: string): Message {
  const data = parse<Record<string, unknown>>(json);
  return (kind === "event" ? { kind, event: data } : { kind, ...data }) as Message;
}

function deliver(messages: Message[]): void {
  const fresh = messages.flatMap((one) => (one.kind === "event" ? one.event : []));
  if (fresh.length > 0) addEvents(fresh);
  for (const one of messages) if (one.kind !== "event") apply(one);
}

function hear(note: Note): void {
  heardAt = performance.now();
  if (note.to === "leader") {
    const whole = isLeader ? snapshot() : null;
    if (whole) tell({ to: "followers", snapshot: whole, link: link.value });
    return;
  }
  if (isLeader) return;
  if ("messages" in note) {
    // Without the whole status first, a change says nothing.
    const isUsable = status.value !== null || note.messages.some((one) => one.kind === "status");
    if (isUsable) deliver(note.messages);
    if (isUsable && link.value.state !== "live") link.value = { state: "live" };
  } else if ("snapshot" in note) {
    if (status.value === null) {
      apply({ kind: "status", at_ms: note.snapshot.at_ms, status: note.snapshot.status });
      addEvents(note.snapshot.events.slice().reverse());
    }
    link.value = note.link;
  } else if ("link" in note) {
    link.value = note.link;
  }
}

function setLink(state: Link): void {
  link.value = state;
  if (isLeader) tell({ to: "followers", link: state });
}

function tell(note: Note): void {
  channel?.postMessage(note);
}

/** The name of a lock can be listed by other scripts of the origin, so it does not contain the token. */
function hash(text: string): string {
  let [a, b] = [0xdeadbeef, 0x41c6ce57];
  for (let i = 0; i < text.length; i += 1) {
    a = Math.imul(a ^ text.charCodeAt(i), 2654435761);
    b = Math.imul(b ^ text.charCodeAt(i), 1597334677);
  }
  return ((a >>> 0) * 4096 + (b >>> 20)).toString(36);
}

setInterval(() => {
  if (!document.hidden) tick();
}, 1_000);
addEventListener("online", retry);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) retry();
});

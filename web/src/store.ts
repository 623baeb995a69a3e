// What the page knows: the status, kept up to date by the messages of `/watch`, and what follows from it.

import { computed, signal } from "@preact/signals";
import { isFailure, judge, type Verdict } from "./judge";
import type { Event, Route, Status, WholeStatus } from "./types";

/** The messages of `/watch`, as tabs pass them on. */
export type Message =
  | { kind: "status"; at_ms: number; status: WholeStatus }
  | { kind: "change"; at_ms: number; routes: Route[]; removed: string[]; rest?: Status | null }
  | { kind: "event"; event: Event };

/** A route with what was computed from it. */
export interface Entry {
  route: Route;
  /** When the ambassador sent it. */
  at: number;
  verdict: Verdict;
  /** New sessions per second. */
  rate: number;
  /** Failed ones of them per second. */
  failedRate: number;
  upRate: number;
  downRate: number;
  samples: Sample[];
}

interface Sample {
  at: number;
  sessions: number;
  failed: number;
  up: number;
  down: number;
}

const EVENTS_MAX = 1_000;
/** Rates are means over this time, so that they can be read. */
const WINDOW_MS = 5_000;

export type Link =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "lost"; since: number; why: string }
  | { state: "locked"; why: string };

export const link = signal<Link>({ state: "connecting" });
/** The status without its routes; null until the first message. */
export const status = signal<Status | null>(null);
/** Counts changes of any route. */
export const revision = signal(0);
/** The names of the routes, worst first, then by name. Replaced only when a route changes its level, or comes or goes. */
export const order = signal<string[]>([]);
export const events = signal<Event[]>([]);

const entries = new Map<string, Entry>();
const down = new Map<string, number>();
let clockOffset = 0;
let lastAt = 0;
let statusAt = 0;
let pendingEvents: Event[] = [];
let flushing = false;

export function entry(name: string): Entry | undefined {
  return entries.get(name);
}

/** Whether the ambassador keeps a history. */
export function hasHistory(): boolean {
  for (const { route } of entries.values()) return route.state_since !== undefined;
  return false;
}

/** The time of the server. */
export function now(): number {
  return performance.now() + clockOffset;
}

/** Returns the age now of what was that old in the status. */
export function age(ms: number): number {
  return ms + now() - statusAt;
}

/** When the last message was sent. */
export function asOf(): number {
  return lastAt;
}

export function lastSeq(): number {
  return (pendingEvents.at(-1) ?? events.value[0])?.seq ?? 0;
}

export function apply(message: Message): void {
  if (message.kind === "event") {
    addEvents([message.event]);
    return;
  }
  clockOffset = message.at_ms - performance.now();
  lastAt = message.at_ms;
  if (message.kind === "status") {
    const { routes, ...rest } = message.status;
    const isRestart = status.value?.started_at !== rest.started_at;
    if (isRestart) entries.clear();
    status.value = rest;
    statusAt = message.at_ms;
    const gone = new Set(entries.keys());
    for (const route of routes) gone.delete(route.name);
    update(routes, [...gone], message.at_ms);
  } else {
    if (message.rest) {
      status.value = message.rest;
      statusAt = message.at_ms;
    }
    update(message.routes, message.removed, message.at_ms);
  }
}

/** Everything, for a tab that has just been opened. */
export function snapshot(): { status: WholeStatus; at_ms: number; events: Event[] } | null {
  if (!status.value) return null;
  const routes = order.value.flatMap((name) => entries.get(name)?.route ?? []);
  return { status: { ...status.value, routes }, at_ms: lastAt, events: events.value };
}

function update(routes: Route[], removed: string[], at: number): void {
  let isReordered = false;
  for (const name of removed) isReordered = entries.delete(name) || isReordered;
  for (const route of routes) {
    const before = entries.get(route.name);
    const verdict = judge(route);
    if (verdict.level < 2) down.delete(route.name);
    isReordered ||= before?.verdict.level !== verdict.level;
    const samples = [...(before?.samples ?? []), sample(route, at)];
    entries.set(route.name, { ...rates(samples, at), route, at, verdict });
  }
  if (isReordered) order.value = sorted();
  settle(at);
  revision.value += 1;
}

function sample(route: Route, at: number): Sample {
  const endings = Object.entries(route.endings);
  const ended = endings.reduce((sum, [, number]) => sum + number, 0);
  const failed = endings.reduce((sum, [ending, number]) => sum + (isFailure(ending) ? number : 0), 0);
  return {
    at,
    sessions: route.sessions_total ?? ended + route.active,
    failed: route.failed_total ?? failed,
    up: route.bytes_up,
    down: route.bytes_down,
  };
}

function rates(samples: Sample[], at: number): Omit<Entry, "route" | "at" | "verdict"> {
  // The newest sample that is older than the window is its start.
  const start = Math.max(0, samples.findLastIndex((one) => one.at <= at - WINDOW_MS));
  const kept = samples.slice(start);
  const first = kept[0];
  const last = kept.at(-1);
  const seconds = first ? (at - first.at) / 1000 : 0;
  const per = (of: (one: Sample) => number) =>
    first && last && seconds > 0 ? Math.max(0, of(last) - of(first)) / Math.max(1, seconds) : 0;
  return {
    rate: per((one) => one.sessions),
    failedRate: per((one) => one.failed),
    upRate: per((one) => one.up),
    downRate: per((one) => one.down),
    samples: kept,
  };
}

/** A route that is not in the messages any more has not changed: its rates go down to 0. */
function settle(at: number): void {
  for (const [name, one] of entries) {
    const last = one.samples.at(-1);
    if (!last || last.at >= at || one.rate + one.failedRate + one.upRate + one.downRate === 0) continue;
    const still = [...one.samples, { ...last, at }];
    entries.set(name, { ...one, ...rates(still, at) });
  }
}

/** Lets the rates go down while no message is received. */
export function tick(): void {
  if (link.value.state !== "live") return;
  const at = now();
  if (at - lastAt < 1_500) return;
  settle(at);
  revision.value += 1;
}

function sorted(): string[] {
  const collator = new Intl.Collator("en", { numeric: true });
  const all = [...entries.values()];
  all.sort((a, b) => b.verdict.level - a.verdict.level || collator.compare(a.route.name, b.route.name));
  return all.map((one) => one.route.name);
}

/** Adds events, oldest first. They are shown at most four times a second. */
export function addEvents(more: Event[]): void {
  pendingEvents.push(...more);
  if (pendingEvents.length > 2 * EVENTS_MAX) pendingEvents = pendingEvents.slice(-EVENTS_MAX);
  if (flushing) return;
  flushing = true;
  setTimeout(flush, events.value.length === 0 ? 0 : 250);
}

function flush(): void {
  flushing = false;
  const newest = events.value[0]?.seq ?? 0;
  const isRestart = pendingEvents.some((event) => event.seq < newest && event.time > (events.value[0]?.time ?? ""));
  const kept = isRestart ? [] : events.value;
  const fresh = pendingEvents.filter((event) => isRestart || event.seq > newest);
  pendingEvents = [];
  if (fresh.length === 0) return;
  for (const event of fresh) note(event);
  events.value = [...fresh.reverse(), ...kept].slice(0, EVENTS_MAX);
}

const DOWN = new Set(["endpoint-ejected", "endpoint-unreachable", "route-down", "route-not-bound", "target-problem"]);
/** The end of an ejection is not among them: it is tried again then, and may fail again. */
const UP = new Set(["route-up", "endpoint-reachable", "endpoint-healthy", "route-opened", "route-closed"]);

/** Keeps the first event of each failure. */
function note(event: Event): void {
  if (!event.route) return;
  if (UP.has(event.event)) down.delete(event.route);
  else if (DOWN.has(event.event) && !down.has(event.route)) down.set(event.route, Date.parse(event.time));
}

export interface Totals {
  routes: number;
  levels: [number, number, number, number];
  active: number;
  held: number;
  rate: number;
  failedRate: number;
  upRate: number;
  downRate: number;
}

export const totals = computed<Totals>(() => {
  revision.value;
  const sum: Totals = {
    routes: entries.size, levels: [0, 0, 0, 0], active: 0, held: 0, rate: 0, failedRate: 0, upRate: 0, downRate: 0,
  };
  for (const { route, verdict, ...one } of entries.values()) {
    sum.levels[verdict.level] += 1;
    sum.active += route.active;
    sum.held += route.held;
    sum.rate += one.rate;
    sum.failedRate += one.failedRate;
    sum.upRate += one.upRate;
    sum.downRate += one.downRate;
  }
  return sum;
});

/** Returns the routes of the two worst levels, worst first. */
export const worst = computed<Entry[]>(() => {
  revision.value;
  const list: Entry[] = [];
  for (const name of order.value) {
    const one = entries.get(name);
    if (!one || one.verdict.level < 2 || list.length >= 3) break;
    list.push(one);
  }
  return list;
});

/** Returns since when a route fails, has a flaw or is paused, if that is known. */
export function since({ route, verdict }: Entry): number | null {
  if (verdict.level === 0) return null;
  if (route.state_since && route.severity) return Date.parse(route.state_since);
  return verdict.level >= 2 ? (down.get(route.name) ?? null) : null;
}

// Commands: what is asked before, and what can be undone after.

import { signal } from "@preact/signals";
import { ApiError, command, routePath } from "./api";
import { say } from "./parts";
import type { CommandResult, Endpoint, Request, Route } from "./types";

/** What the dialog asks for. */
export type Order =
  | { kind: "simple"; title: string; verb: string; request: Request; isHard?: boolean }
  | { kind: "switch"; route: Route }
  | { kind: "weight"; route: Route; endpoint: Endpoint }
  | { kind: "add" }
  | { kind: "help" };

/** The dialog that is open. */
export const order = signal<Order | null>(null);

/** What was done in this tab, newest first. */
export interface Done {
  id: number;
  message: string;
  undo: Request | null;
  state: "done" | "undoing" | "undone" | "failed";
  error?: string;
}

export const done = signal<Done[]>([]);
let nextId = 1;
const DONE_MAX = 20;

/** Records the result of a command. */
export function record(result: CommandResult): Done {
  const { message, undo = null } = result;
  const entry: Done = { id: nextId++, message, undo, state: "done" };
  done.value = [entry, ...done.value].slice(0, DONE_MAX);
  say(message);
  return entry;
}

function change(id: number, to: Partial<Done>): void {
  done.value = done.value.map((one) => (one.id === id ? { ...one, ...to } : one));
}

export function dismiss(id: number): void {
  done.value = done.value.filter((one) => one.id !== id);
}

export async function undo(one: Done): Promise<void> {
  if (!one.undo || one.state === "undoing") return;
  change(one.id, { state: "undoing" });
  try {
    const result = await command(one.undo, false);
    dismiss(one.id);
    record(result);
  } catch (error) {
    change(one.id, { state: "failed", error: error instanceof ApiError ? error.message : "no answer" });
  }
}

export function pauseOrResume(route: Route): void {
  const { name } = route;
  const verb = route.by_hand.paused ? "resume" : "pause";
  order.value = {
    kind: "simple",
    title: `${verb === "pause" ? "Pause" : "Resume"} ${route.name}`,
    verb: verb === "pause" ? "Pause" : "Resume",
    request: { method: "POST", path: routePath(name, verb), body: {} },
  };
}

export function drain(route: Route, endpoint: Endpoint): void {
  const undo = endpoint.drained;
  order.value = {
    kind: "simple",
    title: undo ? `Use ${endpoint.address} again` : `Drain ${endpoint.address}`,
    verb: undo ? "Use again" : "Drain",
    request: { method: "POST", path: routePath(route.name, "drain"), body: { endpoint: endpoint.address, undo } },
  };
}

export function resetSwitch(route: Route): void {
  order.value = {
    kind: "simple",
    title: `Restore the configured targets of ${route.name}`,
    verb: "Restore",
    request: { method: "POST", path: routePath(route.name, "switch"), body: { reset: true } },
  };
}

export function resetWeight(route: Route, endpoint: string): void {
  order.value = {
    kind: "simple",
    title: `Reset the weight of ${endpoint}`,
    verb: "Reset",
    request: { method: "POST", path: routePath(route.name, "weight"), body: { endpoint, reset: true } },
  };
}

export function remove(route: Route): void {
  order.value = {
    kind: "simple",
    title: `Remove ${route.name}`,
    verb: "Remove",
    isHard: true,
    request: { method: "DELETE", path: routePath(route.name) },
  };
}

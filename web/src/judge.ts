// How bad the state of a route is, and in which words.

import { count, plural } from "./text";
import type { Endpoint, Route } from "./types";

/** 3: clients wait or are refused; 2: part of it fails; 1: changed by hand; 0: as configured. */
export type Level = 0 | 1 | 2 | 3;

export interface Verdict {
  level: Level;
  /** The state, for a line of its own: "no endpoint". */
  word: string;
  /** After the route's name, for a sentence: "has no endpoint". */
  clause: string;
  /** Why, from the worst endpoint: "10.0.0.2:5432: connection refused". */
  why: string | null;
}

/** Endings that an operator wants to know about, for an ambassador that does not count them itself. */
const FAILURES = new Set([
  "upstream-reset", "no-endpoint", "connect-failed", "hold-expired", "hold-full", "too-many", "unhealthy", "local",
  "peer-refused", "tunnel-lost", "peer-revoked", "tls-failed",
]);

export function isFailure(ending: string): boolean {
  return FAILURES.has(ending);
}

/** Returns why an endpoint takes no new sessions, or an empty list. In the words of `ambassador status`. */
export function flaws(endpoint: Endpoint): string[] {
  const words: string[] = [];
  if (endpoint.drained) words.push("drained");
  if (endpoint.health === "unknown") words.push("not checked yet");
  else if (endpoint.health && endpoint.health !== "healthy") words.push(endpoint.health);
  if (endpoint.ejected) words.push(endpoint.ejected);
  if (endpoint.failing && !endpoint.ejected && endpoint.health !== "unhealthy") words.push("unreachable");
  return words;
}

/** Returns how bad the state of an endpoint is. */
export function endpointLevel(endpoint: Endpoint): Level {
  const bad = flaws(endpoint).filter((word) => word !== "not checked yet");
  if (bad.length === 0) return 0;
  return bad.every((word) => word === "drained") ? 1 : 3;
}

/** Returns for each endpoint its share of the new sessions, from 0 to 1: the first tier that has one that takes sessions. */
export function shares(endpoints: Endpoint[]): number[] {
  const takes = endpoints.map((endpoint) => endpointLevel(endpoint) === 0 && endpoint.weight > 0);
  const first = endpoints.find((_, i) => takes[i]);
  const inUse = endpoints.map((e, i) => takes[i] === true && e.backup === first?.backup && e.tier === first?.tier);
  const sum = endpoints.reduce((total, endpoint, i) => total + (inUse[i] ? endpoint.weight : 0), 0);
  return endpoints.map((endpoint, i) => (inUse[i] && sum > 0 ? endpoint.weight / sum : 0));
}

const CLAUSES: Record<string, string> = {
  "no endpoint": "has no endpoint",
  "not bound": "is not bound",
  "out of descriptors": "is out of descriptors",
  unhealthy: "is unhealthy",
  unreachable: "is unreachable",
  drained: "is drained",
};

export function judge(route: Route): Verdict {
  const { state, endpoints } = route;
  const failing = endpoints.filter((endpoint) => endpointLevel(endpoint) === 3);
  const why = failing.map(reason).find((text) => text !== null) ?? route.problems[0] ?? null;
  if (state === "held") {
    const clause = `holds ${plural(route.held, "session")}`;
    return { level: failing.length === endpoints.length ? 3 : 2, word: `holding ${count(route.held)}`, clause, why };
  }
  if (state === "paused") {
    const word = route.held > 0 ? `paused, holding ${count(route.held)}` : "paused";
    return { level: 1, word, clause: "is paused", why: null };
  }
  if (state === "drained" || state === "not checked yet") {
    return { level: 1, word: state, clause: CLAUSES[state] ?? `is ${state}`, why: null };
  }
  if (state !== "ok") return { level: 3, word: state, clause: CLAUSES[state] ?? state, why };
  if (failing.length > 0) {
    const word = flaws(failing[0] as Endpoint)[0] ?? "failing";
    const of = `${failing.length} of ${endpoints.length} endpoints`;
    const verb = word === "unreachable" || word === "unhealthy" ? `${of} ${word}` : `${of}: ${word}`;
    return { level: 2, word: verb, clause: `has ${verb}`, why };
  }
  if (route.problems.length > 0) return { level: 2, word: "target problem", clause: "has a problem", why };
  const byHand = changes(route);
  return { level: byHand ? 1 : 0, word: byHand ?? "ok", clause: byHand ? `is ${byHand}` : "is ok", why: null };
}

function changes(route: Route): string | null {
  const { by_hand: hand } = route;
  if (hand.switch?.state === "on-trial") return "switch on trial";
  if (hand.instead_of) return "switched by hand";
  if (hand.drained.length > 0) return "drained in part";
  if (Object.keys(hand.weights).length > 0) return "weighted by hand";
  return null;
}

function reason(endpoint: Endpoint): string | null {
  const why = endpoint.failing && endpoint.last_error ? endpoint.last_error : flaws(endpoint).at(-1);
  return why ? `${endpoint.address}: ${why}` : null;
}

/** What to check, as in the notes of `ambassador status`. */
export function advice(endpoint: Endpoint): string | null {
  if (!endpoint.failing) return null;
  if (endpoint.help) return endpoint.help;
  switch (endpoint.last_error) {
    case "connection refused":
      return "no program listens there; is the service started, and on this port?";
    case "connection timed out":
      return "no answer; is the host up, and does a firewall drop the packets?";
    case "network is unreachable":
    case "host is unreachable":
      return "there is no route to it; do the containers share a network?";
    case "no such file or directory":
      return "is the service started, and its socket mounted?";
    case "permission denied":
      return "may the ambassador's user connect to it?";
    default:
      return null;
  }
}

// The JSON of the admin API. A field with `?` is absent in the responses of an older ambassador.

export interface Status {
  version: string;
  started_at?: string;
  draining: boolean;
  lost: Record<string, string>;
  config?: Config | null;
  mistakes: string[];
  notices?: string[];
  removed: string[];
  workers: number[];
  peering?: Peering | null;
  tls?: Tls | null;
  sources?: Source[];
}

export interface WholeStatus extends Status {
  routes: Route[];
}

export interface Source {
  name: string;
  state: "ok" | "waiting" | "lost";
  answered_ms_ago: number | null;
  why: string | null;
}

export interface Config {
  path: string;
  ok: boolean;
  loaded_at: string;
  error: string | null;
  refused_at: string | null;
}

export interface Route {
  /** Of letters, digits and `._-/:[]@+~*`. */
  name: string;
  state: string;
  listen: string;
  addresses: string[];
  targets: string[];
  origin: string;
  balance: string;
  endpoints: Endpoint[];
  leaving: Endpoint[];
  by_hand: ByHand;
  descriptors?: { used: number; guaranteed: number; accept_paused: boolean };
  active: number;
  held: number;
  bytes_up: number;
  bytes_down: number;
  endings: Record<string, number>;
  problems: string[];
  /** The route with its options, in the syntax of an argument. */
  line?: string;
  sessions_total?: number;
  failed_total?: number;
  /** 0 if it is ok. */
  severity?: number;
  /** Since when it is ok, has a flaw, is paused or fails. */
  state_since?: string;
  last_failure?: { ending: string; at: string } | null;
}

export interface Endpoint {
  address: string;
  description: string;
  backup: boolean;
  tier: number;
  weight: number;
  drained: boolean;
  sessions: number;
  health?: string | null;
  ejected?: string | null;
  last_error?: string | null;
  last_error_ms_ago?: number | null;
  help?: string | null;
  failing?: boolean;
}

export interface ByHand {
  paused: boolean;
  instead_of: string[] | null;
  weights: Record<string, number>;
  drained: string[];
  switch: { number: number; state: "on-trial" | "kept" | "rolled-back"; why?: string | null } | null;
  waiting: boolean;
}

export interface Certificate {
  name: string;
  identity: string;
  path: string;
  not_after: string;
  expires_in_seconds: number;
}

export interface Tls {
  certificates: Certificate[];
  refused: string[];
  warnings: string[];
}

export interface Peering {
  identity: string;
  credentials: string;
  listen: string[];
  exports: string[];
  peers: Peer[];
  certificates: Certificate[];
  refused: string | null;
  warnings: string[];
}

export interface Peer {
  peer: string;
  address: string;
  direction: string;
  state: string;
  tunnels: number;
  sessions: number;
  rtt_us: number | null;
  age_ms: number | null;
  bytes_sent: number;
  bytes_received: number;
  last_error: string | null;
  last_error_ms_ago: number | null;
  help: string | null;
}

export interface Event {
  seq: number;
  time: string;
  event: string;
  message: string;
  route?: string;
  endpoint?: string;
  why?: string;
  [field: string]: unknown;
}

export interface Session {
  route: string;
  client: string;
  endpoint: string | null;
  peer?: string | null;
  state: "held" | "relaying";
  age_ms: number;
  bytes_up: number;
  bytes_down: number;
  worker: number;
}

/** Numbers of a route over time; `null` where nothing was sampled. */
export interface Series {
  sessions: (number | null)[];
  failed: (number | null)[];
  held: (number | null)[];
  active: (number | null)[];
  bytes: (number | null)[];
}

export interface History {
  end_ms: number;
  step_ms: number;
  routes: Record<string, Series>;
}

/** A command of the admin API. */
export interface Request {
  method: string;
  path: string;
  body?: Record<string, unknown> | null;
}

export interface CommandResult {
  message: string;
  effects?: string[];
  undo?: Request | null;
  route?: Route | null;
  dry_run?: boolean;
}

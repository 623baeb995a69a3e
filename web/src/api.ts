// Requests to the admin API, with the token of the page's address.

import { parse } from "./text";
import type { CommandResult, Request } from "./types";

const KEY = "ambassador-token";

/** An error response, or no response. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly known: string[] = [],
    readonly diagnostics: { message: string; help?: string | null }[] = [],
  ) {
    super(message);
  }
}

let token = "";

/** Takes the token from the fragment, where it does not stay, or from the tab's storage. */
export function readToken(): void {
  const found = /^#(?:.*&)?token=([^&]*)/.exec(location.hash);
  if (found?.[1] !== undefined) {
    keepToken(decodeURIComponent(found[1]));
    history.replaceState(null, "", location.pathname);
  } else {
    token = sessionStorage.getItem(KEY) ?? "";
  }
}

export function keepToken(text: string): void {
  token = text.trim();
  sessionStorage.setItem(KEY, token);
}

export function currentToken(): string {
  return token;
}

/** Sends a request. Any response that is not a success is an `ApiError`. */
export async function send(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token) headers.set("authorization", `Bearer ${token}`);
  const response = await fetch(path, { ...init, headers, cache: "no-store", redirect: "error" });
  if (response.ok) return response;
  const text = await response.text();
  let body: { error?: string; known?: string[]; diagnostics?: { message: string; help?: string | null }[] } = {};
  try {
    body = JSON.parse(text);
  } catch {
    // Not JSON: the text itself is the error.
  }
  const message = body.error ?? (text.slice(0, 300) || `${response.status} ${response.statusText}`);
  throw new ApiError(response.status, message, body.known, body.diagnostics);
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, signal ? { signal } : {});
  return parse<T>(await response.text());
}

/** Executes a command, or returns what it would do. */
export async function command(request: Request, dryRun: boolean, signal?: AbortSignal): Promise<CommandResult> {
  const init: RequestInit = { method: request.method };
  if (signal) init.signal = signal;
  let path = request.path;
  if (request.method === "DELETE") {
    if (dryRun) path += "?dry_run=true";
  } else {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify({ ...request.body, ...(dryRun ? { dry_run: true } : {}) });
  }
  const response = await send(path, init);
  return (await response.json()) as CommandResult;
}

/** Returns the path of a command for a route. */
export function routePath(name: string, verb?: string): string {
  const path = `/routes/${encodeURIComponent(name)}`;
  return verb ? `${path}/${verb}` : path;
}

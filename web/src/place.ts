// Where the page is: the view and the route that is open, in the fragment of the address, so that Back works.

import { signal } from "@preact/signals";

export type View = "routes" | "sessions" | "events";

export interface Place {
  view: View;
  /** The route whose details are open. */
  route: string | null;
}

export const place = signal<Place>(read());
/** What is searched for, in each view. */
export const search = { routes: signal(""), sessions: signal(""), events: signal("") };

function read(): Place {
  const [view, name] = location.hash.replace(/^#\/?/, "").split("/");
  if (view === "route" && name) return { view: "routes", route: decodeURIComponent(name) };
  return { view: view === "sessions" || view === "events" ? view : "routes", route: null };
}

export function link(to: Partial<Place>): string {
  if (to.route) return `#/route/${encodeURIComponent(to.route)}`;
  return `#/${to.view ?? "routes"}`;
}

export function go(to: Partial<Place>): void {
  location.hash = link(to);
}

addEventListener("hashchange", () => {
  place.value = read();
});

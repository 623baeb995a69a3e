// Events as a time line.

import { computed, signal } from "@preact/signals";
import { memo } from "./memo";
import { Mark, Text, Time } from "./parts";
import { link, search } from "./place";
import { events } from "./store";
import { day, plural } from "./text";
import type { Event } from "./types";
import type { Level } from "./judge";

type Group = "all" | "problems" | "by hand" | "endpoints" | "routes" | "sources" | "peers";
const GROUPS: Group[] = ["all", "problems", "by hand", "endpoints", "routes", "sources", "peers"];

/** The filter beside the search. */
export const kinds = signal<{ group: Group; route: string }>({ group: "all", route: "" });

const LEVELS: Record<string, Level> = {
  "route-not-bound": 3, "file-refused": 3, "credentials-refused": 3, "certificate-refused": 3, "route-down": 3,
  "endpoint-ejected": 2, "endpoint-unreachable": 2, "source-lost": 2, "source-expired": 2, mistake: 2,
  "switch-rolled-back": 2, "peer-down": 2, "certificate-expiring": 2, "target-problem": 2,
  paused: 1, resumed: 1, switched: 1, "switch-reset": 1, "endpoint-weighted": 1, "endpoint-drained": 1,
  "endpoint-undrained": 1, "route-added": 1, "route-removed": 1,
};

function level(event: Event): Level {
  return LEVELS[event.event] ?? 0;
}

function isIn(event: Event, group: Group): boolean {
  const kind = event.event;
  switch (group) {
    case "all":
      return true;
    case "problems":
      return level(event) >= 2;
    case "by hand":
      return level(event) === 1 || kind === "switch-rolled-back";
    case "endpoints":
      return kind.startsWith("endpoint-") || kind === "target-problem";
    case "routes":
      return kind.startsWith("route-");
    case "sources":
      return kind.startsWith("source-") || kind.startsWith("file-") || kind === "mistake" || kind === "notice";
    case "peers":
      return kind.startsWith("peer-") || kind.startsWith("tunnel-") || kind.startsWith("cert") || kind.startsWith("credentials-");
  }
}

const OWN_FIELDS = new Set(["seq", "time", "event", "message", "route"]);

/** Returns the fields of an event besides its message and route. */
function fields(event: Event, isShort: boolean): [string, string][] {
  const isShown = (key: string) => !OWN_FIELDS.has(key) && !(isShort && (key === "line" || key === "origin"));
  return Object.entries(event).filter(([key]) => isShown(key)).map(([key, value]) => [key, String(value)]);
}

const filtered = computed<Event[]>(() => {
  const { group, route } = kinds.value;
  const words = search.events.value.toLowerCase().split(/\s+/).filter(Boolean);
  return events.value.filter((event) => {
    if (!isIn(event, group) || (route && event.route !== route)) return false;
    if (words.length === 0) return true;
    const text = Object.values(event).join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
});

const routesOfEvents = computed(() => [...new Set(events.value.flatMap((event) => event.route ?? []))].sort());

export function Events() {
  const shown = filtered.value;
  const { group, route } = kinds.value;
  let lastDay = "";
  const today = day(Date.now());
  return (
    <section class="timeline" aria-labelledby="events-title">
      <h2 id="events-title" class="spoken">
        Events
      </h2>
      <div class="filters">
        <div class="choice" role="group" aria-label="Kinds of events">
          {GROUPS.map((one) => (
            <button key={one} type="button" aria-pressed={group === one} onClick={() => (kinds.value = { ...kinds.value, group: one })}>
              {one}
            </button>
          ))}
        </div>
        <label class="pick">
          <span>Route</span>
          <select value={route} onChange={(event) => (kinds.value = { ...kinds.value, route: event.currentTarget.value })}>
            <option value="">all</option>
            {routesOfEvents.value.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <span class="note">{plural(shown.length, "event")}</span>
      </div>
      {shown.length === 0 && <p class="dim empty">{events.value.length === 0 ? "Nothing has happened yet." : "No event matches."}</p>}
      <ol class="events">
        {shown.map((event) => {
          const itsDay = day(Date.parse(event.time));
          const heading = itsDay !== lastDay && itsDay !== today ? itsDay : null;
          lastDay = itsDay;
          return <EventLine key={event.seq} event={event} heading={heading} />;
        })}
      </ol>
    </section>
  );
}

interface EventProps {
  event: Event;
  isOwn?: boolean;
  isShort?: boolean;
  heading?: string | null;
}

/** One event. `isShort` leaves out the route's configuration, `isOwn` leaves out the route, which is evident. */
export const EventLine = memo(function EventLine({ event, isOwn = false, isShort = false, heading = null }: EventProps) {
  const itsLevel = level(event);
  return (
    <li class={`l${itsLevel}`}>
      {heading && <h3>{heading}</h3>}
      <Time ms={Date.parse(event.time)} />
      <Mark level={itsLevel} size={10} />
      <div>
        {!isOwn && event.route && (
          <a href={link({ route: event.route })} class="of">
            {event.route}
          </a>
        )}
        <p>
          <span class="message">{event.message}</span>
          <span class="fields">
            {fields(event, isShort).map(([key, value]) => (
              <span key={key}>
                {key !== "why" && key !== "endpoint" && key !== "peer" && <i>{key.replace("_", " ")} </i>}
                <Text>{value}</Text>
              </span>
            ))}
          </span>
        </p>
      </div>
    </li>
  );
});

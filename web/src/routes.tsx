// The list of routes, worst first.

import { computed, signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { Flow, targets, Targets } from "./flow";
import { recent, Spark } from "./history";
import { isNarrow, isWide, Mark, Time, useRange } from "./parts";
import { go, link, place, search } from "./place";
import { type Entry, entry, events, order, revision, since } from "./store";
import { count, plural, rate } from "./text";
import { openAdd } from "./dialogs";

/** The names of the routes that are searched for. The order is that of `order`. */
export const found = computed<string[]>(() => {
  const words = search.routes.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return order.value;
  return order.value.filter((name) => {
    const one = entry(name);
    if (!one) return false;
    const { route, verdict } = one;
    const ends = route.endpoints.map((endpoint) => endpoint.description).join(" ");
    const text = `${name} ${route.listen} ${route.targets.join(" ")} ${ends} ${route.origin} ${verdict.word}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
});

/** The route that the keys apply to. */
export const cursor = signal<string | null>(null);

/** Whether a long list is not cut off. */
const showsAll = signal(false);

/** Of more routes than this, those that are as they should be have one line. */
const SPACIOUS_MAX = 30;

/** Routes that someone should look at have three lines. */
const TALL = 80;
const TALL_NARROW = 108;

/** The height of the other rows, and how many endpoints they have space for. */
function calm(routes: number): { height: number; lines: number } {
  const isSpacious = routes <= SPACIOUS_MAX;
  if (isNarrow.value) return { height: isSpacious ? 80 : 68, lines: 1 };
  return isSpacious ? { height: 56, lines: 2 } : { height: 40, lines: 1 };
}

export function Routes() {
  revision.value;
  events.value;
  const all = found.value;
  // Without a second column, the rest of the page is below the list.
  const isShort = !isWide.value && !showsAll.value && all.length > SPACIOUS_MAX + 10;
  const names = isShort ? all.slice(0, SPACIOUS_MAX) : all;
  const list = useRef<HTMLDivElement>(null);
  const tall = useMemo(() => {
    const firstGood = names.findIndex((name) => (entry(name)?.verdict.level ?? 0) === 0);
    return firstGood < 0 ? names.length : firstGood;
  }, [names]);
  const tallHeight = isNarrow.value ? TALL_NARROW : TALL;
  const { height, lines } = calm(all.length);
  const top = (row: number) => Math.min(row, tall) * tallHeight + Math.max(0, row - tall) * height;
  const at = (y: number) => (y < top(tall) ? Math.floor(y / tallHeight) : tall + Math.floor((y - top(tall)) / height));
  const { first, last } = useRange(list, names.length, at);
  const reveal = cursor.value;
  useEffect(() => {
    const row = reveal === null ? -1 : names.indexOf(reveal);
    if (row < 0 || !list.current) return;
    show(list.current.getBoundingClientRect().top + top(row), row < tall ? tallHeight : height);
    requestAnimationFrame(() => document.getElementById(`route-${row}`)?.focus({ preventScroll: true }));
  }, [reveal]);
  if (names.length === 0) return <Empty />;
  return (
    <>
      <div class={`routes${recent.value ? " with-history" : ""}`} role="table" aria-label="Routes, worst first" aria-rowcount={all.length + 1}>
        <Head />
        <div class="window" role="rowgroup" ref={list} style={{ height: `${top(names.length)}px` }}>
          {names.slice(first, last).map((name, i) => {
            const row = first + i;
            const one = entry(name);
            const place = row < tall ? { top: top(row), height: tallHeight } : { top: top(row), height };
            return one && <Row key={name} one={one} row={row} limit={row < tall ? 3 : lines} {...place} />;
          })}
        </div>
      </div>
      {isShort && (
        <button type="button" class="more" onClick={() => (showsAll.value = true)}>
          Show all {plural(all.length, "route")}
        </button>
      )}
    </>
  );
}

/** Scrolls so that a part of the page can be seen below the bar. */
function show(top: number, height: number): void {
  const bar = 72;
  if (top < bar) scrollBy({ top: top - bar });
  else if (top + height > innerHeight - 16) scrollBy({ top: top + height - innerHeight + 16 });
}

function Head() {
  return (
    <div class="row head" role="row">
      <span role="columnheader">Route</span>
      <span role="columnheader" class="listen">Listener</span>
      <span role="columnheader" class="to">Endpoints</span>
      {recent.value && <span role="columnheader" class="history">10 minutes</span>}
      <span role="columnheader" class="n">New</span>
      <span role="columnheader" class="n">Open</span>
      <span role="columnheader" class="n">Held</span>
    </div>
  );
}

interface RowProps {
  one: Entry;
  row: number;
  /** Of endpoints. */
  limit: number;
  top: number;
  height: number;
}

function Row({ one, row, limit, top, height }: RowProps) {
  const { route, verdict } = one;
  const lines = targets(route, isNarrow.value ? Math.min(2, limit) : limit);
  const isOpen = place.value.route === route.name;
  const paused = route.by_hand.paused;
  return (
    <div
      class={`row l${verdict.level}${isOpen ? " open" : ""}`}
      role="row"
      aria-rowindex={row + 2}
      style={{ transform: `translateY(${top}px)`, height: `${height}px` }}
      onClick={(event) => {
        if (!(event.target as Element).closest("a") && !getSelection()?.toString()) go({ route: route.name });
      }}
    >
      <div role="cell" class="name">
        <Mark level={verdict.level} />
        <div>
          <a
            id={`route-${row}`}
            href={link({ route: route.name })}
            aria-current={isOpen ? "true" : undefined}
            onFocus={() => (cursor.value = route.name)}
          >
            {route.name}
          </a>
          {(verdict.level > 0 || (limit > 1 && route.last_failure)) && <State one={one} />}
        </div>
      </div>
      <div role="cell" class="listen" title={route.addresses.join(", ")}>
        <Listener listen={route.listen} isShort={limit === 1} />
      </div>
      <div role="cell" class="to">
        <Flow lines={lines} isPaused={paused} />
        <Targets lines={lines} />
      </div>
      {recent.value && (
        <div role="cell" class="history">
          <Spark series={recent.value.routes[route.name]} height={limit > 1 ? 32 : 24} />
        </div>
      )}
      <div role="cell" class={`n rate ${one.rate < 0.05 ? "zero" : ""}`}>
        {rate(one.rate)}
        <span class="unit">/s</span>
        {one.failedRate >= 0.05 && <span class="fail l3">{rate(one.failedRate)} failed/s</span>}
      </div>
      <div role="cell" class={`n ${route.active === 0 ? "zero" : ""}`}>{count(route.active)}</div>
      <div role="cell" class={`n ${route.held > 0 ? "l2" : "zero"}`}>{count(route.held)}</div>
    </div>
  );
}

/** The port or the name of the socket, and below it the address or the directory. */
function Listener({ listen, isShort }: { listen: string; isShort: boolean }) {
  const split = listen.lastIndexOf(listen.startsWith("/") ? "/" : ":");
  const [place, port] = [listen.slice(0, Math.max(0, split)), listen.slice(split + 1)];
  return (
    <>
      <span class="port">{port}</span>
      {place && !isShort && <span class="word">{place}</span>}
    </>
  );
}

/** The state of a route and since when, or its last failure. */
function State({ one: { route, verdict, ...rest } }: { one: Entry }) {
  const at = since({ route, verdict, ...rest });
  const failure = route.last_failure;
  if (verdict.level === 0) {
    return <span class="word">last failure {failure && <Time ms={Date.parse(failure.at)} />}</span>;
  }
  return (
    <>
      <span class="word">
        <b>{verdict.word}</b>
      </span>
      {at !== null && (
        <span class="word">
          since <Time ms={at} />
        </span>
      )}
    </>
  );
}

function Empty() {
  if (search.routes.value) {
    return (
      <div class="empty">
        <p>No route matches “{search.routes.value}”.</p>
        <button type="button" onClick={() => (search.routes.value = "")}>
          Show all {plural(order.value.length, "route")}
        </button>
      </div>
    );
  }
  return (
    <div class="empty">
      <h2>Add the first route</h2>
      <p>A route connects a listener to one or more endpoints of a service:</p>
      <pre>
        6379=redis:6379{"\n"}5432=db1:5432,db2:5432?hold=30s{"\n"}8080=docker://web
      </pre>
      <button type="button" class="primary" onClick={openAdd}>
        Add a route
      </button>
      <p class="dim">
        Routes of arguments, labels and the configuration file appear here as well. A route that is added here lasts until the next
        restart.
      </p>
    </div>
  );
}

/** Moves the cursor by so many routes. */
export function move(by: number): void {
  const names = found.value;
  const from = cursor.value === null ? -1 : names.indexOf(cursor.value);
  const to = from < 0 ? (by > 0 ? 0 : names.length - 1) : Math.max(0, Math.min(names.length - 1, from + by));
  const name = names[to];
  if (name === undefined) return;
  if (to >= SPACIOUS_MAX) showsAll.value = true;
  if (name === cursor.value) cursor.value = null;
  cursor.value = name;
}

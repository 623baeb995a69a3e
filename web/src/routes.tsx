// The list of routes, worst first.

import { computed, signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { Flow, targets, Targets } from "./flow";
import { recent, Spark } from "./history";
import { isNarrow, Mark, Time, useRange } from "./parts";
import { go, link, place, search } from "./place";
import { type Entry, entry, order, revision, since } from "./store";
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

/** So many routes are shown with space around them; of more, those that are as they should be have one line. */
const SPACIOUS_MAX = 30;

interface Heights {
  tall: number;
  low: number;
}

export function Routes() {
  revision.value;
  const names = found.value;
  const list = useRef<HTMLDivElement>(null);
  const heights: Heights = isNarrow.value ? { tall: 104, low: 64 } : { tall: 76, low: 44 };
  const tall = useMemo(() => {
    if (names.length <= SPACIOUS_MAX) return names.length;
    const firstGood = names.findIndex((name) => (entry(name)?.verdict.level ?? 0) === 0);
    return firstGood < 0 ? names.length : firstGood;
  }, [names]);
  const top = (row: number) => Math.min(row, tall) * heights.tall + Math.max(0, row - tall) * heights.low;
  const at = (y: number) => (y < top(tall) ? Math.floor(y / heights.tall) : tall + Math.floor((y - top(tall)) / heights.low));
  const { first, last } = useRange(list, names.length, at);
  const reveal = cursor.value;
  useEffect(() => {
    const row = reveal === null ? -1 : names.indexOf(reveal);
    if (row < 0 || !list.current) return;
    show(list.current.getBoundingClientRect().top + top(row), row < tall ? heights.tall : heights.low);
    requestAnimationFrame(() => document.getElementById(`route-${row}`)?.focus({ preventScroll: true }));
  }, [reveal]);
  if (names.length === 0) return <Empty />;
  return (
    <div class="routes" role="table" aria-label="Routes, worst first" aria-rowcount={names.length + 1}>
      <Head />
      <div class="window" role="rowgroup" ref={list} style={{ height: `${top(names.length)}px` }}>
        {names.slice(first, last).map((name, i) => {
          const row = first + i;
          const one = entry(name);
          return one && <Row key={name} one={one} row={row} isTall={row < tall} top={top(row)} />;
        })}
      </div>
    </div>
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
      <span role="columnheader" class="n">New/s</span>
      <span role="columnheader" class="n">Open</span>
      <span role="columnheader" class="n">Held</span>
    </div>
  );
}

function Row({ one, row, isTall, top }: { one: Entry; row: number; isTall: boolean; top: number }) {
  const { route, verdict } = one;
  const lines = targets(route, isTall && !isNarrow.value ? 3 : 1);
  const isOpen = place.value.route === route.name;
  const paused = route.by_hand.paused;
  return (
    <div
      class={`row ${isTall ? "tall" : "low"} l${verdict.level}${isOpen ? " open" : ""}`}
      role="row"
      aria-rowindex={row + 2}
      style={{ transform: `translateY(${top}px)` }}
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
          <State one={one} isShort={!isTall} />
        </div>
      </div>
      <div role="cell" class="listen" title={route.addresses.join(", ")}>
        {route.listen}
      </div>
      <div role="cell" class="to">
        <Flow lines={lines} isPaused={paused} />
        <Targets lines={lines} />
      </div>
      {recent.value && (
        <div role="cell" class="history">
          <Spark series={recent.value.routes[route.name]} height={isTall ? 28 : 20} />
        </div>
      )}
      <div role="cell" class="n rate">
        {rate(one.rate)}
        <span class="unit">/s</span>
        {one.failedRate >= 0.05 && <span class="fail l3">{rate(one.failedRate)} failed/s</span>}
      </div>
      <div role="cell" class="n">{count(route.active)}</div>
      <div role="cell" class={`n ${route.held > 0 ? "l2" : "zero"}`}>{count(route.held)}</div>
    </div>
  );
}

/** The state of a route, since when, and its last failure. */
function State({ one, isShort }: { one: Entry; isShort: boolean }) {
  const { route, verdict } = one;
  const at = since(one);
  if (verdict.level === 0) {
    const failure = route.last_failure;
    if (isShort || !failure) return isShort ? null : <span class="word">ok</span>;
    return (
      <span class="word">
        ok · last failure <Time ms={Date.parse(failure.at)} />
      </span>
    );
  }
  return (
    <span class="word">
      <b>{verdict.word}</b>
      {at !== null && (
        <>
          {" "}
          since <Time ms={at} />
        </>
      )}
    </span>
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
  if (name === cursor.value) cursor.value = null;
  cursor.value = name;
}

// The open sessions: searched, sorted, and only those rendered that can be seen.

import { computed, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, get } from "./api";
import { isNarrow, Mark, useRange } from "./parts";
import { link as to, search } from "./place";
import { link, totals } from "./store";
import { bytes, count, duration } from "./text";
import type { Session } from "./types";

type Column = "route" | "client" | "endpoint" | "peer" | "age_ms" | "bytes_up" | "bytes_down" | "worker";

interface Head {
  column: Column;
  name: string;
  isNumber?: boolean;
}

const HEADS: Head[] = [
  { column: "route", name: "Route" },
  { column: "client", name: "Client" },
  { column: "endpoint", name: "Endpoint" },
  { column: "peer", name: "Peer" },
  { column: "age_ms", name: "Age", isNumber: true },
  { column: "bytes_up", name: "Sent", isNumber: true },
  { column: "bytes_down", name: "Received", isNumber: true },
  { column: "worker", name: "Worker", isNumber: true },
];

const LIMIT = 20_000;
const PERIOD_MS = 2_000;

const sessions = signal<Session[] | null>(null);
const isTruncated = signal(false);
const sort = signal<{ column: Column; isDown: boolean }>({ column: "age_ms", isDown: true });
const problem = signal<string | null>(null);
let cost = 0;

const shown = computed<Session[]>(() => {
  const began = performance.now();
  const words = search.sessions.value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (session: Session) => {
    const text = `${session.route} ${session.client} ${session.endpoint ?? "held"} ${session.peer ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const all = sessions.value ?? [];
  const list = words.length > 0 ? all.filter(matches) : all.slice();
  const { column, isDown } = sort.value;
  const sign = isDown ? -1 : 1;
  const compare = (a: Session, b: Session): number => {
    const [x, y] = [a[column] ?? "", b[column] ?? ""];
    return x < y ? -sign : x > y ? sign : a.client < b.client ? -1 : 1;
  };
  list.sort(compare);
  cost += performance.now() - began;
  return list;
});

const hasPeers = computed(() => sessions.value?.some((session) => session.peer) ?? false);

export function Sessions() {
  usePolling();
  const list = useRef<HTMLDivElement>(null);
  const rows = shown.value;
  const height = isNarrow.value ? 68 : 36;
  const { first, last } = useRange(list, rows.length, (y) => Math.floor(y / height));
  const heads = HEADS.filter((head) => head.column !== "peer" || hasPeers.value);
  if (!sessions.value) return <p class="empty dim">{problem.value ?? "Loading …"}</p>;
  return (
    <section aria-labelledby="sessions-title">
      <h2 id="sessions-title" class="spoken">
        Sessions
      </h2>
      <p class="note above" aria-live="off">
        {search.sessions.value ? `${count(rows.length)} of ${count(sessions.value.length)} match` : `${count(rows.length)} open`}
        {isTruncated.value && `; the first ${count(LIMIT)} of ${count(totals.value.active)} are shown`}
        {problem.value && <span class="l3"> · {problem.value}</span>}
      </p>
      {isNarrow.value && <SortPicker heads={heads} />}
      <div class={`sessions${hasPeers.value ? " peers" : ""}`} role="table" aria-label="Open sessions" aria-rowcount={rows.length + 1}>
        <div class="row head" role="row">
          {heads.map((head) => (
            <SortHead key={head.column} head={head} />
          ))}
        </div>
        <div class="window" role="rowgroup" ref={list} style={{ height: `${rows.length * height}px` }}>
          {rows.slice(first, last).map((session, i) => (
            <Row key={(first + i) % (last - first || 1)} session={session} index={first + i} top={(first + i) * height} heads={heads} />
          ))}
        </div>
      </div>
      {rows.length === 0 && <p class="empty dim">{sessions.value.length === 0 ? "No session is open." : "No session matches."}</p>}
    </section>
  );
}

function sortBy(column: Column, isNumber = false): void {
  const { column: before, isDown } = sort.value;
  sort.value = { column, isDown: before === column ? !isDown : isNumber };
}

function SortHead({ head: { column, name, isNumber = false } }: { head: Head }) {
  const { column: by, isDown } = sort.value;
  const direction = by !== column ? "none" : isDown ? "descending" : "ascending";
  return (
    <span role="columnheader" aria-sort={direction} class={isNumber ? "n" : ""}>
      <button type="button" onClick={() => sortBy(column, isNumber)}>
        {name}
        <span aria-hidden="true" class="arrow">
          {by === column ? (isDown ? "↓" : "↑") : ""}
        </span>
      </button>
    </span>
  );
}

function SortPicker({ heads }: { heads: Head[] }) {
  return (
    <label class="pick">
      <span>Sort by</span>
      <select value={sort.value.column} onChange={(event) => (sort.value = { column: event.currentTarget.value as Column, isDown: true })}>
        {heads.map((head) => (
          <option key={head.column} value={head.column}>
            {head.name}
          </option>
        ))}
      </select>
    </label>
  );
}

function Row({ session, index, top, heads }: { session: Session; index: number; top: number; heads: Head[] }) {
  return (
    <div class="row" role="row" aria-rowindex={index + 2} style={{ transform: `translateY(${top}px)` }}>
      {heads.map(({ column, isNumber }) => (
        <span key={column} role="cell" class={`c-${column}${isNumber ? " n" : ""}`}>
          <Cell session={session} column={column} />
        </span>
      ))}
    </div>
  );
}

function Cell({ session, column }: { session: Session; column: Column }) {
  switch (column) {
    case "route":
      return <a href={to({ route: session.route })}>{session.route}</a>;
    case "endpoint":
      if (session.endpoint) return <>{session.endpoint}</>;
      return (
        <b class="l2">
          <Mark level={2} size={10} /> held
        </b>
      );
    case "age_ms":
      return <>{duration(session.age_ms)}</>;
    case "bytes_up":
    case "bytes_down":
      return <>{bytes(session[column])}</>;
    default:
      return <>{session[column] ?? "–"}</>;
  }
}

/** Asks again and again while the page can be seen, less often the more it costs. */
function usePolling(): void {
  useEffect(() => {
    const stopped = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const load = async () => {
      cost = 0;
      const began = performance.now();
      if (!document.hidden && link.value.state !== "locked") {
        try {
          const page = await get<{ sessions: Session[]; truncated: boolean }>(`/sessions?limit=${LIMIT}`, stopped.signal);
          sessions.value = page.sessions;
          isTruncated.value = page.truncated;
          problem.value = null;
        } catch (error) {
          if (stopped.signal.aborted) return;
          problem.value = error instanceof ApiError ? error.message : "no answer";
        }
      }
      cost += performance.now() - began;
      timer = setTimeout(load, Math.max(PERIOD_MS, 10 * cost));
    };
    void load();
    return () => {
      stopped.abort();
      clearTimeout(timer);
    };
  }, []);
}

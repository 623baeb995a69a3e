// Numbers of the last 10 minutes and 24 hours, from `/history`, and their pictures.

import { signal, useComputed, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { get } from "./api";
import { hasHistory, link, now, order } from "./store";
import { count, rate, shortClock } from "./text";
import type { History, Series } from "./types";

type Numbers = (number | null)[];

/** The last 10 minutes of all routes. Null until they are known. */
export const recent = signal<History | null>(null);

const POINTS = 60;
let isFetching = false;
let fetchedAt = -Infinity;
let cost = 0;

async function refresh(): Promise<void> {
  // Not more than a hundredth of the time is spent on it.
  const period = Math.max(10_000, 100 * cost);
  if (isFetching || document.hidden || link.value.state !== "live" || !hasHistory()) return;
  if (performance.now() - fetchedAt < period) return;
  isFetching = true;
  const began = performance.now();
  try {
    recent.value = await get<History>(`/history?span=10m&points=${POINTS}`);
  } catch {
    // The header shows that the connection is lost. The next attempt follows.
  }
  fetchedAt = performance.now();
  cost = fetchedAt - began;
  isFetching = false;
}

export function startHistory(): void {
  setInterval(() => void refresh(), 1_000);
  link.subscribe(() => void refresh());
  order.subscribe(() => void refresh());
}

export function Spark({ series, width = 104, height = 28 }: { series: Series | undefined; width?: number; height?: number }) {
  const sessions = series?.sessions ?? [];
  const failed = series?.failed ?? [];
  const max = Math.max(0.2, ...sessions.map((value) => value ?? 0), ...failed.map((value) => value ?? 0));
  return (
    <svg class="spark" width={width} height={height} viewBox={`0 0 ${width} ${height}`} aria-hidden="true">
      <path class="base" d={`M0 ${height - 0.5}H${width}`} />
      <path class="area" d={`${curve(sessions, max, width, height - 3)}`} />
      <path class="failed" d={bars(failed, max, width, height - 1)} />
    </svg>
  );
}

/** A line through the values, interrupted where there is none. */
function curve(values: Numbers, max: number, width: number, height: number, top = 2): string {
  const step = width / Math.max(1, values.length - 1);
  let isOpen = false;
  let path = "";
  values.forEach((value, i) => {
    if (value === null) {
      isOpen = false;
      return;
    }
    const y = top + height - (height * value) / max;
    path += `${isOpen ? "L" : "M"}${(i * step).toFixed(1)} ${y.toFixed(1)}`;
    isOpen = true;
  });
  return path;
}

function area(values: Numbers, max: number, width: number, height: number, top: number): string {
  const first = values.findIndex((value) => value !== null);
  const step = width / Math.max(1, values.length - 1);
  if (first < 0) return "";
  const line = curve(values.map((value, i) => (i < first ? null : (value ?? 0))), max, width, height, top);
  return `${line}L${width} ${top + height}L${(first * step).toFixed(1)} ${top + height}Z`;
}

function bars(values: Numbers, max: number, width: number, height: number, top = 0): string {
  const step = width / Math.max(1, values.length - 1);
  return values
    .map((value, i) => {
      if (!value) return "";
      const size = Math.max(3, (height * value) / max);
      return `M${(i * step).toFixed(1)} ${(top + height).toFixed(1)}v-${size.toFixed(1)}`;
    })
    .join("");
}

type Span = "10m" | "24h";

/** The charts of one route. */
export function Charts({ name }: { name: string }) {
  const span = useSignal<Span>("10m");
  const history = useSignal<History | null>(null);
  useEffect(() => {
    const stopped = new AbortController();
    const load = async () => {
      if (document.hidden || !hasHistory()) return;
      try {
        const points = span.value === "10m" ? 120 : 288;
        const path = `/history?span=${span.value}&points=${points}&route=${encodeURIComponent(name)}`;
        history.value = await get<History>(path, stopped.signal);
      } catch {
        // As above.
      }
    };
    void load();
    const timer = setInterval(load, span.value === "10m" ? 5_000 : 60_000);
    return () => {
      stopped.abort();
      clearInterval(timer);
    };
  }, [name, span.value]);
  const series = useComputed(() => history.value?.routes[name] ?? null);
  if (!history.value) return null;
  return (
    <section class="charts" aria-label="Charts">
      <div class="choice" role="group" aria-label="Time span">
        {(["10m", "24h"] as const).map((one) => (
          <button key={one} type="button" aria-pressed={span.value === one} onClick={() => (span.value = one)}>
            {one === "10m" ? "10 minutes" : "24 hours"}
          </button>
        ))}
      </div>
      <Chart title="New sessions per second" history={history.value} lines={[["new", series.value?.sessions], ["failed", series.value?.failed]]} format={rate} />
      <Chart title="Open sessions" history={history.value} lines={[["open", series.value?.active], ["held", series.value?.held]]} format={count} />
    </section>
  );
}

interface ChartProps {
  title: string;
  history: History;
  /** The first is drawn as an area; the second, which stands out, as bars. */
  lines: [[string, Numbers | undefined], [string, Numbers | undefined]];
  format: (value: number) => string;
}

const SIZE = { width: 560, height: 96 };

function Chart({ title, history, lines: [[firstName, first = []], [secondName, second = []]], format }: ChartProps) {
  const pointed = useSignal<number | null>(null);
  const { width, height } = SIZE;
  const max = Math.max(1, ...first.map((value) => value ?? 0), ...second.map((value) => value ?? 0));
  const points = Math.max(first.length, second.length);
  const start = history.end_ms - history.step_ms * points;
  const at = pointed.value ?? points - 1;
  const shown = (values: Numbers) => format(values[at] ?? 0);
  const time = pointed.value === null ? "now" : shortClock(start + (at + 0.5) * history.step_ms, now());
  const move = (event: PointerEvent) => {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    pointed.value = Math.max(0, Math.min(points - 1, Math.round(((event.clientX - box.left) / box.width) * (points - 1))));
  };
  const most = format(max === 1 ? Math.max(0, ...first.map((value) => value ?? 0)) : max);
  const summary = `${title}: now ${format(first.at(-1) ?? 0)}, at most ${most}; ${secondName} now ${format(second.at(-1) ?? 0)}`;
  return (
    <figure class="chart">
      <figcaption>
        {title}
        <span class="values">
          <span class="when">{time}</span> <b>{shown(first)}</b> {firstName} <b class={second[at] ? "l3" : ""}>{shown(second)}</b> {secondName}
        </span>
      </figcaption>
      <svg role="img" aria-label={summary} viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" onPointerMove={move} onPointerLeave={() => (pointed.value = null)}>
        <path class="grid" d={`M0 .5H${width}M0 ${height / 2}H${width}M0 ${height - 0.5}H${width}`} />
        <path class="fillarea" d={area(first, max, width, height - 4, 3)} />
        <path class="area" d={curve(first, max, width, height - 4, 3)} />
        <path class="failed" d={bars(second, max, width, height - 4, 3)} />
        {pointed.value !== null && <path class="cursor" d={`M${((at * width) / Math.max(1, points - 1)).toFixed(1)} 0V${height}`} />}
      </svg>
      <div class="axis" aria-hidden="true">
        <span>{shortClock(start, now())}</span>
        <span>most {most}</span>
        <span>{shortClock(history.end_ms, now())}</span>
      </div>
    </figure>
  );
}

// Small parts that the views share.

import { signal, useSignal } from "@preact/signals";
import type { ComponentChildren, JSX, RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Level } from "./judge";
import { now } from "./store";
import { clock, utc, visible } from "./text";

/** A sign for a level, so that it is not shown by colour alone. */
export function Mark({ level, size = 12 }: { level: Level; size?: number }) {
  const shapes: Record<Level, JSX.Element> = {
    0: <circle cx="6" cy="6" r="2.5" class="fill" />,
    1: <path d="M6 1.4 10.6 6 6 10.6 1.4 6Z" class="stroke" />,
    2: <path d="M6 1 11.5 11H.5Z" class="fill" />,
    3: <path d="M6 0 12 6 6 12 0 6Z" class="fill" />,
  };
  return (
    <svg class={`mark l${level}`} width={size} height={size} viewBox="0 0 12 12" aria-hidden="true">
      {shapes[level]}
    </svg>
  );
}

/** A message of the ambassador, in which backquotes surround names and values. */
export function Text({ children }: { children: string }) {
  const parts = visible(children).split("`");
  return <>{parts.map((part, i) => (i % 2 === 1 && i < parts.length - 1 ? <code key={i}>{part}</code> : part))}</>;
}

/** A time of day; the title has the time of the log. */
export function Time({ ms }: { ms: number }) {
  return (
    <time dateTime={utc(ms)} title={utc(ms)}>
      {clock(ms, now())}
    </time>
  );
}

/** A section with a heading, which the caller leaves out if it has nothing to say. */
export function Section({ title, note, children, id }: { title: string; note?: ComponentChildren; children: ComponentChildren; id: string }) {
  return (
    <section class="section" aria-labelledby={id}>
      <h2 id={id}>
        {title} {note !== undefined && <span class="note">{note}</span>}
      </h2>
      {children}
    </section>
  );
}

/** The part of a long list that can be seen. */
export interface Range {
  first: number;
  last: number;
}

/**
 * Follows which rows of a list on the page can be seen. `at` returns the row at a distance from the top of the list.
 */
export function useRange(list: RefObject<HTMLElement | null>, rows: number, at: (y: number) => number): Range {
  const range = useSignal<Range>({ first: 0, last: Math.min(rows, 40) });
  const latest = useRef({ rows, at });
  latest.current = { rows, at };
  const measure = () => {
    if (!list.current) return;
    const { rows, at } = latest.current;
    const top = -list.current.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(rows, at(top) - 6));
    const last = Math.max(first, Math.min(rows, at(top + innerHeight) + 7));
    const { first: a, last: b } = range.peek();
    if (a !== first || b !== last) range.value = { first, last };
  };
  useLayoutEffect(measure);
  useEffect(() => {
    addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    return () => {
      removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
    };
  }, []);
  const { first, last } = range.value;
  return { first: Math.min(first, rows), last: Math.min(last, rows) };
}

/** Whether the window is narrower than a phone, and whether there is space for a second column. */
export const isNarrow = media("(max-width: 719px)");
export const isWide = media("(min-width: 1400px)");

function media(query: string) {
  const list = matchMedia(query);
  const matches = signal(list.matches);
  list.addEventListener("change", () => {
    matches.value = list.matches;
  });
  return matches;
}

/** Announced by screen readers; at most one sentence in five seconds. */
const spoken = signal("");
let nextSaying: string | null = null;
let saidAt = -Infinity;

export function say(text: string): void {
  const wait = 5_000 - (performance.now() - saidAt);
  if (nextSaying !== null) {
    nextSaying = text;
  } else if (wait <= 0) {
    saidAt = performance.now();
    spoken.value = text;
  } else {
    nextSaying = text;
    setTimeout(() => {
      saidAt = performance.now();
      spoken.value = nextSaying ?? "";
      nextSaying = null;
    }, wait);
  }
}

export function Spoken() {
  return (
    <p class="spoken" aria-live="polite" role="status">
      {spoken}
    </p>
  );
}

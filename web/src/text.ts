// Text and numbers as people read them.

// Controls, separators of lines, and characters that are invisible or change the direction of writing: labels, keys of registries
// and addresses of clients are text of others.
const ODD = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/;
const EACH_ODD = new RegExp(ODD.source, "g");

/** Returns the text with `\u{202e}` and the like for characters that would be invisible. */
export function visible(text: string): string {
  return ODD.test(text) ? text.replace(EACH_ODD, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`) : text;
}

/** Parses JSON and makes all its strings visible. */
export function parse<T>(json: string): T {
  const value = JSON.parse(json) as T;
  return ODD.test(json) || json.includes("\\") ? (shown(value) as T) : value;
}

function shown(value: unknown): unknown {
  if (typeof value === "string") return visible(value);
  if (Array.isArray(value)) return value.map(shown);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [visible(key), shown(item)]));
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Returns a number of bytes, such as `1.2 MiB`. */
export function bytes(count: number): string {
  let unit = 0;
  let value = count;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : digits(value)} ${UNITS[unit]}`;
}

/** Returns a number per second, without its unit. */
export function rate(value: number): string {
  if (value < 0.05) return "0";
  if (value < 1000) return digits(value);
  return value < 999_500 ? `${digits(value / 1000)}k` : `${digits(value / 1e6)}M`;
}

function digits(value: number): string {
  return value < 9.95 ? value.toFixed(1) : String(Math.round(value));
}

const GROUPED = new Intl.NumberFormat("en-GB", { useGrouping: true });

/** Returns a whole number with thin spaces between thousands. */
export function count(value: number): string {
  return value < 10_000 ? String(value) : GROUPED.format(value).replaceAll(",", "\u2009");
}

/** Returns `1 route` or `2 routes`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${value === 1 ? noun : `${noun}s`}`;
}

/** Returns a duration in its two largest units. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  const parts: [number, string][] = [
    [Math.floor(s / 86400), "d"],
    [Math.floor(s / 3600) % 24, "h"],
    [Math.floor(s / 60) % 60, "min"],
    [s % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  const shownParts = parts.slice(first, first + 2).filter(([value]) => value > 0);
  return shownParts.map(([value, unit]) => `${value} ${unit}`).join(" ");
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT_CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** Returns the time of day here, after the day if that is not today. */
export function clock(ms: number, now: number): string {
  return onDay(ms, now, CLOCK);
}

/** The same without seconds. */
export function shortClock(ms: number, now: number): string {
  return onDay(ms, now, SHORT_CLOCK);
}

function onDay(ms: number, now: number, format: Intl.DateTimeFormat): string {
  const time = new Date(ms);
  const isToday = time.toDateString() === new Date(now).toDateString();
  return isToday ? format.format(time) : `${DAY.format(time)} ${format.format(time)}`;
}

export function day(ms: number): string {
  return DAY.format(new Date(ms));
}

/** Returns the time in UTC, as in the log. */
export function utc(ms: number): string {
  return new Date(ms).toISOString();
}

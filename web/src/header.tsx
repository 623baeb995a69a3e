// The answer to "is anything wrong, where, since when", and the bar below it.

import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { isWide, Mark, say, Text, Time } from "./parts";
import { go, link as to, place, search, type View } from "./place";
import { asOf, events, link, now, revision, since, status, totals, worst } from "./store";
import { bytes, count, duration, plural, rate } from "./text";
import { nextTheme, theme } from "./theme";
import { openAdd, openHelp } from "./dialogs";
import { retry } from "./stream";

/** Returns the state of everything in one sentence. */
function headline(): { text: string; level: 0 | 2 | 3 } {
  const { routes, levels } = totals.value;
  const bad = levels[2] + levels[3];
  const level = levels[3] > 0 ? 3 : 2;
  if (status.value?.draining) return { text: "Draining: no new sessions are accepted", level: 2 };
  if (bad > 0) {
    const verb = bad === 1 ? "needs" : "need";
    return { text: routes === 1 ? "The route needs attention" : `${bad} of ${plural(routes, "route")} ${verb} attention`, level };
  }
  if (status.value?.config?.ok === false) return { text: "The configuration file was refused", level: 2 };
  const lost = Object.keys(status.value?.lost ?? {});
  if (lost.length > 0) return { text: `${lost.length === 1 ? "A source is" : `${lost.length} sources are`} unavailable`, level: 2 };
  if (routes === 0) return { text: "No routes yet", level: 0 };
  const which = routes === 2 ? "Both routes are" : `All ${count(routes)} routes are`;
  const text = `${routes === 1 ? "The route is" : which} healthy`;
  return { text: levels[1] > 0 ? `${text}, ${levels[1]} changed by hand` : text, level: 0 };
}

export function Header() {
  const { text, level } = headline();
  useEffect(() => {
    document.title = level > 0 ? `▲ ${text} · ambassador` : `${text} · ambassador`;
    if (link.value.state === "live") say(text);
  }, [text, level]);
  return (
    <header class="top">
      <About />
      <div class="answer">
        <div class="verdict">
          <h1 class={`l${level}`}>
            {level > 0 && <Mark level={level} size={20} />}
            {text}
          </h1>
          <Because />
        </div>
        <Totals />
      </div>
    </header>
  );
}

function About() {
  revision.value;
  const { version, started_at } = status.value ?? {};
  return (
    <p class="about">
      <a href="#/" class="brand">
        ambassador
      </a>
      <span>{version}</span>
      {started_at && <span>up {duration(now() - Date.parse(started_at))}</span>}
      <LinkState />
    </p>
  );
}

function LinkState() {
  const state = link.value;
  if (state.state === "lost") return null;
  return <span class={`link ${state.state}`}>{state.state === "live" ? "live" : "connecting"}</span>;
}

/** What the page shows while the connection is lost. */
export function Lost() {
  const state = link.value;
  if (state.state !== "lost" || !status.value) return null;
  return (
    <div class="lost" role="alert">
      <Mark level={2} />
      <span>
        Connection lost: {state.why}. This is the state as of <Time ms={asOf()} />.
      </span>
      <button type="button" onClick={retry}>
        Reconnect now
      </button>
    </div>
  );
}

/** The worst routes, each with its reason, and what concerns all of them. */
function Because() {
  events.value;
  const { levels } = totals.value;
  const more = levels[2] + levels[3] - worst.value.length;
  const { config, lost = {} } = status.value ?? {};
  const sources = Object.entries(lost);
  if (worst.value.length === 0 && config?.ok !== false && sources.length === 0) return null;
  return (
    <ul class="because">
      {config?.ok === false && (
        <li>
          <b>{config.path}</b> was refused
          {config.refused_at && (
            <>
              {" "}
              at <Time ms={Date.parse(config.refused_at)} />
            </>
          )}
          <span class="dim">
            {" "}
            · <Text>{config.error ?? ""}</Text>
          </span>
        </li>
      )}
      {sources.slice(0, 2).map(([source, why]) => (
        <li key={source}>
          <b>{source}</b> is unavailable
          <span class="dim">
            {" "}
            · <Text>{why}</Text>
          </span>
        </li>
      ))}
      {worst.value.map((one) => {
        const at = since(one);
        return (
          <li key={one.route.name}>
            <a href={to({ route: one.route.name })}>{one.route.name}</a> {one.verdict.clause}
            {at !== null && (
              <>
                {" "}
                since <Time ms={at} />
              </>
            )}
            {one.verdict.why && <span class="dim"> · {one.verdict.why}</span>}
          </li>
        );
      })}
      {more > 0 && <li class="dim">and {plural(more, "other route")}</li>}
    </ul>
  );
}

function Totals() {
  const { active, held, rate: perSecond, failedRate, upRate, downRate } = totals.value;
  return (
    <dl class="totals">
      <Figure name="Open sessions" value={count(active)} />
      <Figure name="New" value={rate(perSecond)} unit="/s" />
      <Figure name="Failed" value={rate(failedRate)} unit="/s" level={failedRate >= 0.05 ? 3 : 0} />
      <Figure name="Held" value={count(held)} level={held > 0 ? 2 : 0} />
      <Figure name="Sent" value={bytes(upRate)} unit="/s" />
      <Figure name="Received" value={bytes(downRate)} unit="/s" />
    </dl>
  );
}

function Figure({ name, value, unit, level = 0 }: { name: string; value: string; unit?: string; level?: number }) {
  return (
    <div class={`l${level}`}>
      <dt>{name}</dt>
      <dd>
        {value}
        {unit && <span class="unit">{unit}</span>}
      </dd>
    </div>
  );
}

/** Scrolls back to the beginning of the list, below the bar. */
function showFirstRows(): void {
  const top = document.querySelector<HTMLElement>(".top")?.offsetHeight ?? 0;
  if (scrollY > top) scrollTo({ top });
}

const VIEWS: { view: View; name: string }[] = [
  { view: "routes", name: "Routes" },
  { view: "sessions", name: "Sessions" },
  { view: "events", name: "Events" },
];

export function Bar() {
  const { view } = place.value;
  const { routes, active, levels } = totals.value;
  const bad = levels[2] + levels[3];
  const notes: Record<View, ComponentChildren> = {
    routes: bad > 0 ? <span class="bad"><Mark level={levels[3] > 0 ? 3 : 2} size={10} /> {bad} of {count(routes)}</span> : count(routes),
    sessions: count(active),
    events: null,
  };
  return (
    <div class="bar">
      <nav aria-label="Views">
        {VIEWS.map((one) => (
          <a key={one.view} href={to({ view: one.view })} aria-current={view === one.view ? "page" : undefined}>
            {one.name} <span class="note">{notes[one.view]}</span>
          </a>
        ))}
      </nav>
      <search>
        <input
          id="search"
          type="search"
          autocomplete="off"
          spellcheck={false}
          placeholder={`Search ${view}`}
          aria-label={`Search ${view}`}
          aria-keyshortcuts="/"
          value={search[view].value}
          onInput={(event) => {
            search[view].value = event.currentTarget.value;
            showFirstRows();
            if (view === "routes" && place.value.route && !isWide.value) go({ view });
          }}
        />
        <kbd aria-hidden="true">/</kbd>
      </search>
      <div class="tools">
        <button type="button" onClick={openAdd} aria-keyshortcuts="a">
          Add route
        </button>
        <button type="button" class="quiet" onClick={nextTheme} title="Theme: light, dark, or that of the system">
          <span class="spoken">Theme: </span>
          {theme.value}
        </button>
        <button type="button" class="quiet key" onClick={openHelp} aria-label="Keyboard shortcuts" aria-keyshortcuts="?">
          ?
        </button>
      </div>
    </div>
  );
}

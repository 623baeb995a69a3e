// Everything about one route.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { get } from "./api";
import { EventLine, kinds } from "./events";
import { Charts } from "./history";
import { advice, endpointLevel, flaws, isFailure, shares } from "./judge";
import { drain, order, pauseOrResume, remove, resetSwitch, resetWeight } from "./orders";
import { Mark, Section, Text, Time } from "./parts";
import { go, link, place, search } from "./place";
import { type Entry, entry, events, now, revision, since } from "./store";
import { bytes, count, duration, plural } from "./text";
import type { Endpoint, Route, Session } from "./types";

export function Detail({ name }: { name: string }) {
  revision.value;
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus({ preventScroll: true }), [name]);
  const one = entry(name);
  return (
    <article class="detail" aria-labelledby="detail-title">
      <p class="back">
        <a href={link({ view: "routes" })} aria-keyshortcuts="Escape">
          <span aria-hidden="true">←</span> All routes
        </a>
        <kbd aria-hidden="true">Esc</kbd>
      </p>
      <h2 id="detail-title" tabIndex={-1} ref={heading}>
        {one && <Mark level={one.verdict.level} size={14} />} {name}
      </h2>
      {one ? <Body one={one} /> : <Gone name={name} />}
    </article>
  );
}

function Gone({ name }: { name: string }) {
  const last = events.value.find((event) => event.route === name);
  return (
    <p>
      This route does not exist{last ? `: ${last.message} at ` : "."}
      {last && <Time ms={Date.parse(last.time)} />}
    </p>
  );
}

function Body({ one }: { one: Entry }) {
  const { route } = one;
  const own = events.value.filter((event) => event.route === route.name);
  return (
    <>
      <State one={one} />
      <div class="buttons">
        <button type="button" onClick={() => pauseOrResume(route)} aria-keyshortcuts="p">
          {route.by_hand.paused ? "Resume" : "Pause"} …
        </button>
        <button type="button" onClick={() => (order.value = { kind: "switch", route })} aria-keyshortcuts="s">
          Switch …
        </button>
        <button type="button" onClick={() => remove(route)}>
          Remove …
        </button>
      </div>
      <ByHand route={route} />
      <Endpoints one={one} />
      <Charts name={route.name} />
      <Endings route={route} />
      <Sessions route={route} />
      {own.length > 0 && (
        <Section id="detail-events" title="Events" note={own.length > 8 ? <a href={link({ view: "events" })} onClick={() => onlyEventsOf(route)}>all {own.length}</a> : undefined}>
          <ol class="events">
            {own.slice(0, 8).map((event) => (
              <EventLine key={event.seq} event={event} isOwn isShort />
            ))}
          </ol>
        </Section>
      )}
      <Facts route={route} />
    </>
  );
}

function onlyEventsOf(route: Route): void {
  search.events.value = "";
  kinds.value = { ...kinds.value, route: route.name, group: "all" };
}

function State({ one }: { one: Entry }) {
  const { route, verdict } = one;
  const at = since(one);
  const notes = route.endpoints.flatMap((endpoint) => {
    const text = advice(endpoint);
    return text && verdict.level >= 2 ? [`${endpoint.address}: ${endpoint.last_error}: ${text}`] : [];
  });
  return (
    <div class={`state l${verdict.level}`}>
      <p>
        <b>{verdict.word}</b>
        {at !== null && (
          <>
            {" "}
            since <Time ms={at} /> <span class="dim">({duration(now() - at)})</span>
          </>
        )}
        {route.last_failure && (
          <span class="dim">
            {" "}
            · last failure <Time ms={Date.parse(route.last_failure.at)} />, {route.last_failure.ending}
          </span>
        )}
      </p>
      {[...route.problems, ...new Set(notes)].slice(0, 4).map((problem) => (
        <p key={problem}>
          <Text>{problem}</Text>
        </p>
      ))}
      {route.descriptors?.accept_paused && (
        <p>Out of file descriptors with {count(route.descriptors.used)} in use: new connections wait in the backlog.</p>
      )}
    </div>
  );
}

/** What an operator changed, each with the command that ends it. */
function ByHand({ route }: { route: Route }) {
  const hand = route.by_hand;
  const lines: { text: ComponentChildren; verb?: string; act?: () => void }[] = [];
  if (hand.paused) lines.push({ text: "Paused: new sessions are held.", verb: "Resume", act: () => pauseOrResume(route) });
  if (hand.instead_of && hand.switch?.state !== "on-trial") {
    const text = (
      <>
        Switched to <span class="mono">{route.targets.join(", ")}</span> instead of <span class="mono">{hand.instead_of.join(", ")}</span>.
      </>
    );
    lines.push({ text, verb: "Restore", act: () => resetSwitch(route) });
  }
  for (const [endpoint, weight] of Object.entries(hand.weights)) {
    const address = endpoint.split(" (")[0] as string;
    lines.push({ text: `Weight ${weight}: ${endpoint}.`, verb: "Reset", act: () => resetWeight(route, address) });
  }
  for (const endpoint of hand.drained) {
    const known = route.endpoints.find((one) => one.description === endpoint);
    lines.push(known ? { text: `Drained: ${endpoint}.`, verb: "Use again", act: () => drain(route, known) } : { text: `Drained: ${endpoint}.` });
  }
  const trial = hand.switch;
  return (
    <>
      {trial?.state === "on-trial" && <Trial route={route} why={trial.why ?? null} />}
      {trial?.state === "rolled-back" && (
        <p class="changed l2">
          <Mark level={2} size={10} />
          <span>
            The last switch was rolled back{trial.why ? `: ${trial.why}` : ""}
          </span>
        </p>
      )}
      {lines.map(({ text, verb, act }, i) => (
        <p key={i} class="changed">
          <Mark level={1} size={10} />
          <span>{text}</span>
          {verb && (
            <button type="button" onClick={act}>
              {verb} …
            </button>
          )}
        </p>
      ))}
    </>
  );
}

/** The progress of a switch: its new endpoints answer, then the sessions of the removed ones end. */
function Trial({ route, why }: { route: Route; why: string | null }) {
  const left = route.leaving.reduce((sum, endpoint) => sum + endpoint.sessions, 0);
  return (
    <div class="trialstate" role="status">
      <p>
        <span class="spinner" aria-hidden="true" />
        <b>Switch on trial.</b>
      </p>
      <ol>
        <li class={why || route.by_hand.waiting ? "doing" : "did"}>
          {why ?? (route.by_hand.waiting ? "the new targets have no endpoint yet; the previous endpoints stay in use" : "the new endpoints answer")}
        </li>
        <li class={!why && !route.by_hand.waiting && left > 0 ? "doing" : left === 0 && !why ? "did" : ""}>
          {left > 0 ? `${plural(left, "session")} of the previous endpoints still open` : "no session uses the previous endpoints"}
        </li>
      </ol>
      <button type="button" onClick={() => resetSwitch(route)}>
        Roll back …
      </button>
    </div>
  );
}

function Endpoints({ one: { route, at } }: { one: Entry }) {
  const elapsed = now() - at;
  const share = shares(route.endpoints);
  const limit = useSignal(20);
  const shown = route.endpoints.slice(0, limit.value);
  const hidden = route.endpoints.length - shown.length;
  return (
    <Section id="detail-endpoints" title="Endpoints" note={route.endpoints.length > 1 ? `${route.endpoints.length}, ${route.balance}` : undefined}>
      {route.endpoints.length === 0 && <p class="dim">None. Targets: {route.targets.join(", ")}</p>}
      <ul class="endpoints">
        {shown.map((endpoint, i) => (
          <EndpointLine key={endpoint.description} route={route} endpoint={endpoint} share={share[i] ?? 0} elapsed={elapsed} />
        ))}
        {route.leaving.map((endpoint) => (
          <EndpointLine key={`leaving ${endpoint.description}`} route={route} endpoint={endpoint} share={0} elapsed={elapsed} isLeaving />
        ))}
      </ul>
      {hidden > 0 && (
        <button type="button" class="quiet" onClick={() => (limit.value += 100)}>
          Show {Math.min(100, hidden)} more
        </button>
      )}
    </Section>
  );
}

interface EndpointProps {
  route: Route;
  endpoint: Endpoint;
  share: number;
  /** Since the endpoint was sent, in milliseconds. */
  elapsed: number;
  isLeaving?: boolean;
}

function EndpointLine({ route, endpoint, share, elapsed, isLeaving = false }: EndpointProps) {
  const level = endpointLevel(endpoint);
  const words = flaws(endpoint);
  const [address, ...rest] = endpoint.description.split(" (");
  const owner = rest.length > 0 ? rest.join(" (").replace(/\)$/, "") : "";
  const ago = endpoint.last_error_ms_ago ?? null;
  return (
    <li class={`l${level}`}>
      <div class="which">
        <Mark level={isLeaving ? 1 : level} size={10} />
        <span class="addr">{address}</span>
        {owner && <span class="dim">{owner}</span>}
      </div>
      <div class="how">
        <b>{isLeaving ? "leaving" : words.length > 0 ? words.join(", ") : (endpoint.health ?? "ok")}</b>
        {endpoint.backup && <span class="dim">backup</span>}
        {endpoint.last_error && (
          <span class={endpoint.failing ? "" : "dim"}>
            {endpoint.failing ? "" : "last error: "}
            {endpoint.last_error}
            {ago !== null && `, ${duration(ago + elapsed)} ago`}
          </span>
        )}
      </div>
      <div class="load">
        <span class="sharebar" aria-hidden="true">
          <span style={{ width: `${share * 100}%` }} />
        </span>
        <span class="n">{isLeaving ? "" : `${Math.round(share * 100)} %`}</span>
        <span class="n wide">{plural(endpoint.sessions, "session")}</span>
      </div>
      {!isLeaving && (
        <div class="acts">
          <button type="button" class="quiet" aria-label={`Weight of ${endpoint.address}: ${endpoint.weight}`} onClick={() => (order.value = { kind: "weight", route, endpoint })}>
            weight {endpoint.weight}
          </button>
          <button type="button" class="quiet" aria-label={`${endpoint.drained ? "Use again" : "Drain"}: ${endpoint.address}`} onClick={() => drain(route, endpoint)}>
            {endpoint.drained ? "use again" : "drain"}
          </button>
        </div>
      )}
    </li>
  );
}

function Endings({ route }: { route: Route }) {
  const all = Object.entries(route.endings).sort(([, a], [, b]) => b - a);
  const sum = all.reduce((total, [, number]) => total + number, 0);
  if (sum === 0) return null;
  return (
    <Section id="detail-endings" title="Endings" note={plural(sum, "ended session")}>
      <table class="shares">
        <caption class="spoken">Ended sessions by ending</caption>
        <tbody>
          {all.map(([ending, number]) => (
            <tr key={ending} class={isFailure(ending) ? "l3" : ""}>
              <th scope="row">
                {isFailure(ending) && <Mark level={3} size={8} />} {ending}
              </th>
              <td class="barcell">
                <span class="bar" style={{ width: `${Math.max(0.5, (100 * number) / sum)}%` }} />
              </td>
              <td class="n">{count(number)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}

/** The oldest sessions of the route. */
function Sessions({ route }: { route: Route }) {
  const sessions = useSignal<Session[]>([]);
  const hasSessions = route.active > 0;
  useEffect(() => {
    if (!hasSessions) {
      sessions.value = [];
      return;
    }
    const stopped = new AbortController();
    const load = async () => {
      if (document.hidden) return;
      try {
        const path = `/sessions?limit=8&route=${encodeURIComponent(route.name)}`;
        sessions.value = (await get<{ sessions: Session[] }>(path, stopped.signal)).sessions;
      } catch {
        // The header shows that the connection is lost.
      }
    };
    void load();
    const timer = setInterval(load, 4_000);
    return () => {
      stopped.abort();
      clearInterval(timer);
    };
  }, [route.name, hasSessions]);
  if (!hasSessions || sessions.value.length === 0) return null;
  const all = (
    <a href={link({ view: "sessions" })} onClick={() => (search.sessions.value = route.name)}>
      all {count(route.active)}
    </a>
  );
  return (
    <Section id="detail-sessions" title="Sessions" note={all}>
      <table class="small">
        <thead>
          <tr>
            <th scope="col">Client</th>
            <th scope="col">Endpoint</th>
            <th scope="col" class="n">Age</th>
            <th scope="col" class="n">Sent</th>
            <th scope="col" class="n">Received</th>
          </tr>
        </thead>
        <tbody>
          {sessions.value.map((session) => (
            <tr key={session.client}>
              <td>{session.client}</td>
              <td>{session.endpoint ?? <span class="l2">held</span>}</td>
              <td class="n">{duration(session.age_ms)}</td>
              <td class="n">{bytes(session.bytes_up)}</td>
              <td class="n">{bytes(session.bytes_down)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}

function Facts({ route }: { route: Route }) {
  const facts: [string, ComponentChildren][] = [];
  if (route.line) facts.push(["Route", <code>{route.line}</code>]);
  facts.push(["Listener", <span>{[...new Set([route.listen, ...route.addresses])].join(", ")}</span>]);
  facts.push(["Targets", <span>{route.targets.join(", ")}</span>]);
  facts.push(["Configured in", route.origin]);
  facts.push(["Sent, received", `${bytes(route.bytes_up)}, ${bytes(route.bytes_down)}`]);
  if (route.descriptors) facts.push(["File descriptors", `${count(route.descriptors.used)} in use, ${count(route.descriptors.guaranteed)} reserved`]);
  return (
    <Section id="detail-facts" title="Configuration">
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </Section>
  );
}

export function closeDetail(): boolean {
  if (!place.value.route) return false;
  go({ view: "routes" });
  return true;
}


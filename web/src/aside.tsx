// What is not a route: the configuration file, sources, peers, certificates, and the latest events. Each is absent while it has
// nothing to say.

import type { ComponentChildren } from "preact";
import { EventLine } from "./events";
import type { Level } from "./judge";
import { Mark, Section, Text, Time } from "./parts";
import { link } from "./place";
import { age, entry, events, now, revision, status } from "./store";
import { bytes, count, duration, plural } from "./text";
import type { Certificate, Peer, Source, Status } from "./types";

const DAY_S = 86_400;
/** As in `ambassador status`. */
const WARN_BEFORE_S = 30 * DAY_S;

export function Aside({ latest }: { latest: number }) {
  revision.value;
  const now = status.value;
  if (!now) return null;
  return (
    <>
      <Notices status={now} />
      <Sources status={now} />
      <Peers status={now} />
      <Certificates status={now} />
      <Latest limit={latest} />
    </>
  );
}

const CREDENTIALS: Record<string, string> = { secret: "shared secret", "own-ca": "own CA", "foreign-ca": "foreign CA" };

interface Notice {
  level: Level;
  text: ComponentChildren;
  key: string;
}

/** Mistakes with their place and the way out. */
function Notices({ status: { config, mistakes, notices = [], removed, peering, tls } }: { status: Status }) {
  const list: Notice[] = [];
  const add = (level: Level, text: string) => list.push({ level, text: <Text>{text}</Text>, key: text });
  if (config && !config.ok) {
    const text = (
      <>
        <b>{config.path} was refused</b>
        {config.refused_at && (
          <>
            {" "}
            at <Time ms={Date.parse(config.refused_at)} />
          </>
        )}
        : <Text>{config.error ?? ""}</Text>. The routes that were read at <Time ms={Date.parse(config.loaded_at)} /> are in use.
      </>
    );
    list.push({ level: 3, text, key: "config" });
  }
  if (peering?.refused) add(3, `Peer credentials were not reloaded, the previous ones stay in use: ${peering.refused}`);
  for (const why of tls?.refused ?? []) add(3, `A certificate or CA was not reloaded, the previous one stays in use: ${why}`);
  for (const text of mistakes) add(2, text);
  for (const text of [...(peering?.warnings ?? []), ...(tls?.warnings ?? [])]) add(2, text);
  for (const text of notices) add(1, text);
  for (const name of removed.filter((name) => !entry(name))) add(1, `${name} was removed by hand. Add it again with its line and name=${name}.`);
  if (list.length === 0) return null;
  return (
    <Section id="notices" title="Notices" note={count(list.length)}>
      <ul class="notices">
        {list.map(({ level, text, key }) => (
          <li key={key} class={`l${level}`}>
            <Mark level={level} size={10} />
            <span>{text}</span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Sources({ status: { sources, lost } }: { status: Status }) {
  const known: Source[] =
    sources ?? Object.entries(lost).map(([name, why]) => ({ name, state: "lost", answered_ms_ago: null, why }));
  if (known.length === 0) return null;
  return (
    <Section id="sources" title="Sources">
      <ul class="lines">
        {known.map((source) => (
          <SourceLine key={source.name} source={source} />
        ))}
      </ul>
    </Section>
  );
}

function SourceLine({ source: { name, state, answered_ms_ago: ago, why } }: { source: Source }) {
  const level: Level = state === "ok" ? 0 : state === "lost" ? 3 : 1;
  const when = ago === null ? (state === "waiting" ? "no answer yet" : "") : `${duration(age(ago))} ago`;
  return (
    <li class={`l${level}`}>
      <Mark level={level} size={10} />
      <div class="which">
        {name}
        {why && state !== "ok" && (
          <p>
            <Text>{why}</Text>
          </p>
        )}
      </div>
      <span class="n">{state === "lost" ? `lost${when ? `, last answer ${when}` : ""}` : when || state}</span>
    </li>
  );
}

function Peers({ status: { peering } }: { status: Status }) {
  if (!peering) return null;
  const { identity, credentials, peers, exports, listen } = peering;
  return (
    <Section id="peers" title="Peers" note={`this host is ${identity}, ${CREDENTIALS[credentials] ?? credentials}`}>
      <ul class="lines">
        {peers.map((peer) => (
          <PeerLine key={`${peer.direction} ${peer.peer} ${peer.address}`} peer={peer} />
        ))}
      </ul>
      {(listen.length > 0 || exports.length > 0) && (
        <p class="dim">
          {listen.length > 0 && `Peers can dial ${listen.join(", ")}. `}
          {exports.length > 0 && `They can use ${exports.join(", ")}.`}
        </p>
      )}
    </Section>
  );
}

function PeerLine({ peer }: { peer: Peer }) {
  const level: Level = peer.state === "down" ? 3 : peer.state === "draining" ? 1 : 0;
  const rtt = peer.rtt_us === null ? null : `${(peer.rtt_us / 1000).toFixed(1)} ms`;
  const facts = [`${plural(peer.tunnels, "tunnel")}`, plural(peer.sessions, "session"), rtt, `${bytes(peer.bytes_sent)} sent`, `${bytes(peer.bytes_received)} received`];
  return (
    <li class={`l${level}`}>
      <Mark level={level} size={10} />
      <div class="which">
        {peer.peer} <span class="dim">{peer.address}, {peer.direction}</span>
        {peer.tunnels > 0 && <p class="dim">{facts.filter(Boolean).join(" · ")}</p>}
        {peer.last_error && (
          <p>
            <Text>{peer.help ? `${peer.last_error}: ${peer.help}` : peer.last_error}</Text>
          </p>
        )}
      </div>
      <span class="n">
        {peer.state}
        {peer.state === "down" && peer.last_error_ms_ago !== null && ` ${duration(age(peer.last_error_ms_ago))}`}
      </span>
    </li>
  );
}

function Certificates({ status: { peering, tls } }: { status: Status }) {
  const near = [...(peering?.certificates ?? []), ...(tls?.certificates ?? [])].filter((one) => one.expires_in_seconds < WARN_BEFORE_S);
  if (near.length === 0) return null;
  return (
    <Section id="certificates" title="Certificates">
      <ul class="lines">
        {near.map((one) => (
          <CertificateLine key={`${one.name} ${one.path}`} one={one} />
        ))}
      </ul>
    </Section>
  );
}

function CertificateLine({ one }: { one: Certificate }) {
  const left = Date.parse(one.not_after) - now();
  const level: Level = left <= 0 ? 3 : left < 7 * DAY_S * 1000 ? 2 : 1;
  return (
    <li class={`l${level}`}>
      <Mark level={level} size={10} />
      <div class="which">
        {one.name} <span class="dim">{one.identity}</span>
        <p class="dim">{one.path}</p>
      </div>
      <span class="n">{left <= 0 ? `expired ${duration(-left)} ago` : `expires in ${duration(left)}`}</span>
    </li>
  );
}

function Latest({ limit }: { limit: number }) {
  const list = events.value.slice(0, limit);
  return (
    <Section id="latest" title="Latest events" note={<a href={link({ view: "events" })}>all</a>}>
      {list.length === 0 && <p class="dim">Nothing has happened yet.</p>}
      <ol class="events">
        {list.map((event) => (
          <EventLine key={event.seq} event={event} isShort />
        ))}
      </ol>
    </Section>
  );
}

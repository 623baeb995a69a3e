// The picture of a route: from its listener to its endpoints, as wide as their shares.

import { endpointLevel, flaws, shares } from "./judge";
import { Mark } from "./parts";
import type { Endpoint, Route } from "./types";

const LINE = 20;
const WIDTH = 72;

export interface Target {
  endpoint: Endpoint | null;
  label: string;
  share: number;
  level: 0 | 1 | 2 | 3;
  note: string;
}

/** Returns at most `limit` lines, failing endpoints first, of which the last one may stand for many. */
export function targets(route: Route, limit: number): Target[] {
  const share = shares(route.endpoints);
  const isOnly = route.endpoints.length === 1;
  const all = route.endpoints.map((endpoint, i): Target => {
    const level = endpointLevel(endpoint);
    const part = share[i] ?? 0;
    const words = flaws(endpoint);
    const percent = isOnly ? "" : `${Math.round(part * 100)} %`;
    const note = words[0] ?? (part > 0 ? percent : endpoint.backup ? "backup" : endpoint.weight === 0 ? "weight 0" : "standby");
    return { endpoint, label: endpoint.description, share: part, level, note };
  });
  if (all.length === 0) {
    return route.targets.slice(0, limit).map((label) => ({ endpoint: null, label, share: 0, level: 3, note: "no endpoint" }));
  }
  if (all.length <= limit) return all;
  const worst = all.map((one, i) => ({ one, i })).sort((a, b) => b.one.level - a.one.level || a.i - b.i).map(({ one }) => one);
  const rest = worst.slice(limit - 1);
  const bad = rest.filter((one) => one.level > 0).length;
  const sum = rest.reduce((total, one) => total + one.share, 0);
  const more: Target = {
    endpoint: null,
    label: limit === 1 ? `${rest[0]?.label}, ${rest.length - 1} more` : `${rest.length} more`,
    share: sum,
    level: bad > 0 ? 3 : 0,
    note: bad > 0 ? `${bad} failing` : limit === 1 ? "" : `${Math.round(sum * 100)} %`,
  };
  return [...worst.slice(0, limit - 1), more];
}

/** The lines between listener and endpoints. */
export function Flow({ lines, isPaused }: { lines: Target[]; isPaused: boolean }) {
  const height = Math.max(1, lines.length) * LINE;
  const middle = height / 2;
  return (
    <svg class="flow" width={WIDTH} height={height} viewBox={`0 0 ${WIDTH} ${height}`} aria-hidden="true">
      {lines.map((line, i) => {
        const y = i * LINE + LINE / 2;
        const path = `M${isPaused ? 10 : 4} ${middle}C34 ${middle} 30 ${y} ${WIDTH - 4} ${y}`;
        const kind = line.level === 3 ? "bad" : line.share > 0 && !isPaused ? "on" : "off";
        const width = kind === "on" ? 1.5 + 6 * line.share : 1.5;
        return (
          <g key={i} class={kind}>
            <path d={path} stroke-width={width} />
            {kind === "bad" && <path class="cross" d={`M${WIDTH - 8} ${y - 4}l8 8m0-8l-8 8`} />}
          </g>
        );
      })}
      {isPaused ? <path class="gate" d={`M3 ${middle - 6}v12M8 ${middle - 6}v12`} /> : <circle class="node" cx="4" cy={middle} r="3.5" />}
    </svg>
  );
}

/** The endpoints at the ends of these lines. */
export function Targets({ lines }: { lines: Target[] }) {
  return (
    <ul class="targets">
      {lines.map((line, i) => (
        <li key={i} class={line.level === 3 ? "l3" : line.level === 1 ? "l1" : ""}>
          <span class="addr" title={line.label}>
            {line.label}
          </span>
          {line.note && (
            <span class="what">
              {line.level === 3 && <Mark level={3} size={8} />}
              {line.note}
            </span>
          )}
        </li>
      ))}
    </ul>
  );
}

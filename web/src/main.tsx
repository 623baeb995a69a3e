// The page: one screen that shows whether anything is wrong, where, and since when.

import { render } from "preact";
import { keepToken, readToken } from "./api";
import { Aside } from "./aside";
import { closeDetail, Detail } from "./detail";
import { Dialogs, openAdd, openHelp, Results, routeFor } from "./dialogs";
import { Events } from "./events";
import { Bar, Header, Lost } from "./header";
import { startHistory } from "./history";
import { done, order, pauseOrResume, undo } from "./orders";
import { isWide, Mark, Spoken } from "./parts";
import { go, place, search } from "./place";
import { cursor, move, Routes } from "./routes";
import { Sessions } from "./sessions";
import { link, status } from "./store";
import { start } from "./stream";
import { nextTheme } from "./theme";

function Page() {
  if (link.value.state === "locked") return <Token why={link.value.why} />;
  if (!status.value) return <Loading />;
  const { view, route } = place.value;
  return (
    <div class={`page ${link.value.state}${view !== "routes" || route ? " inner" : ""}`}>
      <Lost />
      <Header />
      <Bar />
      <main>
        {view === "routes" && <Overview route={route} />}
        {view === "sessions" && <Sessions />}
        {view === "events" && <Events />}
      </main>
      <Results />
      <Dialogs />
    </div>
  );
}

/** The routes, and beside them the details of one or everything else. On a small screen, the details alone. */
function Overview({ route }: { route: string | null }) {
  if (!isWide.value) {
    if (route) return <Detail key={route} name={route} />;
    return (
      <>
        <Routes />
        <aside>
          <Aside latest={10} />
        </aside>
      </>
    );
  }
  return (
    <div class={`columns${route ? " detailed" : ""}`}>
      <Routes />
      <aside>{route ? <Detail key={route} name={route} /> : <Aside latest={30} />}</aside>
    </div>
  );
}

function Loading() {
  const state = link.value;
  return (
    <main class="alone">
      <p class="brand">ambassador</p>
      <h1>{state.state === "lost" ? "The ambassador does not answer" : "Connecting …"}</h1>
      {state.state === "lost" && <p class="dim">{state.why}. The page tries again by itself.</p>}
    </main>
  );
}

function Token({ why }: { why: string }) {
  return (
    <main class="alone">
      <p class="brand">ambassador</p>
      <h1>This page needs a token</h1>
      <p class="dim">
        The ambassador prints the address of this page with its token. Open that address, or paste the token here.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const text = String(new FormData(event.currentTarget).get("token") ?? "");
          keepToken(/token=([^&\s]+)/.exec(text)?.[1] ?? text);
          start();
        }}
      >
        <div class="field">
          <label for="token">Token</label>
          <input id="token" name="token" type="password" autocomplete="off" autofocus required aria-describedby={why ? "token-error" : undefined} />
          {why && (
            <p class="problem" id="token-error" role="alert">
              <Mark level={3} size={10} /> {why}
            </p>
          )}
        </div>
        <button type="submit" class="primary">
          Continue
        </button>
      </form>
    </main>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select") !== null;
}

function escape(target: EventTarget | null): void {
  const text = search[place.value.view];
  if (text.value) text.value = "";
  else if (isTyping(target) && target instanceof HTMLElement) target.blur();
  else closeDetail();
}

const KEYS: Record<string, () => void> = {
  "/": () => document.getElementById("search")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  p: () => {
    const route = routeFor(place.value.route ?? cursor.value);
    if (route) pauseOrResume(route);
  },
  s: () => {
    const route = routeFor(place.value.route ?? cursor.value);
    if (route) order.value = { kind: "switch", route };
  },
  a: openAdd,
  u: () => {
    const last = done.value[0];
    if (last) void undo(last);
  },
  t: nextTheme,
  "?": openHelp,
  "1": () => go({ view: "routes" }),
  "2": () => go({ view: "sessions" }),
  "3": () => go({ view: "events" }),
};

const LIST_KEYS = new Set(["j", "k", "ArrowDown", "ArrowUp"]);

function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || order.value || !status.value) return;
  if (event.key === "Escape") {
    escape(event.target);
    return;
  }
  if (isTyping(event.target)) return;
  if (LIST_KEYS.has(event.key) && place.value.view !== "routes") return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

readToken();
addEventListener("keydown", onKey);
start();
startHistory();
const root = document.getElementById("page");
if (root) {
  render(
    <>
      <Page />
      <Spoken />
    </>,
    root,
  );
}

// Light, dark, or that of the system; remembered in this browser.

import { signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
const THEMES: Theme[] = ["auto", "light", "dark"];
const KEY = "ambassador-theme";

function read(): Theme {
  try {
    return THEMES.find((one) => one === localStorage.getItem(KEY)) ?? "auto";
  } catch {
    return "auto";
  }
}

export const theme = signal<Theme>(read());

theme.subscribe((value) => {
  document.documentElement.dataset.theme = value;
});

export function nextTheme(): void {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] as Theme;
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
}

// Numbers, sizes and times as people read them, in the language of their browser.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exactTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const count = (n: number): string => whole.format(n);

export const plural = (n: number, one: string, many = `${one}s`): string =>
  `${count(n)} ${n === 1 ? one : many}`;

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(n: number): string {
  let value = n;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${(value < 10 && unit > 0 ? tenth : whole).format(value)} ${UNITS[unit]}`;
}

export function share(part: number): string {
  const percent = part * 100;
  // Never rounded up to a hundred: an outage stays one.
  const shown = percent < 100 ? Math.min(percent, 99.99) : 100;
  const digits = shown === 100 || shown === 0 ? 0 : shown > 99 ? 2 : 1;
  return `${shown.toFixed(digits)} %`;
}

/** How long something takes or took: `340 ms`, `12 s`, `3 min`, `5 h`, `12 days`. */
export function span(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${tenth.format(seconds)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = seconds / 60;
  if (minutes < 90) return `${Math.round(minutes)} min`;
  const hours = minutes / 60;
  if (hours < 36) return `${Math.round(hours)} h`;
  return `${count(Math.round(hours / 24))} days`;
}

export function ago(at: string, now: number): string {
  const ms = now - Date.parse(at);
  return ms < 5000 ? "just now" : `${span(ms)} ago`;
}

export function moment(at: string, now: number): string {
  const date = new Date(at);
  return now - date.getTime() < 20 * 3600_000 ? clockTime.format(date) : dayTime.format(date);
}

export const exact = (at: string): string => exactTime.format(new Date(at));

export function daysUntilFull(days: number | null): string {
  if (days === null) return "not filling up";
  if (days > 3650) return "full in over ten years";
  if (days > 730) return `full in ${Math.round(days / 365)} years`;
  if (days > 60) return `full in ${Math.round(days / 30.4)} months`;
  return days < 1 ? "full within a day" : `full in ${plural(Math.round(days), "day")}`;
}

export const fileName = (path: string): string => path.split("/").pop() || path;

export const folderOf = (path: string): string => path.slice(0, path.lastIndexOf("/") + 1);

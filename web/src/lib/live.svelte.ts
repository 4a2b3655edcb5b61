// Everything the page shows, kept fresh: by the server's stream, and by asking where that fails.
import { get, Problem } from "./api";
import type { Errors, Figures, History, Inboxes, Overview, Places } from "./contract";

const ASK_EVERY = 5_000;
const STREAM_AGAIN = 15_000;
const ABSENT_AGAIN = 60_000;
const HISTORY_EVERY = 30_000;
const SILENCE = 30_000; // of a stream, after which the page asks whether anybody is there

export type Link = "connecting" | "live" | "asking" | "away";

class Live {
  link = $state<Link>("connecting");
  trouble = $state<string | null>(null);
  now = $state(Date.now());
  status = $state.raw<Overview | null>(null);
  figures = $state.raw<Figures | null>(null);
  errors = $state.raw<Errors | null>(null);
  inboxes = $state.raw<Inboxes | null>(null);
  places = $state.raw<Places | null>(null);
  history = $state.raw<History | null>(null);
  hours = $state(24);
  #hoursChosen = false;

  #stream: EventSource | null = null;
  #streamTried = 0;
  #heard = 0;
  #absent = new Map<string, number>();
  #ahead = 0; // of the server's clock, in ms

  /** Begin; the answer ends it. */
  start(): () => void {
    this.#listen();
    void this.#ask();
    void this.readHistory();
    const timers = [
      setInterval(() => (this.now = Date.now()), 1_000),
      setInterval(() => void this.#ask(), ASK_EVERY),
      setInterval(() => void this.readHistory(), HISTORY_EVERY),
    ];
    const woken = () => {
      if (document.visibilityState === "visible") void this.#ask();
    };
    document.addEventListener("visibilitychange", woken);
    return () => {
      timers.forEach(clearInterval);
      document.removeEventListener("visibilitychange", woken);
      this.#stream?.close();
    };
  }

  /** The present by the server's clock. */
  get serverNow(): number {
    return this.now - this.#ahead;
  }

  async readHistory(): Promise<void> {
    const hours = this.hours;
    try {
      const found = await get<History>(`/api/ops/history?hours=${hours}`);
      if (hours !== this.hours) return;
      const young = found.services.every(
        (one) => Date.parse(one.first_heard_of ?? found.until) > Date.parse(found.until) - 3600_000,
      );
      if (!this.#hoursChosen && hours !== 1 && young && found.services.length) {
        // On its first day a window of a day would show next to nothing.
        await this.showHours(1);
        this.#hoursChosen = false;
      } else {
        this.history = found;
      }
    } catch {
      // The status says that the server is away.
    }
  }

  async showHours(hours: number): Promise<void> {
    this.#hoursChosen = true;
    this.hours = hours;
    await this.readHistory();
  }

  /** Read again what a person's deed has changed. */
  async refresh(): Promise<void> {
    this.#absent.clear();
    await this.#ask(true);
  }

  #listen(): void {
    this.#streamTried = Date.now();
    const stream = new EventSource("/api/ops/stream");
    this.#stream = stream;
    stream.addEventListener("status", (event) => {
      this.#take(JSON.parse(event.data as string) as Overview);
      this.link = "live";
      this.trouble = null;
      this.#heard = Date.now();
    });
    stream.addEventListener("figures", (event) => {
      this.figures = JSON.parse(event.data as string) as Figures;
    });
    stream.addEventListener("errors", (event) => {
      this.errors = JSON.parse(event.data as string) as Errors;
    });
    stream.addEventListener("error", () => {
      // The browser's own retries are not waited for: the page asks instead, and listens later.
      stream.close();
      if (this.#stream === stream) this.#stream = null;
      if (this.link === "live") this.link = "asking";
      void this.#ask();
    });
  }

  async #ask(everything = false): Promise<void> {
    if (document.visibilityState === "hidden" && this.status !== null && !everything) return;
    await Promise.all([
      this.#optional<Inboxes>("/api/inbox", (found) => (this.inboxes = found)),
      this.#optional<Places>("/api/places", (found) => (this.places = found)),
    ]);
    const quiet = Date.now() - this.#heard > SILENCE;
    if (this.#stream !== null && this.link === "live" && !quiet && !everything) return;
    try {
      const [status, figures, errors] = await Promise.all([
        get<Overview>("/api/ops/status"),
        get<Figures>("/api/ops/figures"),
        get<Errors>("/api/ops/errors"),
      ]);
      this.#take(status);
      this.figures = figures;
      this.errors = errors;
      this.trouble = null;
      if (this.#stream === null) {
        this.link = "asking";
        if (Date.now() - this.#streamTried > STREAM_AGAIN || this.#streamTried === 0) this.#listen();
      }
    } catch (error) {
      this.link = "away";
      this.trouble = error instanceof Problem ? error.message : "Kaleidoscope does not answer.";
      this.#stream?.close();
      this.#stream = null;
      this.#streamTried = 0;
    }
  }

  #take(status: Overview): void {
    const [first] = status.services;
    if (first) {
      // When the answer was made is the last heartbeat and its age.
      const made = Date.parse(first.last_heartbeat) + first.age_seconds * 1000;
      this.#ahead = Date.now() - made;
      this.now = Date.now();
    }
    this.status = status;
  }

  async #optional<T>(path: string, take: (found: T | null) => void): Promise<void> {
    if ((this.#absent.get(path) ?? 0) > Date.now()) return;
    try {
      take(await get<T>(path));
    } catch (error) {
      if (error instanceof Problem && [404, 405, 501].includes(error.status)) {
        this.#absent.set(path, Date.now() + ABSENT_AGAIN);
        take(null);
      }
    }
  }
}

export const live = new Live();

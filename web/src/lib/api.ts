// Calls to the API that served this page.

export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint: string | null = null,
  ) {
    super(message);
  }
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(20_000),
    });
  } catch {
    throw new Problem(0, "Kaleidoscope does not answer.");
  }
  if (!answer.ok) {
    const told = (await answer.json().catch(() => null)) as Record<string, unknown> | null;
    const detail = typeof told?.detail === "string" ? told.detail : answer.statusText;
    const hint = typeof told?.hint === "string" ? told.hint : null;
    throw new Problem(answer.status, detail, hint);
  }
  return (await answer.json()) as T;
}

export const get = <T>(path: string): Promise<T> => call<T>("GET", path);
export const post = <T>(path: string, body: unknown): Promise<T> => call<T>("POST", path, body);

export const thumbnail = (photoId: number): string => `/api/photos/${photoId}/thumbnail`;
export const preview = (photoId: number): string => `/api/photos/${photoId}/preview`;

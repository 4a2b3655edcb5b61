// Which photo's flight recorder is open: the address says it, so that it can be sent and kept.

class Panel {
  photoId = $state<number | null>(read());

  constructor() {
    addEventListener("popstate", () => (this.photoId = read()));
  }

  open(photoId: number): void {
    if (this.photoId === photoId) return;
    this.photoId = photoId;
    history.pushState(null, "", `?photo=${photoId}`);
  }

  close(): void {
    if (this.photoId === null) return;
    this.photoId = null;
    history.pushState(null, "", location.pathname);
  }
}

function read(): number | null {
  const told = new URLSearchParams(location.search).get("photo");
  return told !== null && /^\d{1,18}$/.test(told) ? Number(told) : null;
}

export const panel = new Panel();

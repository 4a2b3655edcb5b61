// What the passes over a photo are called: once done, and while they are at it.

const PASSES: Record<string, [done: string, doing: string]> = {
  received: ["Received", "Receiving"],
  hashed: ["Read and hashed", "Reading the file"],
  filed: ["Filed", "Filing"],
  "set-aside": ["Set aside", "Setting aside"],
  dated: ["Dated", "Finding the date"],
  "date-corrected": ["Date corrected", "Correcting the date"],
  geocoded: ["Place found", "Finding the place"],
  thumbnailed: ["Thumbnails made", "Making thumbnails"],
  recognised: ["Looked at for faces", "Looking for faces"],
  curated: ["Looked through", "Looking through"],
  "backed-up": ["Backed up", "Backing up"],
  scrubbed: ["Original checked", "Checking the original"],
  missing: ["Found to be missing", "Finding the file"],
  "found-again": ["Found again", "Finding the file again"],
  healed: ["Healed", "Healing"],
};

export const done = (what: string): string => PASSES[what]?.[0] ?? what;
export const doing = (what: string): string => PASSES[what]?.[1] ?? what;

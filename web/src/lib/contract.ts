// What the API says. Generated from its OpenAPI document where the document has it; the rest are
// routes of other rooms, which an older server may lack: the page then shows nothing of them.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Overview = Schemas["Overview"];
export type Service = Schemas["ServiceStatus"];
export type Figures = Schemas["Figures"];
export type Disk = Schemas["Disk"];
export type Errors = Schemas["Errors"];
export type ErrorGroup = Schemas["ErrorGroup"];
export type History = Schemas["History"];
export type ServiceHistory = Schemas["ServiceHistory"];
export type Segment = Schemas["Segment"];
export type LatestAsset = Schemas["LatestAsset"];
export type Retried = Schemas["Retried"];
export type Colour = Service["colour"];

export interface InboxProblem {
  path: string;
  cause: string;
  since: string | null;
}

export interface Inbox {
  path: string;
  waiting: number;
  settling: number;
  filed_last_hour: number;
  problems: InboxProblem[];
  current: string | null;
}

export interface Inboxes {
  inboxes: Inbox[];
}

export interface Place {
  place_id: number | string;
  path: string;
  kind: string;
  assets: number;
  missing: number;
  frozen_at: string | null;
  frozen_because: string | null;
  last_seen_at: string | null;
}

export interface Places {
  places: Place[];
}

export interface PhotoEvent {
  at: string;
  what: string;
  outcome: string;
  attempt: number | null;
  duration_ms: number | null;
  model_version: string | null;
  error: string | null;
  retry: string | null;
  detail: unknown;
}

export interface PhotoHistory {
  photo_id: number;
  path: string;
  events: PhotoEvent[];
}

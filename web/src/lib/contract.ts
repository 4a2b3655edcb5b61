// What the API says, by the names the page uses: generated from its OpenAPI document. A route that a
// server lacks answers 404, and the page then shows nothing of it.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Overview = Schemas["Overview"];
export type Service = Schemas["ServiceStatus"];
export type Figures = Schemas["Figures"];
export type Disk = Schemas["Disk"];
export type Errors = Schemas["Errors"];
export type ErrorGroup = Schemas["ErrorGroup"];
export type History = Schemas["ServicesHistory"];
export type ServiceHistory = Schemas["ServiceHistory"];
export type Segment = Schemas["Segment"];
export type LatestAsset = Schemas["LatestAsset"];
export type Retried = Schemas["RetriedCause"];
export type Colour = Service["colour"];

export type Inbox = Schemas["Inbox"];
export type Inboxes = Schemas["Inboxes"];
export type PhotoEvent = Schemas["HistoryEvent"];
export type PhotoHistory = Schemas["History"];

export type Place = Schemas["PlaceView"];
export type Places = Schemas["Places"];

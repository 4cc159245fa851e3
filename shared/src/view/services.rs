//! Services, activities and scenes.

use super::Awaited;
use crate::Address;
use crate::case::{Contact, Place};
use crate::config::services::{Scene, Service};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

views! {
    Services = "citybrain.services/1",
    ServiceShown = "citybrain.service/1",
    Scenes = "citybrain.scenes/1",
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Services {
    /// The node's own first, then those of the nodes above it, nearest first.
    pub services: Vec<Offer>,
    /// Why some of those above may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
}

impl Services {
    /// What a list lacks that [`awaits`](Services::awaits), in words.
    pub const FROM_ABOVE: &str = "services from above";
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offer {
    /// Whose it is: requests become cases of this node.
    pub node: Address,
    #[serde(flatten)]
    pub service: Service,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceShown {
    pub offer: Offer,
    /// What is free, only at the node that offers it: it alone counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Free>,
    /// Why it cannot say yet what is free, though it offers it: requests are answered then, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Free {
    /// Appointments ahead, also full ones, up to 500 that are free.
    pub slots: Vec<Slot>,
    /// There are more free ones behind those.
    pub more: bool,
    /// Seats of an activity, if they are counted.
    pub places: Option<u32>,
    pub volunteers: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Slot {
    pub at: DateTime<Utc>,
    /// In the calendar's zone: `2026-11-28 10:00`.
    pub local: String,
    pub free: u32,
}

/// What somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ServiceRequest {
    /// Whose service, where several nodes have one of that code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<Address>,
    /// An appointment's begin: RFC 3339, or local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Help instead of taking a seat.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub volunteer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seats: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub channel: String,
    pub contact: Contact,
    pub by: String,
    /// Of the asker's own; asked twice with the same one, it opens one case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Scenes {
    pub scenes: Vec<SceneShown>,
    /// Why some of those above may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
}

impl Scenes {
    /// What a list lacks that [`awaits`](Scenes::awaits), in words.
    pub const FROM_ABOVE: &str = "scenes from above";
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SceneShown {
    pub node: Address,
    #[serde(flatten)]
    pub scene: Scene,
}

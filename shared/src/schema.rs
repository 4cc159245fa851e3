//! JSON Schemas of what is written as text. All else derives its own.

use crate::Address;
use crate::config::cases::Limit;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A node's place in the tree: 1 to 4 segments, such as `chengdu/liucheng/guanghua/shili`.",
            "pattern": "^[a-z0-9][a-z0-9-]{0,62}(/[a-z0-9][a-z0-9-]{0,62}){0,3}$",
        })
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time limit: `4wh` (working hours), `2wd` (working days), or `24h`, `30m`, `90s`, `3d` \
                            (round the clock).",
            "pattern": "^[0-9]{1,5}(wh|wd|s|m|h|d)$",
        })
    }
}

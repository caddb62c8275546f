//! One item of an upstream's `endpoints`: an address alone, or a mapping that says more of it.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// An endpoint. Read by hand, since an untagged enum would lose path and line of a mistake in it.
#[derive(Debug)]
pub(in crate::config) enum Endpoint {
    Address(String),
    Section(Section),
}

/// An endpoint of which more is said than its address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Section {
    /// IP address and port. Required.
    pub(in crate::config) address: Option<String>,
    /// It takes calls only while no endpoint without this mark is available. Default: false.
    pub(in crate::config) backup: bool,
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let section = generator.subschema_for::<Section>();
        json_schema!({ "anyOf": [{ "type": "string" }, section] })
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Endpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as \"10.0.0.1:4317\", or a mapping that has one")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Endpoint, E> {
        Ok(Endpoint::Address(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
        Section::deserialize(MapAccessDeserializer::new(map)).map(Endpoint::Section)
    }
}

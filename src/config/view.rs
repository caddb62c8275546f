//! Views: what a service's state is made of, as an expression over upstreams.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// An expression over upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View<T> {
    /// This upstream serves: enough of its endpoints are healthy.
    Upstream(T),
    /// Every one of these serves.
    All(Vec<Self>),
    /// At least one of these serves.
    Any(Vec<Self>),
    /// This one does not serve.
    Not(Box<Self>),
    /// So many of these serve.
    AtLeast(usize, Vec<Self>),
}

impl<T> View<T> {
    /// The upstreams in it, in their order.
    pub fn upstreams(&self) -> Vec<&T> {
        match self {
            Self::Upstream(upstream) => vec![upstream],
            Self::All(views) | Self::Any(views) | Self::AtLeast(_, views) => {
                views.iter().flat_map(Self::upstreams).collect()
            }
            Self::Not(view) => view.upstreams(),
        }
    }

    /// The same over something else than `T`.
    pub fn map<U>(&self, to: &impl Fn(&T) -> U) -> View<U> {
        let all = |views: &[Self]| views.iter().map(|view| view.map(to)).collect();
        match self {
            Self::Upstream(upstream) => View::Upstream(to(upstream)),
            Self::All(views) => View::All(all(views)),
            Self::Any(views) => View::Any(all(views)),
            Self::Not(view) => View::Not(Box::new(view.map(to))),
            Self::AtLeast(count, views) => View::AtLeast(*count, all(views)),
        }
    }
}

impl<T: fmt::Display> fmt::Display for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, views) = match self {
            Self::Upstream(upstream) => return upstream.fmt(f),
            Self::Not(view) => return write!(f, "not {view}"),
            Self::All(views) => ("all of ".to_owned(), views),
            Self::Any(views) => ("any of ".to_owned(), views),
            Self::AtLeast(count, views) => (format!("{count} of "), views),
        };
        f.write_str(&of)?;
        for (index, view) in views.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match view {
                Self::Upstream(_) | Self::Not(_) => view.fmt(f)?,
                _ => write!(f, "({view})")?,
            }
        }
        Ok(())
    }
}

/// A view as it is written: exactly one of `all`, `any`, `not` and `at_least`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "View")]
pub(super) struct Section {
    /// Serves when every one of these does. At least one.
    pub(super) all: Option<Vec<Part>>,
    /// Serves when at least one of these does. At least one.
    pub(super) any: Option<Vec<Part>>,
    /// Serves when this does not.
    pub(super) not: Option<Part>,
    /// Serves when so many of these do.
    pub(super) at_least: Option<AtLeast>,
    /// How long a change must last before it is told, both ways; the first state after the start,
    /// and a drain, are told at once. Of a service, not of a part of it. Default: 0s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) hold: Option<Duration>,
}

/// `at_least: { count: 2, of: [a, b, c] }`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AtLeast {
    /// How many; at least 1, and no more than there are.
    pub(super) count: u32,
    /// Of which.
    pub(super) of: Vec<Part>,
}

/// An upstream's name, or a view within a view.
#[derive(Debug)]
pub(super) enum Part {
    Upstream(String),
    View(Box<Section>),
}

impl<'de> Deserialize<'de> for Part {
    /// By hand: what serde derives for such a type loses the path to a mistake in it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an upstream's name, or a section with all, any, not or at_least")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Part, E> {
                Ok(Part::Upstream(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
                let section = Section::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Part::View(Box::new(section)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Part {
    fn schema_name() -> Cow<'static, str> {
        "Part".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let section = generator.subschema_for::<Section>();
        json_schema!({
            "description": "An upstream's name, or a view within a view.",
            "anyOf": [{ "type": "string" }, section],
        })
    }
}

//! Scalars with a meaning of their own: a quorum, a share, a number of workers.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// How many endpoints must be healthy for an upstream to serve: a count, or a share of them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// At least this many endpoints.
    Count(u32),
    /// At least this share of the endpoints, rounded up, and at least one.
    Share(Share),
}

impl Quorum {
    /// How many of `total` endpoints are needed.
    pub fn needed(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Share(share) => (total * share.0 as usize).div_ceil(100).max(1),
        }
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl FromStr for Quorum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a count such as 1, or a share such as \"50%\"";
        if text.ends_with('%') {
            return text.parse().map(Self::Share);
        }
        match text.parse() {
            Ok(0) => Err(format!("0 would call an upstream well without any endpoint: {EXPECTED}")),
            Ok(count) => Ok(Self::Count(count)),
            Err(_) => Err(format!("{text:?} is no number of endpoints: {EXPECTED}")),
        }
    }
}

/// A share in whole percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share(pub u8);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
        match percent {
            Some(percent @ 0..=100) => Ok(Self(percent)),
            _ => Err(format!("{text:?} is not a share: expected \"0%\" to \"100%\"")),
        }
    }
}

/// How many worker threads carry traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Workers {
    /// One for each core that the process may use.
    #[default]
    Auto,
    /// This many, at least one.
    Count(u16),
}

impl Workers {
    /// The number of threads to start.
    pub fn count(self) -> usize {
        match self {
            Self::Auto => std::thread::available_parallelism().map_or(1, usize::from),
            Self::Count(count) => count.into(),
        }
    }
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count @ 1..=1024) => Ok(Self::Count(count)),
            _ => Err(format!("{text:?} is not a number of workers: expected auto, or 1 to 1024")),
        }
    }
}

/// A number that may be left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cap {
    /// No bound.
    #[default]
    Unlimited,
    /// At most this many, at least one.
    Count(u32),
}

impl FromStr for Cap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "unlimited" => Ok(Self::Unlimited),
            Ok(count @ 1..) => Ok(Self::Count(count)),
            _ => Err(format!("{text:?} is not a bound: expected unlimited, or at least 1")),
        }
    }
}

/// Reads a YAML number or string through the type's `FromStr`.
macro_rules! scalar {
    ($type:ident, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Scalar)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

scalar!(Quorum, {
    "anyOf": [
        { "type": "integer", "minimum": 1 },
        { "type": "string", "pattern": "^([1-9][0-9]*|(100|[0-9]{1,2})%)$" },
    ]
});
scalar!(Share, { "type": "string", "pattern": "^(100|[0-9]{1,2})%$" });
scalar!(Workers, {
    "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": 1024 },
        { "type": "string", "pattern": "^(auto|[1-9][0-9]{0,3})$" },
    ]
});

scalar!(Cap, {
    "anyOf": [
        { "type": "integer", "minimum": 1 },
        { "type": "string", "pattern": "^(unlimited|[1-9][0-9]*)$" },
    ]
});

struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_endpoints_is_rounded_up_and_never_none() {
        let half: Quorum = "50%".parse().unwrap();
        assert_eq!([1, 2, 3, 4].map(|total| half.needed(total)), [1, 1, 2, 2]);
        assert_eq!("0%".parse::<Quorum>().unwrap().needed(3), 1);
    }

    #[test]
    fn quorum_of_an_empty_upstream_is_never_met() {
        assert_eq!(Quorum::Count(1).needed(0), 1);
        assert_eq!(Quorum::Share(Share(50)).needed(0), 1);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!("0".parse::<Quorum>().is_err());
        assert!("101%".parse::<Share>().is_err());
        assert!("0".parse::<Workers>().is_err());
        assert!("-1".parse::<Workers>().is_err());
    }
}

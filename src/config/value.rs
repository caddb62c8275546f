//! Scalars with a meaning of their own: a quorum, a share, a number of workers, a range of
//! addresses, when a Watch is held.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use bytesize::ByteSize;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
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

/// How much may be kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buffer {
    /// A share of the memory that the process may use.
    #[default]
    Auto,
    /// This much.
    Size(ByteSize),
}

impl FromStr for Buffer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(size) => Ok(Self::Size(size)),
            Err(_) => Err(format!("{text:?} is not a size: expected auto, or such as 64MiB")),
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

/// When an endpoint's `Health/Watch` is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watch {
    /// Where the endpoint has one.
    #[default]
    Auto,
    /// Always; its lack is told.
    Always,
    /// Never.
    Never,
}

impl<'de> Deserialize<'de> for Watch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = Watch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, true or false")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Watch, E> {
                Ok(if value { Watch::Always } else { Watch::Never })
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Watch, E> {
                match value {
                    "auto" => Ok(Watch::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
                }
            }
        }

        deserializer.deserialize_any(Words)
    }
}

impl JsonSchema for Watch {
    fn schema_name() -> Cow<'static, str> {
        "Watch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "const": "auto" }] })
    }
}

/// Addresses: a network, one address, or a set that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range(Vec<IpNet>);

impl Range {
    /// Whether an address is in it; an IPv4 one that is written as IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == GCP_HEALTH_CHECKS.0 {
            let networks = GCP_HEALTH_CHECKS.1.iter().map(|text| text.parse());
            return Ok(Self(networks.collect::<Result<_, _>>().expect("written as networks are")));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(vec![address.to_canonical().into()]));
        }
        let network = text.parse::<IpNet>().map_err(|_| {
            format!(
                "{text:?} is no range of addresses: expected one such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7, or {}",
                GCP_HEALTH_CHECKS.0
            )
        })?;
        match network.trunc() {
            whole if whole == network => Ok(Self(vec![network])),
            whole => Err(format!("{text} has bits behind its prefix: expected {whole}")),
        }
    }
}

/// What Google Cloud's health checks and load balancers come from
/// (<https://cloud.google.com/load-balancing/docs/firewall-rules>).
const GCP_HEALTH_CHECKS: (&str, [&str; 2]) =
    ("gcp-health-checks", ["35.191.0.0/16", "130.211.0.0/22"]);

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

scalar!(Buffer, { "type": "string" });

scalar!(Range, { "type": "string" });

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
    fn ranges_have_the_addresses_that_they_say() {
        for (range, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "10.0.0.1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("gcp-health-checks", "35.191.255.1", true),
            ("gcp-health-checks", "130.211.3.255", true),
            ("gcp-health-checks", "130.211.4.0", false),
        ] {
            let range: Range = range.parse().unwrap();
            assert_eq!(range.contains(address.parse().unwrap()), is_in, "{range:?} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "localhost", "gcp"] {
            assert!(text.parse::<Range>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!("0".parse::<Quorum>().is_err());
        assert!("101%".parse::<Share>().is_err());
        assert!("0".parse::<Workers>().is_err());
        assert!("-1".parse::<Workers>().is_err());
    }
}

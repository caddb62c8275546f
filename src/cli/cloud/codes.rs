//! gRPC status codes that a target group takes for health.

use std::{fmt, str::FromStr};

/// Success codes as an ALB writes them: `0`, `0,12`, `0-99`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codes {
    text: String,
    ranges: Vec<(u8, u8)>,
}

impl Codes {
    /// One code alone.
    pub(super) fn one(code: u8) -> Self {
        Self { text: code.to_string(), ranges: vec![(code, code)] }
    }

    /// Whether a check that is answered with `code` passes.
    pub(super) fn pass(&self, code: u8) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&code))
    }
}

impl FromStr for Codes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected codes from 0 to 99, such as 0, 0,12 or 0-99";
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last <= 99).then_some((first, last))
        };
        let ranges = text.split(',').map(range).collect::<Option<_>>().ok_or(EXPECTED)?;
        Ok(Self { text: text.to_owned(), ranges })
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_an_alb_reads_them() {
        for (text, pass, fail) in [
            ("0", vec![0], vec![1, 14]),
            ("0,12", vec![0, 12], vec![1, 14]),
            ("0-99", vec![0, 14], vec![]),
        ] {
            let codes: Codes = text.parse().unwrap();
            assert!(pass.iter().all(|code| codes.pass(*code)), "{text}");
            assert!(!fail.iter().any(|code| codes.pass(*code)), "{text}");
            assert_eq!(codes.to_string(), text);
        }
        for text in ["", "OK", "100", "5-1", "0,", "-1"] {
            assert!(text.parse::<Codes>().is_err(), "{text:?}");
        }
    }
}

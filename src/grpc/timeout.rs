//! `grpc-timeout` (grpc/doc/PROTOCOL-HTTP2.md, Requests): at most eight digits and a unit.

use std::time::Duration;

/// What a value says; none where it has not that form.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The value that says so many milliseconds, or the seconds in them where these have too many
/// digits.
pub fn format(millis: u64) -> String {
    match millis {
        0..=99_999_999 => format!("{millis}m"),
        _ => format!("{}S", (millis / 1000).min(99_999_999)),
    }
}

const DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_the_protocol() {
        for (text, nanos) in [
            ("1H", 3600 * 1_000_000_000),
            ("2M", 120 * 1_000_000_000),
            ("10S", 10 * 1_000_000_000),
            ("9999m", 9_999_000_000),
            ("5u", 5000),
            ("0n", 0),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().as_nanos(), nanos, "{text}");
        }
    }

    #[test]
    fn what_has_another_form_is_none() {
        for text in ["", "1", "S", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1 S"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            _ = parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_as_the_same_or_as_less_than_a_second_less(millis in 0..u64::MAX) {
            let read = parse(format(millis).as_bytes()).unwrap().as_millis();
            let bound = u128::from(millis).min(99_999_999_000);
            prop_assert!(read <= bound && bound < read + 1000);
        }
    }
}

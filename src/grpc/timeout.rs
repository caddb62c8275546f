//! `grpc-timeout` (grpc/doc/PROTOCOL-HTTP2.md, Requests): at most eight digits and a unit.

/// What a value says, in milliseconds and rounded up; none where it has not that form.
pub fn parse(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })?;
    Some(match unit {
        b'H' => number * 3_600_000,
        b'M' => number * 60_000,
        b'S' => number * 1000,
        b'm' => number,
        b'u' => number.div_ceil(1000),
        b'n' => number.div_ceil(1_000_000),
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
        for (text, millis) in [
            ("1H", 3_600_000),
            ("99999999H", 359_999_996_400_000),
            ("2M", 120_000),
            ("10S", 10_000),
            ("9999m", 9999),
            ("5000u", 5),
            ("5001u", 6),
            ("1n", 1),
            ("0n", 0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(millis), "{text}");
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
            let read = parse(format(millis).as_bytes()).unwrap();
            let bound = millis.min(99_999_999_000);
            prop_assert!(read <= bound && bound < read + 1000);
        }
    }
}

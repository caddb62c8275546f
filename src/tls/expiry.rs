//! When a certificate ends: the one thing of X.509 that is read here, since what checks
//! certificates does not tell it.

use super::der::{GENERALIZED, INTEGER, SEQUENCE, UTC, VERSION, take};

/// The end of a certificate's validity, in seconds since 1970 (RFC 5280, 4.1).
pub(super) fn end(certificate: &[u8]) -> Option<i64> {
    let mut outer = certificate;
    let mut certificate = take(&mut outer, SEQUENCE)?;
    let mut fields = take(&mut certificate, SEQUENCE)?;
    // The version, which the first one does not have.
    if fields.first() == Some(&VERSION) {
        take(&mut fields, VERSION)?;
    }
    take(&mut fields, INTEGER)?;
    take(&mut fields, SEQUENCE)?;
    take(&mut fields, SEQUENCE)?;
    let mut validity = take(&mut fields, SEQUENCE)?;
    time(&mut validity)?;
    time(&mut validity)
}

fn time(input: &mut &[u8]) -> Option<i64> {
    let kind = *input.first()?;
    let text = take(input, kind)?;
    let (century, text) = match kind {
        UTC => (0, text),
        GENERALIZED => (two(text.get(..2)?)?, &text[2..]),
        _ => return None,
    };
    let [year, month, day, hour, minute, second] =
        [0, 2, 4, 6, 8, 10].map(|at| text.get(at..at + 2).and_then(two));
    let year = match (kind, year?) {
        // Of two digits, which mean 1950 to 2049.
        (UTC, year @ 50..) => 1900 + year,
        (UTC, year) => 2000 + year,
        (_, year) => century * 100 + year,
    };
    let time = (hour? * 60 + minute?) * 60 + second?;
    Some(days(year, month?, day?) * 24 * 3600 + time)
}

fn two(digits: &[u8]) -> Option<i64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Days since 1970 by the calendar of today. A year begins in March here, so that the day that not
/// all of them have is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_is_that_which_the_certificate_was_made_with() {
        for (year, month, day) in [(1999, 12, 31), (2024, 2, 29), (2049, 3, 1), (2150, 7, 14)] {
            let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, month, day);
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(end(made.der()), Some(params.not_after.unix_timestamp()), "{year}");
        }
    }

    #[test]
    fn what_is_cut_short_has_no_end() {
        let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        for length in 0..made.der().len() {
            assert_eq!(end(&made.der()[..length]), None, "{length}");
        }
        assert_eq!(end(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}

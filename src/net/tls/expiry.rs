//! The expiry date of a certificate, for a warning or a report, and whether it signed itself. Only
//! the elements of its DER up to these are parsed (RFC 5280 §4.1); malformed DER has neither.

/// An element: its tag and its content.
type Element<'d> = (u8, &'d [u8]);

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of its validity, in milliseconds since 1970.
pub(super) fn not_after_ms(certificate: &[u8]) -> Option<i64> {
    let (_, mut fields) = issuer(certificate)?;
    let mut validity = inside(element(&mut fields)?)?;
    element(&mut validity)?;
    date(element(&mut validity)?)
}

/// Whether its issuer is not its subject.
pub(super) fn is_signed_by_another(certificate: &[u8]) -> Option<bool> {
    let (issuer, mut fields) = issuer(certificate)?;
    element(&mut fields)?;
    Some(element(&mut fields)? != issuer)
}

/// The issuer, and the fields after it: validity, subject and others.
fn issuer(certificate: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let mut outer = certificate;
    let mut certificate = inside(element(&mut outer)?)?;
    let mut fields = inside(element(&mut certificate)?)?;
    if fields.first() == Some(&VERSION) {
        element(&mut fields)?;
    }
    // Serial number, signature algorithm.
    for _ in 0..2 {
        element(&mut fields)?;
    }
    Some((element(&mut fields)?, fields))
}

/// Takes one element off the front.
fn element<'d>(bytes: &mut &'d [u8]) -> Option<Element<'d>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        // The number of length bytes. 0 is BER's indefinite length; more than 4 is no certificate.
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, content))
}

fn inside((tag, content): Element<'_>) -> Option<&[u8]> {
    (tag == SEQUENCE).then_some(content)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that RFC 5280 allows.
fn date((tag, text): Element<'_>) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let pair = |at: usize| {
        let pair = digits.get(at..at + 2)?;
        pair.iter().all(u8::is_ascii_digit).then(|| {
            let [tens, ones] = [pair[0] - b'0', pair[1] - b'0'].map(i64::from);
            tens * 10 + ones
        })
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (pair(0)? + if pair(0)? < 50 { 2000 } else { 1900 }, 2),
        (GENERALIZED_TIME, 14) => (pair(0)? * 100 + pair(2)?, 4),
        _ => return None,
    };
    let (month, day) = (pair(rest)?, pair(rest + 2)?);
    let (hour, minute, second) = (pair(rest + 4)?, pair(rest + 6)?, pair(rest + 8)?);
    let real = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !real || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Days since 1970, with years that begin on 1 March so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn dates() {
        for (tag, text, ms) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000229120000Z", Some(951_825_600_000)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999_000)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000_000)),
            (GENERALIZED_TIME, "20261121080000Z", Some(1_795_248_000_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799_000)),
            (UTC_TIME, "20261121080000Z", None),
            (GENERALIZED_TIME, "261121080000Z", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "70010100000xZ", None),
            (UTC_TIME, "700101000000+", None),
            (UTC_TIME, "", None),
            (0x04, "700101000000Z", None),
        ] {
            assert_eq!(date((tag, text.as_bytes())), ms, "{text}");
        }
    }

    #[test]
    fn a_truncated_or_changed_certificate_has_a_date_or_none() {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der();
        let whole = Some((days(2031, 2, 3) * 86_400) * 1000);
        assert_eq!(not_after_ms(der), whole);
        assert_eq!(is_signed_by_another(der), Some(false));
        for cut in 0..der.len() {
            assert_eq!(not_after_ms(&der[..cut]), None, "{cut}");
            for change in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.to_vec();
                changed[cut] = change;
                not_after_ms(&changed);
                is_signed_by_another(&changed);
            }
        }
    }

    /// A server's certificate may be any bytes: clients that skip verification read them too.
    #[test]
    fn any_bytes_have_a_date_or_none() {
        const FIRST_MS: i64 = -62_167_219_200_000;
        const LAST_MS: i64 = 253_402_300_800_000;
        let rng = &mut Rng::new(1);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let real = params.self_signed(&key).unwrap().der().to_vec();
        let tags = [SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME, 0x02, 0x80, 0x84, 0x88, 0xff];
        let mut dated = 0;
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 { real.clone() } else { vec![0; 64] };
            // The date is within the first 150 bytes.
            let end = bytes.len().min(150) as u64;
            for _ in 0..if round % 2 == 0 { 1 + rng.below(4) } else { 64 } {
                let value = match rng.below(3) {
                    0 => tags[rng.below(tags.len() as u64) as usize],
                    1 => rng.below(64) as u8,
                    _ => rng.below(256) as u8,
                };
                bytes[rng.below(end) as usize] = value;
            }
            bytes.truncate(rng.below(4 * end).min(bytes.len() as u64) as usize);
            if let Some(ms) = not_after_ms(&bytes) {
                assert!((FIRST_MS..=LAST_MS).contains(&ms), "{ms}: {bytes:02x?}");
                dated += 1;
            }
        }
        assert!(dated > 1_000, "{dated} changed certificates have a date");
    }
}

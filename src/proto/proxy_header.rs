//! The header of the PROXY protocol, versions 1 and 2: with it a proxy names its client before the
//! first byte of the connection. Parsed from the front of what has arrived, however much that is.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Maximum header that is accepted: additional fields of version 2 included.
pub const BYTES_MAX: usize = 4096;
/// Maximum line of version 1, with its end.
const LINE_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A header of this many bytes. `None`: the proxy speaks for itself, as in a health check.
    Complete(usize, Option<SocketAddr>),
    /// No header.
    Invalid,
}

/// Parses the header; bytes behind it are ignored.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let starts = |start: &[u8]| {
        let common = bytes.len().min(start.len());
        bytes[..common] == start[..common]
    };
    if starts(LINE_START) {
        line(bytes)
    } else if starts(SIGNATURE) {
        binary(bytes)
    } else {
        Parsed::Invalid
    }
}

fn line(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < LINE_MAX { Parsed::Incomplete } else { Parsed::Invalid };
    };
    let text = window[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok());
    let words = text.and_then(|text| text.strip_prefix("PROXY "));
    match words.map(|words| (words.split(' ').next(), words)) {
        Some((Some("UNKNOWN"), _)) => Parsed::Complete(end + 1, None),
        Some((_, words)) => {
            source(words).map_or(Parsed::Invalid, |source| Parsed::Complete(end + 1, Some(source)))
        }
        None => Parsed::Invalid,
    }
}

/// `TCP4 SOURCE DESTINATION PORT PORT`.
fn source(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| {
        text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let source = address(words.next()?)?;
    address(words.next()?)?;
    let source_port = port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then_some(SocketAddr::new(source, source_port))
}

fn binary(bytes: &[u8]) -> Parsed {
    // Refused as soon as a byte is wrong, however long the rest is.
    let (version, command) = match bytes.get(12) {
        Some(byte) => (byte >> 4, byte & 0x0f),
        None => return Parsed::Incomplete,
    };
    if version != 2 || command > 1 {
        return Parsed::Invalid;
    }
    let Some(&[family, high, low]) = bytes.get(13..FIXED) else { return Parsed::Incomplete };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses = match family >> 4 {
        1 => 12,
        2 => 36,
        _ => 0,
    };
    if FIXED + length > BYTES_MAX || (command == 1 && length < addresses) {
        return Parsed::Invalid;
    }
    let Some(body) = bytes.get(FIXED..FIXED + length) else { return Parsed::Incomplete };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let source = match (command, family >> 4) {
        (1, 1) => {
            let octets: [u8; 4] = body[..4].try_into().unwrap_or_default();
            Some(SocketAddr::new(octets.into(), port(8)))
        }
        (1, 2) => {
            let octets: [u8; 16] = body[..16].try_into().unwrap_or_default();
            Some(SocketAddr::new(octets.into(), port(32)))
        }
        // LOCAL, and families without an address of the internet.
        (_, _) => None,
    };
    Parsed::Complete(FIXED + length, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same wherever it is cut.
    fn any_cut(bytes: &[u8]) -> Parsed {
        let whole = parse(bytes);
        for end in 0..bytes.len() {
            let part = parse(&bytes[..end]);
            assert!(part == whole || part == Parsed::Incomplete, "{end}: {}", bytes.escape_ascii());
        }
        whole
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn version_1() {
        for (text, source) in [
            ("PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n", Some("192.0.2.1:1234")),
            ("PROXY TCP6 2001:db8::1 ::1 1234 80\r\n", Some("[2001:db8::1]:1234")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            let source = source.map(|text| text.parse().unwrap());
            assert_eq!(any_cut(text.as_bytes()), Parsed::Complete(text.len(), source));
            let more = [text.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&more), Parsed::Complete(text.len(), source));
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1234\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1234 80 1\r\n",
            "PROXY TCP4 192.0.2.1  10.0.0.1 1234 80\r\n",
            "PROXY TCP4 ::1 ::1 1234 80\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1234 80\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 80\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 80\r\n",
            "PROXY \r\n",
            "proxy UNKNOWN\r\n",
            &long,
        ] {
            assert_eq!(any_cut(bad.as_bytes()), Parsed::Invalid, "{bad}");
        }
    }

    #[test]
    fn version_2() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 4, 210, 0, 80];
        let source = Some("192.0.2.1:1234".parse().unwrap());
        for (command, family, body, source) in [
            (0x21, 0x11, &v4[..], source),
            (0x21, 0x12, &v4, source),
            (0x21, 0x11, &[&v4[..], &[0x04, 0, 1, 0]].concat(), source),
            (0x21, 0x31, &[0; 216], None),
            (0x21, 0x00, b"", None),
            (0x20, 0x11, &v4, None),
            (0x20, 0x00, b"", None),
        ] {
            let bytes = v2(command, family, body);
            assert_eq!(any_cut(&bytes), Parsed::Complete(bytes.len(), source), "{bytes:?}");
        }
        let mut v6 = [0; 36];
        (v6[15], v6[33]) = (1, 9);
        let bytes = v2(0x21, 0x21, &v6);
        let source = Some("[::1]:9".parse().unwrap());
        assert_eq!(any_cut(&bytes), Parsed::Complete(52, source));
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0, 4081),
        ] {
            assert_eq!(any_cut(&v2(command, family, &vec![0; length])), Parsed::Invalid);
        }
        assert_eq!(any_cut(&v2(0x21, 0, &[0; 4080])), Parsed::Complete(4096, None));
    }
}

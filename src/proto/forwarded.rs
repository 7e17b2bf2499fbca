//! Which client a request comes from when trusted proxies forward it: `X-Forwarded-For`, read from
//! the right, since what an untrusted client wrote is on the left.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::http::list_items;

/// Addresses with a common prefix, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    network: u128,
    mask: u128,
    bits: u8,
    is_v4: bool,
}

impl Range {
    /// Parses `ADDRESS/BITS`, or an address alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        // IPv4 addresses are compared as IPv4-mapped ones, whose prefix has 96 bits more.
        let host_bits = u32::from(most.checked_sub(bits)?);
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let network = number(address) & mask;
        Some(Self { network, mask, bits, is_v4: address.is_ipv4() })
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.is_v4 && number(address) & self.mask == self.network
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::V6(Ipv6Addr::from_bits(self.network));
        let address = if self.is_v4 { address.to_canonical() } else { address };
        write!(f, "{address}/{}", self.bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The client behind trusted proxies: the right-most address of the fields that is not trusted.
/// `peer` itself unless it is trusted. An unreadable item ends the search: the proxy that passed
/// it on is then the client.
#[must_use]
pub fn client(peer: IpAddr, fields: &[&[u8]], trusted: &[Range]) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|range| range.contains(address));
    let mut client = peer;
    for field in fields.iter().rev() {
        let items: Vec<&[u8]> = list_items(field).collect();
        for item in items.into_iter().rev() {
            if !is_trusted(client) {
                return client;
            }
            let Some(address) = address(item) else { return client };
            client = address;
        }
    }
    client
}

/// An address, perhaps in brackets, perhaps with a port.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, shown, inside, outside) in [
            ("10.0.0.0/8", "10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0/8", "::ffff:10.0.0.1", "::a00:1"),
            ("192.0.2.1", "192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "0.0.0.0/0", "203.0.113.9", "::1"),
            ("fd00::/8", "fd00::/8", "fdff::1", "fe80::1"),
            ("::/0", "::/0", "::1", "127.0.0.1"),
            ("::1", "::1/128", "::1", "::2"),
        ] {
            let range = Range::parse(text).unwrap();
            assert_eq!(range.to_string(), shown);
            assert!(range.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{text} {outside}");
        }
        for bad in ["", "h", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10/8", "::1/a"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| Range::parse(text).unwrap());
        for (peer, fields, want) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // What the client itself wrote is on the left.
            ("10.0.0.1", &["10.9.9.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["127.0.0.1", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.7, \u{ff}"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7:443"], "198.51.100.7"),
            ("fd00::1", &["[2001:db8::7]:443,,"], "2001:db8::7"),
            ("fd00::1", &["[2001:db8::7]", ""], "2001:db8::7"),
        ] {
            let lines: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
            let found = client(peer.parse().unwrap(), &lines, &trusted).to_canonical();
            assert_eq!(found.to_string(), want, "{peer} {fields:?}");
        }
    }
}

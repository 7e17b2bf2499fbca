//! Connection ids that name their owner: a replica with the key learns from an id which replica
//! holds the connection. Without the key, an id can be neither read nor made. The sealing key is
//! derived from the peer key and the boot, which is random for each process. Nonces are a bijection
//! of the count of connections, so a process cannot use one twice.

// key id 1 | boot 8 | nonce 8 | sealed: address 4 or 16, port 2, serial 4, minute 4 | tag 16

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::keys::{KeyId, PeerKey, PeerKeys};
use crate::parts::gateway::connection_id::ConnectionId;

/// Lengths of an id and its text if the owner has an IPv4 address.
const V4_BYTES: usize = HEAD_BYTES + 4 + TAIL_BYTES + TAG_BYTES;
const V4_CHARS: usize = 63;
/// The same for IPv6.
const V6_BYTES: usize = HEAD_BYTES + 16 + TAIL_BYTES + TAG_BYTES;
const V6_CHARS: usize = 79;
const HEAD_BYTES: usize = 1 + 8 + 8;
/// Port, serial, minute.
const TAIL_BYTES: usize = 2 + 4 + 4;
const TAG_BYTES: usize = 16;
const MINUTE_MS: i64 = 60_000;

/// Identifies a run of a process. It is random, so that no process answers for its predecessor at
/// the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub [u8; 8]);

/// The replica that holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Its peer listener.
    pub address: SocketAddr,
    /// Its run.
    pub boot: Boot,
}

/// The contents of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedId {
    /// The key that sealed it.
    pub key: KeyId,
    /// The replica that minted it.
    pub owner: Owner,
    /// The connection at that replica.
    pub connection: ConnectionId,
    /// When it was minted, in minutes since 1970.
    pub minute: u32,
}

/// Why an id cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFault {
    /// It was not sealed with one of the keys, or for another stage.
    Forged,
    /// No key has this key id.
    UnknownKey,
}

/// Mints the ids of a process.
#[derive(Debug)]
pub struct Minter {
    owner: Owner,
    stage: Box<str>,
    /// Ids so far.
    count: u64,
    /// Random offset, so that ids do not reveal the number of connections.
    start: u64,
    key: (KeyId, LessSafeKey),
}

impl Minter {
    /// Mints ids of this owner with the first key.
    #[must_use]
    pub fn new(owner: Owner, stage: &str, keys: &PeerKeys, start: u64) -> Option<Self> {
        let key = (keys.first().id(), sealing_key(keys.first(), owner.boot)?);
        Some(Self { owner, stage: stage.into(), count: 0, start, key })
    }

    /// This process.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Mints with the first of these keys from now on. The count continues, so that no nonce is
    /// repeated if a key comes back.
    pub fn set_keys(&mut self, keys: &PeerKeys) {
        if let Some(key) = sealing_key(keys.first(), self.owner.boot) {
            self.key = (keys.first().id(), key);
        }
    }

    /// A new id: its key in the table of connections, and its text.
    pub fn mint(&mut self, wall_ms: i64) -> Option<(ConnectionId, Box<str>)> {
        let serial = self.count as u32;
        let nonce = mix(self.start.wrapping_add(self.count)).to_be_bytes();
        self.count += 1;
        let minute = minute(wall_ms);
        let mut bytes = Vec::with_capacity(V6_BYTES);
        let (key_id, key) = &self.key;
        bytes.push(*key_id);
        bytes.extend_from_slice(&self.owner.boot.0);
        bytes.extend_from_slice(&nonce);
        match self.owner.address.ip().to_canonical() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&self.owner.address.port().to_be_bytes());
        bytes.extend_from_slice(&serial.to_be_bytes());
        bytes.extend_from_slice(&minute.to_be_bytes());
        let aad = associated(*key_id, &self.stage);
        let sealed = &mut bytes[HEAD_BYTES..];
        let tag =
            key.seal_in_place_separate_tag(padded(nonce), Aad::from(&aad[..]), sealed).ok()?;
        bytes.extend_from_slice(tag.as_ref());
        Some((table_key(nonce, serial, minute), URL_SAFE_NO_PAD.encode(&bytes).into()))
    }
}

impl SealedId {
    /// Whether this text has the length of a sealed id.
    #[must_use]
    pub fn has_length(text: &str) -> bool {
        matches!(unpadded(text).len(), V4_CHARS | V6_CHARS)
    }

    /// Opens an id. Its connection may have ended.
    ///
    /// # Errors
    /// Why it is invalid.
    pub fn open(text: &str, stage: &str, keys: &PeerKeys) -> Result<Self, IdFault> {
        let mut buffer = [0; V6_BYTES];
        let bytes = match unpadded(text).len() {
            V4_CHARS => &mut buffer[..V4_BYTES],
            V6_CHARS => &mut buffer[..],
            _ => return Err(IdFault::Forged),
        };
        if URL_SAFE_NO_PAD.decode_slice(unpadded(text), bytes) != Ok(bytes.len()) {
            return Err(IdFault::Forged);
        }
        let (head, sealed) = bytes.split_at_mut(HEAD_BYTES);
        let key = keys.find(head[0]).ok_or(IdFault::UnknownKey)?;
        let (boot, nonce) = (Boot(array(head, 1)), array(head, 9));
        let aad = associated(key.id(), stage);
        let sealing_key = sealing_key(key, boot).ok_or(IdFault::Forged)?;
        let opened = sealing_key.open_in_place(padded(nonce), Aad::from(&aad[..]), sealed);
        let opened = opened.map_err(|_| IdFault::Forged)?;
        let (address, tail) = opened.split_at(opened.len() - TAIL_BYTES);
        let ip = match <[u8; 4]>::try_from(address as &[u8]) {
            Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
            Err(_) => IpAddr::V6(Ipv6Addr::from(array::<16>(address, 0))),
        };
        let port = u16::from_be_bytes(array(tail, 0));
        let (serial, minute) =
            (u32::from_be_bytes(array(tail, 2)), u32::from_be_bytes(array(tail, 6)));
        Ok(Self {
            key: key.id(),
            owner: Owner { address: SocketAddr::new(ip, port), boot },
            connection: table_key(nonce, serial, minute),
            minute,
        })
    }

    /// Whether its connection must have ended: it was minted more than `life_ms` and an hour ago,
    /// or more than an hour in the future, since clocks differ.
    #[must_use]
    pub fn is_expired(&self, wall_ms: i64, life_ms: u64) -> bool {
        const HOUR: i64 = 60;
        let life = i64::try_from(life_ms).unwrap_or(i64::MAX - MINUTE_MS) / MINUTE_MS + 1;
        let age = wall_ms.div_euclid(MINUTE_MS) - i64::from(self.minute);
        age > life + HOUR || age < -HOUR
    }
}

/// Removes padding, which some clients add.
fn unpadded(text: &str) -> &str {
    text.strip_suffix('=').unwrap_or(text)
}

fn sealing_key(key: &PeerKey, boot: Boot) -> Option<LessSafeKey> {
    key.derive(&[b"id", &boot.0])
}

fn associated(key: KeyId, stage: &str) -> Vec<u8> {
    let mut aad = Vec::with_capacity(1 + stage.len());
    aad.push(key);
    aad.extend_from_slice(stage.as_bytes());
    aad
}

fn padded(nonce: [u8; 8]) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&nonce);
    Nonce::assume_unique_for_key(bytes)
}

/// The key of a connection in the table of its owner.
fn table_key(nonce: [u8; 8], serial: u32, minute: u32) -> ConnectionId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce);
    bytes[8..12].copy_from_slice(&serial.to_be_bytes());
    bytes[12..].copy_from_slice(&minute.to_be_bytes());
    ConnectionId(bytes)
}

fn minute(wall_ms: i64) -> u32 {
    u32::try_from(wall_ms.div_euclid(MINUTE_MS)).unwrap_or(0)
}

/// The bytes from `from` on. The caller has checked the length.
fn array<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    bytes.get(from..from + N).and_then(|array| array.try_into().ok()).unwrap_or([0; N])
}

/// A bijection of 64-bit numbers: the finalizer of `SplitMix64`.
fn mix(count: u64) -> u64 {
    let mut mixed = count.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW_MS: i64 = 1_795_230_000_000;
    const LIFE_MS: u64 = 7_200_000;

    fn keys(bytes: &[u8]) -> PeerKeys {
        let lines: Vec<String> =
            bytes.iter().map(|byte| format!("{byte:02x}").repeat(32)).collect();
        PeerKeys::parse(lines.join("\n").as_bytes()).unwrap()
    }

    fn owner(address: &str) -> Owner {
        Owner { address: address.parse().unwrap(), boot: Boot(*b"a boot.\xff") }
    }

    #[test]
    fn an_id_names_its_owner() {
        for (address, chars) in [("10.1.2.3:8082", 63), ("[fd00::1]:1", 79)] {
            let keys = keys(&[1]);
            let mut minter = Minter::new(owner(address), "prod", &keys, 7).unwrap();
            let (connection, text) = minter.mint(NOW_MS).unwrap();
            assert_eq!(text.len(), chars);
            assert!(SealedId::has_length(&text));
            let minute = (NOW_MS / 60_000) as u32;
            let key = keys.first().id();
            let known = SealedId { key, owner: owner(address), connection, minute };
            assert_eq!(SealedId::open(&text, "prod", &keys), Ok(known));
            assert_eq!(SealedId::open(&format!("{text}="), "prod", &keys), Ok(known));
            assert_eq!(SealedId::open(&text, "blue", &keys), Err(IdFault::Forged));
        }
    }

    /// Each bit of an id is covered by the tag, and each id has one spelling.
    #[test]
    fn a_changed_id_is_forged() {
        let keys = keys(&[1]);
        for address in ["10.1.2.3:8082", "[fd00::1]:1"] {
            let mut minter = Minter::new(owner(address), "prod", &keys, 7).unwrap();
            let (_, text) = minter.mint(NOW_MS).unwrap();
            for at in 0..text.len() {
                for other in "ABCabc019-_=+/.\u{7f}".chars() {
                    let mut changed = text.to_string();
                    changed.replace_range(at..=at, &other.to_string());
                    if changed == *text {
                        continue;
                    }
                    let refused = SealedId::open(&changed, "prod", &keys).unwrap_err();
                    assert!(refused == IdFault::Forged || at < 2, "{at} {other}");
                }
                let cut = SealedId::open(&text[..at], "prod", &keys);
                assert_eq!(cut, Err(IdFault::Forged));
            }
        }
        let other = "☃".repeat(21);
        assert_eq!(other.len(), 63);
        assert_eq!(SealedId::open(&other, "prod", &keys), Err(IdFault::Forged));
    }

    #[test]
    fn nonces_are_not_repeated() {
        let keys = keys(&[1]);
        let mut minter = Minter::new(owner("10.1.2.3:8082"), "prod", &keys, u64::MAX - 5).unwrap();
        let mut nonces = BTreeSet::new();
        for _ in 0..10_000 {
            let (connection, text) = minter.mint(NOW_MS).unwrap();
            assert!(nonces.insert(connection.0[..8].to_vec()));
            assert!(SealedId::open(&text, "prod", &keys).is_ok());
        }
    }

    #[test]
    fn the_first_key_mints_and_all_of_them_open() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let mut minter = Minter::new(owner("10.1.2.3:8082"), "prod", &old, 0).unwrap();
        let (_, first) = minter.mint(NOW_MS).unwrap();
        minter.set_keys(&both);
        let (_, second) = minter.mint(NOW_MS).unwrap();
        for text in [&first, &second] {
            assert!(SealedId::open(text, "prod", &both).is_ok());
        }
        assert_eq!(SealedId::open(&second, "prod", &old), Err(IdFault::UnknownKey));
        assert_eq!(SealedId::open(&first, "prod", &new), Err(IdFault::UnknownKey));
    }

    #[test]
    fn an_id_expires_after_the_lifetime_of_a_connection() {
        let keys = keys(&[1]);
        let mut minter = Minter::new(owner("10.1.2.3:8082"), "prod", &keys, 0).unwrap();
        let (_, text) = minter.mint(NOW_MS).unwrap();
        let id = SealedId::open(&text, "prod", &keys).unwrap();
        for (minutes, over) in [(-61, true), (-60, false), (0, false), (181, false), (182, true)] {
            assert_eq!(id.is_expired(NOW_MS + minutes * 60_000, LIFE_MS), over, "{minutes}");
        }
        // Shorter lives for tests; clocks that were never set.
        assert!(!id.is_expired(NOW_MS + 61 * 60_000, LIFE_MS / 7_200));
        assert!(id.is_expired(NOW_MS + 62 * 60_000, LIFE_MS / 7_200));
        assert!(id.is_expired(0, LIFE_MS) && id.is_expired(i64::MAX, LIFE_MS));
        assert!(!id.is_expired(NOW_MS, u64::MAX));
    }
}

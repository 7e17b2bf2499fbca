//! The header fields of one head, looked up by name.

use std::mem::MaybeUninit;

use httparse::Header;

use super::words::each;
use crate::limits::HEAD_FIELDS;

/// Space for the header fields of one head, on the caller's stack. Only those that the head has are
/// ever initialized.
#[derive(Debug)]
pub struct Fields<'b>([MaybeUninit<Header<'b>>; HEAD_FIELDS]);

impl Default for Fields<'_> {
    fn default() -> Self {
        Self([const { MaybeUninit::uninit() }; HEAD_FIELDS])
    }
}

impl<'b> Fields<'b> {
    /// For the parser.
    pub(super) fn space(&mut self) -> &mut [MaybeUninit<Header<'b>>] {
        &mut self.0
    }
}

/// The header fields of a head. Most lookups are for fields that are absent: `present` rules these
/// out without comparing names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers<'h, 'b> {
    list: &'h [Header<'b>],
    /// The bits of all names in the list, see [`bit`].
    present: u64,
}

impl<'h, 'b> Headers<'h, 'b> {
    pub(super) fn new(list: &'h [Header<'b>]) -> Self {
        let present = list.iter().fold(0, |bits, header| bits | bit(header.name));
        Self { list, present }
    }

    /// All of them in order.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'h, 'b> {
        self.list.iter().map(|header| (header.name, header.value))
    }

    /// The values of all fields with this name, which is case-insensitive.
    #[inline]
    pub(super) fn values<'s>(
        self,
        name: &'s str,
    ) -> impl Iterator<Item = &'b [u8]> + use<'h, 's, 'b> {
        let list = if self.present & bit(name) == 0 { &[] } else { self.list };
        let named = list.iter().filter(move |header| is_same(header.name, name));
        named.map(|header| header.value)
    }
}

/// The case of a letter: bit 5, set in lower case, in digits and in the hyphen.
const CASE: u8 = 0x20;

/// Whether a field has this name, which has only letters, digits and hyphens: in a token, no other
/// byte becomes one of these by setting bit 5.
#[inline]
fn is_same(field: &str, name: &str) -> bool {
    if field.len() != name.len() {
        return false;
    }
    let lower = |word: &[u8; 8]| u64::from_le_bytes(*word) | each(CASE);
    let ((field_words, field_rest), (words, rest)) =
        (field.as_bytes().as_chunks(), name.as_bytes().as_chunks());
    field_words.iter().zip(words).all(|(a, b)| lower(a) == lower(b))
        && field_rest.iter().zip(rest).all(|(a, b)| a | CASE == b | CASE)
}

/// A bit for the length and the first letter of a name. Different names may share one.
#[inline]
fn bit(name: &str) -> u64 {
    let first = name.as_bytes().first().map_or(0, |first| usize::from(first | CASE));
    1 << ((first + 5 * name.len()) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::is_token;

    #[test]
    fn only_case_is_ignored() {
        for byte in (0..=255).filter(|byte| is_token(&[*byte])) {
            for known in (0..128).filter(|b: &u8| b.is_ascii_alphanumeric() || *b == b'-') {
                let field = format!("a{0}aaaaaaaaa{0}", char::from(byte));
                let name = format!("a{0}aaaaaaaaa{0}", char::from(known));
                let want = byte.eq_ignore_ascii_case(&known);
                assert_eq!(is_same(&field, &name), want, "{field} {name}");
            }
        }
    }

    #[test]
    fn names_are_found_whatever_else_is_there() {
        let names =
            ["Host", "HOST", "host", "Hosts", "Upgrade", "Sec-WebSocket-Key", "X", "y", "z"];
        for chosen in 0..1 << names.len() {
            let is_chosen = |at: usize| chosen & 1 << at != 0;
            let list: Vec<Header<'_>> = (0..names.len())
                .filter(|at| is_chosen(*at))
                .map(|at| Header { name: names[at], value: names[at].as_bytes() })
                .collect();
            let headers = Headers::new(&list);
            for name in names {
                let want = names
                    .iter()
                    .enumerate()
                    .filter(|(at, other)| is_chosen(*at) && name.eq_ignore_ascii_case(other));
                let want: Vec<&[u8]> = want.map(|(_, name)| name.as_bytes()).collect();
                assert_eq!(headers.values(name).collect::<Vec<_>>(), want, "{name}: {chosen:b}");
            }
        }
    }
}

//! The header fields of one head, looked up by name.

use std::mem::MaybeUninit;

use httparse::Header;

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

/// Most names differ in length.
#[inline]
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.eq_ignore_ascii_case(b)
}

/// A bit for the length and the first letter of a name. Different names may share one.
#[inline]
fn bit(name: &str) -> u64 {
    let first = name.as_bytes().first().map_or(0, |first| usize::from(first | 0x20));
    1 << ((first + 5 * name.len()) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_else_is_there() {
        let names =
            ["Host", "HOST", "host", "Hosts", "Upgrade", "Sec-WebSocket-Key", "X", "y", "@"];
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

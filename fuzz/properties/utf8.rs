//! The incremental check has the standard library's verdict on the whole text, and rejects at the
//! first byte after which no continuation can be valid.

use wspulse::proto::message::Utf8;

use super::input::{self, Cuts};

const INPUT_MAX: usize = 4 * 1024;

/// See the module's head.
pub fn utf8(data: &[u8]) {
    let (cuts, text) = input::cuts(data);
    let text = &text[..text.len().min(INPUT_MAX)];
    let wrong_at = first_wrong_byte(text);
    for cuts in [&cuts, &Cuts::none(), &Cuts::everywhere()] {
        let mut utf8 = Utf8::default();
        let refused = cuts.parts(text).find(|part| utf8.feed(part).is_err());
        let refused = refused.map(<[u8]>::as_ptr_range);
        match (refused, wrong_at) {
            (None, None) => {
                let valid = std::str::from_utf8(text).is_ok();
                assert_eq!(utf8.finish().is_ok(), valid, "at the end, cut at {cuts:?}");
            }
            (Some(part), Some(at)) => {
                let byte = text[at..].as_ptr();
                assert!(part.contains(&byte), "byte {at} is wrong, not in that part of {cuts:?}");
            }
            (refused, wrong) => panic!("refused: {refused:?}, wrong: {wrong:?}, cut at {cuts:?}"),
        }
    }
}

/// The first byte that no valid text with this prefix can have, if any.
fn first_wrong_byte(text: &[u8]) -> Option<usize> {
    let error = std::str::from_utf8(text).err()?;
    error.error_len()?;
    // `error_len` is the length to skip; the invalid byte is found by trying prefixes.
    let hopeless = |end: &usize| {
        std::str::from_utf8(&text[..*end]).is_err_and(|error| error.error_len().is_some())
    };
    (error.valid_up_to() + 1..=text.len()).find(hopeless).map(|end| end - 1)
}

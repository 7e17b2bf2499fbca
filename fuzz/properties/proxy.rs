//! The header of the PROXY protocol: where it is cut changes nothing, and what is accepted is no
//! longer than allowed and begins as the protocol has it.

use wspulse::proto::proxy_header::{BYTES_MAX, Parsed, parse};

use super::input;

/// See the module's head.
pub fn proxy(data: &[u8]) {
    let bytes = input::expanded(data, 2 * BYTES_MAX);
    let whole = parse(&bytes);
    for end in 0..bytes.len() {
        let part = parse(&bytes[..end]);
        assert!(part == whole || part == Parsed::Incomplete, "{end}: {part:?}, then {whole:?}");
    }
    match whole {
        Parsed::Complete(length, client) => {
            assert!(length <= bytes.len().min(BYTES_MAX));
            assert_eq!(parse(&bytes[..length]), whole, "bytes behind it matter");
            assert_eq!(parse(&bytes[..length - 1]), Parsed::Incomplete);
            if let (Some(client), Some(b"PROXY TCP")) = (client, bytes.get(..9)) {
                let named = format!(" {} ", client.port());
                let line = String::from_utf8_lossy(&bytes[..length]).replace("\r\n", " ");
                assert!(line.contains(&named) || line.contains(" 0"), "{line:?}: {client}");
            }
        }
        Parsed::Incomplete => assert!(bytes.len() < BYTES_MAX, "waits for ever"),
        Parsed::Invalid => {}
    }
}

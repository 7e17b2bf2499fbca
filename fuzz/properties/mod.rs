//! What must hold for every input. Each property is a plain function that panics when it does
//! not: libfuzzer calls it (`fuzz/targets`), `cargo test` replays the corpora (`tests/it/corpus`).
//! An input is read by `input`; `session` drives a server on it without a system.

mod answers;
mod aws;
mod deflate;
mod extensions;
mod frames;
mod gateway;
mod handshake;
mod head;
pub mod input;
mod oracle;
mod peers;
mod proxy;
mod puff;
mod said;
mod server;
mod session;
mod utf8;
mod watch;

pub use answers::answers;
pub use aws::aws;
pub use deflate::deflate;
pub use frames::frames;
pub use gateway::gateway;
pub use handshake::handshake;
pub use head::head;
pub use peers::peers;
pub use proxy::proxy;
pub use server::server;
pub use utf8::utf8;
pub use watch::watch;

/// A property by its name, which is also that of its target and of its corpus.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const PROPERTIES: [Property; 12] = [
    ("answers", answers),
    ("aws", aws),
    ("head", head),
    ("handshake", handshake),
    ("frames", frames),
    ("deflate", deflate),
    ("utf8", utf8),
    ("watch", watch),
    ("server", server),
    ("gateway", gateway),
    ("peers", peers),
    ("proxy", proxy),
];

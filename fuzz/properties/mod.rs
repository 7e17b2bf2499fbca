//! Properties that must hold for every input: functions that panic otherwise. libfuzzer calls them
//! (`fuzz/targets`), `cargo test` replays the corpora (`tests/it/corpus`). `input` has the format
//! of inputs; `session` drives a server without an operating system.

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
mod output;
mod peers;
mod proxy;
mod puff;
mod reports;
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
pub use reports::reports;
pub use server::server;
pub use utf8::utf8;
pub use watch::watch;

/// A property and its name, which is also the name of its target and its corpus.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const PROPERTIES: [Property; 13] = [
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
    ("reports", reports),
];

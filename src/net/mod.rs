//! The operating system: everything that touches a socket, a file, a clock or a signal, or starts
//! a thread. It does not know that HTTP, WebSocket, options or commands exist; it drives an
//! [`Engine`](crate::engine). [`run`](crate::run) puts the two together.

pub(crate) mod assets;
pub mod clock;
mod connecting;
pub mod driver;
pub(crate) mod files;
pub(crate) mod kernel;
pub(crate) mod listen;
pub mod logs;
pub(crate) mod memory;
mod names;
pub(crate) mod notify;
pub mod os;
pub mod passed;
pub mod process;
mod proxied;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod stream;
mod terminal;
pub mod tls;
pub(crate) mod unix;

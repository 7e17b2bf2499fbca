//! Wire formats: bytes become values and values become bytes. Nothing here knows a connection,
//! an id, a time or a log.

pub mod body;
mod chunks;
pub mod deflate;
pub mod forwarded;
pub mod frame;
pub mod handshake;
mod headers;
pub mod http;
pub mod http_client;
pub mod intake;
pub mod mask;
pub mod message;
mod path;
pub mod proxy_header;
pub mod refusal;
pub mod response;
pub(crate) mod secrets;
pub mod talk;
pub mod tunnel;
pub mod upgrade;
pub mod url;
mod words;

//! What AWS asks of its clients, and what its clients expect of a server: signatures, and where
//! credentials come from. No I/O: bytes and `now` in, what is needed out.

pub mod call;
pub mod credentials;
pub mod dynamodb;
pub mod endpoint;
pub mod hash;
pub mod keys;
pub mod secret;
pub mod sigv4;

pub use secret::{Credentials, Secret};

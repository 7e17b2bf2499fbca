//! AWS protocols for clients and servers, without I/O: request signatures, credential providers,
//! the `DynamoDB` API, and errors of the callback API.

pub mod call;
pub mod callbacks;
pub mod credentials;
pub mod dynamodb;
pub mod endpoint;
pub mod hash;
pub mod keys;
pub mod secret;
pub mod sigv4;

pub use secret::{Credentials, Secret};

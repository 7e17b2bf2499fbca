//! The informer against our own API server: recordings, random histories, hostile answers,
//! and the whole server with its viewers.

mod history;
mod hostile;
mod kinds;
mod random_api;
mod recorded;
mod scripted;
mod truth;
mod viewers;

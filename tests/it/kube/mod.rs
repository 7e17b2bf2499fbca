//! The informer against an API server of our own: recordings, random histories, hostile answers,
//! and the whole server with its viewers.

mod api;
mod history;
mod hostile;
mod recorded;
mod talk;
mod watched;

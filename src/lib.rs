//! wspulse: a small WebSocket server on a hand-written event loop.
//!
//! In reading order:
//! * [`options`]: argv and environment, one table.
//! * [`behaviours`]: how a mount handles messages; `echo` is the smallest.
//! * [`engine`]: the contract between a program without I/O and its driver.
//! * [`server`]: the server without I/O: bytes and `now` in, actions out.
//! * [`proto`]: wire formats: HTTP heads, the handshake, frames, messages.
//! * [`parts`]: extras of the server: the feed of Deployments, the gateway, its sample backend.
//! * [`aws`]: AWS request signatures and credentials.
//! * [`load`], [`connect`]: the WebSocket clients, on the same contract.
//! * [`probe`]: what a path does to WebSockets, found by experiment.
//! * [`healthcheck`]: one HTTP request to a server, for probes.
//! * [`calls`]: outgoing HTTP requests over pooled connections.
//! * [`target`]: where an outgoing connection goes and which certificates it trusts.
//! * [`net`]: the operating system: the loop, sockets, signals, clock, files, log writer.
//! * [`run`]: composition: builds a command from options, an engine and `net`.
//! * [`outbox`], [`timers`], [`slab`], [`id_map`], [`time`], [`rng`], [`units`], [`limits`],
//!   [`listen`], [`heap`], [`queue`], [`secret`]: small building blocks that know nothing else.

#[cfg(not(target_os = "linux"))]
compile_error!("wspulse runs on Linux only: it relies on epoll and on what Linux sockets inherit");

#[cfg(feature = "gateway")]
pub mod aws;
pub mod behaviours;
pub mod calls;
pub mod connect;
pub mod engine;
pub mod healthcheck;
pub mod heap;
pub mod id_map;
pub mod limits;
pub mod listen;
pub mod load;
pub mod net;
pub mod options;
pub mod outbox;
pub mod parts;
pub mod probe;
pub mod proto;
pub mod queue;
pub mod rng;
pub mod run;
pub mod secret;
pub mod server;
pub mod slab;
pub mod target;
pub mod time;
pub mod timers;
pub mod units;

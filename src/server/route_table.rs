//! The paths of one server: its own, and those of the parts that it was given.

use crate::engine::Side;
use crate::server::config::Config;
use crate::server::part::PartId;
use crate::server::parts::Parts;
use crate::server::route::Route;

/// The paths of a server.
#[derive(Debug)]
pub(super) struct RouteTable(Vec<Match>);

/// The row of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) route: &'static Route,
    pub(super) from: Origin,
}

/// Who answers a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The server, by this row of its own table.
    Server(usize),
    Part(PartId),
}

impl RouteTable {
    /// The server's own paths, and behind them those of parts.
    pub(super) fn new(own: impl Iterator<Item = &'static Route>, parts: &Parts) -> Self {
        let own = own.enumerate().map(|(row, route)| Match { route, from: Origin::Server(row) });
        let of_parts = parts.iter().flat_map(|(id, part)| {
            part.routes().iter().map(move |route| Match { route, from: Origin::Part(id) })
        });
        Self(own.chain(of_parts).collect())
    }

    /// Those that are served on this side.
    pub(super) fn open<'t>(
        &'t self,
        side: Side,
        config: &'t Config,
    ) -> impl Iterator<Item = Match> + use<'t> {
        self.0.iter().copied().filter(move |row| row.route.served_on.opens(side, config))
    }
}

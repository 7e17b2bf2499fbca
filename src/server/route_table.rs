//! The routes of the server and of its parts.

use crate::engine::Side;
use crate::server::config::Config;
use crate::server::part::PartId;
use crate::server::parts::Parts;
use crate::server::route::Route;

#[derive(Debug)]
pub(super) struct RouteTable(Vec<Match>);

/// The route of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) route: &'static Route,
    pub(super) owner: Owner,
}

/// Who handles a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The server: index into its own table.
    Server(usize),
    Part(PartId),
}

impl RouteTable {
    pub(super) fn new(own: impl Iterator<Item = &'static Route>, parts: &Parts) -> Self {
        let own = own.enumerate().map(|(row, route)| Match { route, owner: Owner::Server(row) });
        let of_parts = parts.iter().flat_map(|(id, part)| {
            part.routes().iter().map(move |route| Match { route, owner: Owner::Part(id) })
        });
        Self(own.chain(of_parts).collect())
    }

    /// The first route that serves this path on this listener.
    pub(super) fn find(&self, side: Side, config: &Config, path: &str) -> Option<Match> {
        let serves =
            |row: &&Match| row.route.matches(path) && row.route.served_on.includes(side, config);
        self.0.iter().find(serves).copied()
    }

    /// The routes that are served on this listener.
    pub(super) fn open<'t>(
        &'t self,
        side: Side,
        config: &'t Config,
    ) -> impl Iterator<Item = Match> + use<'t> {
        self.0.iter().copied().filter(move |row| row.route.served_on.includes(side, config))
    }
}

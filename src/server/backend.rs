//! `wspulse backend` among the connections: its requests are routes, its calls are the server's
//! own, its answers are words that requests wait for.

use serde::Serialize;

use super::Server;
use super::calls::Asker;
use super::config::Config;
use super::pressure::Account;
use super::routes::{Later, Reply, Taken};
use super::shared::{Cx, Shared};
use super::stats::Row;
use crate::backend::{self, Ask, Backend, Silence, Step};
use crate::engine::{Action, File, Now, Source};
use crate::pool::{Failure, Reply as Heard};
use crate::proto::http::{Method, Request};
use crate::proto::response::Response;

/// A request waits longer than all that it waits for may take together.
const PATIENCE_MS: u64 = 20_000;

/// The backend, if this server is one.
#[derive(Debug)]
pub(super) struct Rest {
    backend: Option<Box<Backend>>,
    begun: Begun,
    counted: Account,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    No,
    Yes,
}

/// What `/stats` says of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    requests: Requests,
    backend: Work,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Requests {
    total: u64,
    per_second: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Work {
    messages: u64,
    in_hand: usize,
    sessions: Option<usize>,
    degraded: bool,
}

impl Rest {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        let plan = config.backend.as_deref().cloned();
        let backend = plan.map(|plan| Box::new(Backend::new(plan, seed)));
        Self { backend, begun: Begun::No, counted: Account::default() }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let backend = self.backend.as_ref()?;
        match self.begun {
            Begun::No => Some(0),
            Begun::Yes => backend.next_deadline(),
        }
    }

    /// What it owns, as the account has it.
    pub(super) fn memory(&self) -> usize {
        self.counted.memory
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.backend.as_ref().is_some_and(|backend| backend.is_degraded())
    }

    /// Files were read; perhaps somebody else asked for them.
    pub(super) fn fetched(&mut self, now: Now, paths: &[String], files: &[File]) {
        let Some(backend) = self.backend.as_mut().filter(|backend| backend.files() == paths) else {
            return;
        };
        for File { name, bytes, .. } in files {
            backend.fetched(name, bytes);
        }
        backend.read(now);
    }

    /// The operator says that something may be another by now.
    pub(super) fn reload(&mut self) {
        if let Some(backend) = &mut self.backend {
            backend.reload();
        }
    }

    /// The rows of a metric.
    pub(super) fn each(&self, metric: &str, row: Row<'_>) {
        let Some(backend) = &self.backend else { return };
        let figures = &backend.figures;
        match metric {
            "backend_messages_total" => row(&[], figures.messages),
            "backend_messages_in_hand" => row(&[], backend.in_hand() as u64),
            "backend_callbacks_total" => {
                for (status, count) in &figures.callbacks {
                    let status = status.map_or_else(|| "none".to_owned(), |code| code.to_string());
                    row(&[("status", &status)], *count);
                }
            }
            "backend_sessions" => {
                if let Some(sessions) = backend.sessions() {
                    row(&[], sessions as u64);
                }
            }
            "backend_sessions_created_total" => row(&[], figures.created),
            "backend_sessions_deleted_total" => row(&[], figures.deleted),
            "backend_sessions_degraded" => row(&[], u64::from(backend.is_degraded())),
            "backend_session_errors_total" => {
                for (reason, count) in &figures.errors {
                    row(&[("reason", reason)], *count);
                }
            }
            _ => debug_assert!(false, "nobody counts {metric}"),
        }
    }

    pub(super) fn summary(&self, now: Now) -> Option<Summary> {
        let backend = self.backend.as_ref()?;
        Some(Summary {
            requests: Requests {
                total: backend.figures.rate.total(),
                per_second: backend.figures.rate.per_second(now),
            },
            backend: Work {
                messages: backend.figures.messages,
                in_hand: backend.in_hand(),
                sessions: backend.sessions(),
                degraded: backend.is_degraded(),
            },
        })
    }
}

/// `/`
pub(super) fn root(request: &Request<'_, '_>, body: Taken<'_>, cx: &mut Cx<'_>) -> Reply {
    if request.method != Method::Post {
        return Reply::Now(Response::text(200, "get"));
    }
    let body = match body {
        Ok(body) => body,
        Err(refusal) => return Reply::Now(Response::refusal(refusal)),
    };
    let named = request.value("connectionid");
    let retry_after = cx.shared.retry_after();
    let Some(backend) = &mut cx.shared.rest.backend else { return no_backend() };
    match backend.posted(cx.now, cx.id, named, body) {
        Ok(backend::Taken::InHand) => Reply::Later { after_ms: PATIENCE_MS, what: Later::Word },
        Ok(backend::Taken::Nothing) => Reply::Now(Response::text(200, "default")),
        Ok(backend::Taken::Full) => {
            let response = Response::text(503, "too many messages are in hand\n");
            Reply::Now(response.with("Retry-After", retry_after))
        }
        Err(wrong) => Reply::Now(Response::text(400, format!("{wrong}\n"))),
    }
}

/// `/connect`
pub(super) fn connect(_: &Request<'_, '_>, _: Taken<'_>, cx: &mut Cx<'_>) -> Reply {
    let Some(backend) = &mut cx.shared.rest.backend else { return no_backend() };
    backend.greeted(cx.now);
    Reply::Now(Response::text(200, "connect"))
}

fn no_backend() -> Reply {
    Reply::Now(Response::text(404, "this is no backend\n"))
}

impl Server {
    /// What of it is due.
    pub(super) fn fire_backend(&mut self, now: Now) {
        let rest = &mut self.shared.rest;
        let due = rest.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns);
        if let Some(backend) = rest.backend.as_mut().filter(|_| due) {
            rest.begun = Begun::Yes;
            backend.fire(now);
            self.tend(now);
        }
    }

    /// Carries out what the backend wants.
    pub(super) fn tend_backend(&mut self, now: Now) {
        let Shared { rest, calls, actions, .. } = &mut self.shared;
        let Some(backend) = &mut rest.backend else { return };
        let mut done = Vec::new();
        while let Some(step) = backend.poll(now) {
            match step {
                Step::Call(ask, call) => {
                    if calls.ask(*call, Asker::Backend(ask)).is_err() {
                        backend.heard(now, ask, Err(Silence::Full));
                    }
                }
                Step::Read => {
                    let paths = backend.files().to_vec();
                    actions.push_back(Action::Fetch(Source::Files(paths)));
                }
                Step::Answer(whose) => done.push(whose),
                Step::Fail(why) => {
                    log::error!(target: "sessions", "{why}");
                    actions.push_back(Action::Exit(1));
                }
            }
        }
        for whose in done {
            self.shared.answer(whose, Response::text(200, "default"));
        }
        let Shared { rest, account, .. } = &mut self.shared;
        let memory = rest.backend.as_ref().map_or(0, |backend| backend.memory());
        if memory != rest.counted.memory {
            account.update(&mut rest.counted, Account { memory, queued: 0 });
        }
    }

    /// What became of one of its calls.
    pub(super) fn tell_backend(&mut self, now: Now, ask: Ask, how: &Result<Heard, Failure>) {
        if let Some(backend) = &mut self.shared.rest.backend {
            let how = how.as_ref().map(|reply| (reply.status, &*reply.body));
            backend.heard(now, ask, how.map_err(|failure| Silence::Failed(*failure)));
        }
        self.tend_backend(now);
    }
}

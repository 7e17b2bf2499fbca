//! The informer among the connections: its steps become actions, its connection is one of ours,
//! and those who watch are woken, some each turn.

use super::Server;
use super::config::Kube;
use super::conn::Conn;
use super::pressure::Account;
use super::shared::Shared;
use crate::engine::{Action, File, HangUp, Id, Now, Source};
use crate::informer::{Feed, Figures, Informer, Step, WOKEN_PER_TURN};
use crate::time::Moment;

/// The informer, if an API server is configured.
#[derive(Debug)]
pub(super) struct Upstream {
    informer: Option<Box<Informer>>,
    /// Why there is none.
    nothing: String,
    /// Its connection.
    id: Option<Id>,
    /// Since when somebody is to be woken.
    due_ns: Option<u64>,
    counted: Account,
}

impl Upstream {
    pub(super) fn new(kube: &Kube, seed: u64) -> Self {
        let (informer, nothing) = match kube {
            Kube::Watch(plan) => {
                (Some(Box::new(Informer::new((**plan).clone(), seed))), String::new())
            }
            Kube::Nothing(why) => (None, why.clone()),
            Kube::Off => (None, "no Deployments are watched".to_owned()),
        };
        Self { informer, nothing, id: None, due_ns: None, counted: Account::default() }
    }

    /// What viewers hear, or why they hear nothing.
    pub(super) fn feed(&mut self) -> Result<&mut Feed, &str> {
        match &mut self.informer {
            Some(informer) => Ok(&mut informer.feed),
            None => Err(&self.nothing),
        }
    }

    /// For metrics.
    pub(super) fn figures(&self) -> Figures {
        self.informer.as_ref().map(|informer| informer.figures).unwrap_or_default()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.informer.as_ref().is_some_and(|informer| informer.feed.is_synced())
    }

    /// `namespace/name`, uid and version of each Deployment.
    pub(super) fn contents(&self) -> Vec<(String, String, String)> {
        self.informer.as_ref().map(|informer| informer.feed.contents()).unwrap_or_default()
    }

    /// What it owns, as the account has it.
    pub(super) fn memory(&self) -> usize {
        self.counted.memory
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let informer = self.informer.as_ref().and_then(|informer| informer.next_deadline());
        informer.into_iter().chain(self.due_ns).min()
    }

    /// Something of its own may be due.
    fn fire(&mut self, now: Now) {
        if let Some(informer) = &mut self.informer
            && informer.next_deadline().is_some_and(|due| due <= now.mono_ns)
        {
            informer.fire(now);
        }
    }

    /// Those who are to be woken now.
    fn wake(&mut self, mut wake: impl FnMut(Id)) {
        self.due_ns = None;
        let Some(informer) = &mut self.informer else { return };
        for _ in 0..WOKEN_PER_TURN {
            let Some(id) = informer.feed.next_due() else { break };
            wake(id);
        }
    }

    pub(super) fn connected(
        &mut self,
        now: Now,
        id: Id,
        how: Result<(), HangUp>,
        out: &mut Vec<u8>,
    ) {
        if let Some(informer) = self.informer.as_mut().filter(|_| self.id == Some(id)) {
            if how.is_err() {
                self.id = None;
            }
            informer.connected(now, how, out);
        }
    }

    pub(super) fn received(&mut self, now: Now, id: Id, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(informer) = self.informer.as_mut().filter(|_| self.id == Some(id)) {
            informer.received(now, bytes, out);
        }
    }

    pub(super) fn ended(&mut self, now: Now, id: Id, how: HangUp) {
        if let Some(informer) = self.informer.as_mut().filter(|_| self.id == Some(id)) {
            self.id = None;
            informer.ended(now, how);
        }
    }

    /// A connection is gone: the informer's own, or one that watched.
    pub(super) fn closed(&mut self, now: Now, id: Id) {
        self.ended(now, id, HangUp::Reset);
        if let Some(informer) = &mut self.informer {
            informer.feed.leave(id);
        }
    }

    pub(super) fn fetched(&mut self, now: Now, files: &[File]) {
        if let Some(informer) = &mut self.informer {
            informer.fetched(now, files);
        }
    }

    /// The operator says that something may be another by now.
    pub(super) fn reload(&mut self, now: Now) {
        if let Some(informer) = &mut self.informer {
            informer.reload(now);
        }
    }

    /// What it wants next.
    fn step(&mut self, now: Now) -> Option<Step> {
        let informer = self.informer.as_mut()?;
        informer.tend(now);
        let step = informer.poll();
        if step.is_none() && informer.feed.has_due() {
            self.due_ns.get_or_insert(now.mono_ns);
        }
        step
    }
}

impl Server {
    /// What of it is due.
    pub(super) fn fire_upstream(&mut self, now: Now) {
        let Shared { upstream, actions, .. } = &mut self.shared;
        upstream.fire(now);
        upstream.wake(|id| actions.push_back(Action::Write(id)));
        self.tend_upstream(now);
    }

    /// Carries out what the informer wants, after anything that may have made it want something.
    pub(super) fn tend_upstream(&mut self, now: Now) {
        while let Some(step) = self.shared.upstream.step(now) {
            match step {
                Step::Connect(target) => {
                    let conn = Conn::upstream(Moment::at(now.mono_ns));
                    let Some(id) = self.conns.insert(conn) else { return };
                    self.shared.open.upstream += 1;
                    self.shared.upstream.id = Some(id);
                    self.shared.actions.push_back(Action::Connect(id, target));
                }
                Step::HangUp => {
                    let id = self.shared.upstream.id.take();
                    self.shared.actions.extend(id.map(Action::Reset));
                }
                Step::Read(paths) => {
                    self.shared.actions.push_back(Action::Fetch(Source::Files(paths)));
                }
            }
        }
        let Shared { upstream, account, .. } = &mut self.shared;
        let memory = upstream.informer.as_ref().map_or(0, |informer| informer.cost());
        if memory != upstream.counted.memory {
            account.update(&mut upstream.counted, Account { memory, queued: 0 });
        }
    }

    /// `namespace/name`, uid and version of each Deployment that is known: for tests.
    #[must_use]
    pub fn deployments(&self) -> Vec<(String, String, String)> {
        self.shared.upstream.contents()
    }
}

//! Re-reads files: tokens and certificates periodically and after failures that they may have
//! caused, the kubeconfig on reload.

use super::access::Secrets;
use super::{Informer, Kubeconfig, Phase, Step, Streams, kubeconfig, limits};
use crate::engine::{File, Now};
use crate::time;

impl Informer {
    /// Requests the files with tokens and certificates; false if there are none.
    pub(super) fn reread(&mut self, now: Now) -> bool {
        let files = self.plan.access.files();
        let any = !files.is_empty();
        if any {
            self.reread_ns = now.mono_ns + time::ms(limits::REREAD_MS);
            self.steps.push_back(Step::Read(files));
        }
        any
    }

    /// When the next periodic [`Informer::reread`] is due.
    pub(super) fn secrets_due_ns(&self) -> Option<u64> {
        let needed = !matches!(self.phase, Phase::Idle) && self.plan.access.has_files();
        needed.then_some(self.reread_ns)
    }

    /// Re-reads all files, after SIGHUP, and ends a pause.
    pub fn reload(&mut self, now: Now) {
        let origin = self.plan.origin.as_ref();
        if let Some(files) = origin.map(|origin| origin.files.clone()) {
            self.steps.push_back(Step::Read(files));
        }
        self.reread(now);
        if let Phase::Waiting { until_ns } = &mut self.phase {
            *until_ns = now.mono_ns;
        }
    }

    /// Completes [`Step::Read`] with the files that could be read.
    pub fn fetched(&mut self, now: Now, files: &[File]) {
        for File { name, bytes, .. } in files {
            self.secrets.fetched(&self.plan.access, name, bytes);
        }
        let Some(Kubeconfig { files: paths, context }) = &self.plan.origin else { return };
        let configs: Vec<(String, Vec<u8>)> = paths
            .iter()
            .filter_map(|path| files.iter().find(|file| file.name == *path))
            .map(|file| (file.name.clone(), file.bytes.clone()))
            .collect();
        if configs.is_empty() {
            return;
        }
        match kubeconfig::read(&configs, context) {
            Ok(access) if access == self.plan.access => {}
            Ok(access) => {
                log::info!(target: "informer", host = access.authority(); "kubeconfig changed");
                self.secrets = Secrets::new(&access);
                self.plan.access = access;
                self.begin_again(now);
            }
            Err(why) => log::warn!(
                target: "informer", error:% = why;
                "cannot use the new kubeconfig, keeping the old one"
            ),
        }
    }

    /// Reconnects with the new server or credentials and lists again.
    fn begin_again(&mut self, now: Now) {
        if matches!(self.phase, Phase::Connecting { .. } | Phase::Exchanging(_)) {
            self.steps.push_back(Step::HangUp);
        }
        self.progress.streams = Streams::Try;
        if !matches!(self.phase, Phase::Idle) {
            self.backoff.reset();
            self.begin(now);
        }
    }
}

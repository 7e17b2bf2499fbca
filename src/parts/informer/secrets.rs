//! Files that the informer lives by, as they change under it: tokens and certificates, read again
//! from time to time and when they may be why it fails, and the kubeconfig, read again when the
//! operator says so.

use super::access::Secrets;
use super::{Informer, Kubeconfig, Phase, Step, kubeconfig, limits};
use crate::engine::{File, Now};
use crate::time;

impl Informer {
    /// Has tokens and certificates read again; false when there are none in files.
    pub(super) fn reread(&mut self, now: Now) -> bool {
        let files = self.plan.access.files();
        let any = !files.is_empty();
        if any {
            self.reread_ns = now.mono_ns + time::ms(limits::REREAD_MS);
            self.steps.push_back(Step::Read(files));
        }
        any
    }

    /// When that is due by itself.
    pub(super) fn secrets_due_ns(&self) -> Option<u64> {
        let needed = !matches!(self.phase, Phase::Off) && self.plan.access.has_files();
        needed.then_some(self.reread_ns)
    }

    /// The operator says that files may be others by now: they are read again, and whoever waits
    /// to try again tries at once.
    pub fn reload(&mut self, now: Now) {
        let origin = self.plan.origin.as_ref();
        if let Some(files) = origin.map(|origin| origin.files.clone()) {
            self.steps.push_back(Step::Read(files));
        }
        self.reread(now);
        if let Phase::Resting { until_ns } = &mut self.phase {
            *until_ns = now.mono_ns;
        }
    }

    /// What [`Step::Read`] asked for, as far as it could be read.
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
                log::info!(target: "informer", host = access.authority(); "another kubeconfig");
                self.secrets = Secrets::new(&access);
                self.plan.access = access;
                self.begin_again(now);
            }
            Err(why) => log::warn!(
                target: "informer", error:% = why;
                "cannot use the new kubeconfig, the old one stays"
            ),
        }
    }

    /// With another server, or as somebody else: what is known becomes what the next list says.
    fn begin_again(&mut self, now: Now) {
        if matches!(self.phase, Phase::Connecting { .. } | Phase::Asking(_)) {
            self.steps.push_back(Step::HangUp);
        }
        if !matches!(self.phase, Phase::Off) {
            self.backoff.reset();
            self.begin(now);
        }
    }
}

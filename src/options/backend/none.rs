//! A build without the backend: its flags are known, so that help and README are the same, and it
//! says that it is not there.

#![expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the real one looks and checks")]

use crate::options::Usage;
use crate::options::read::Environment;
use crate::options::table::Taken;
use crate::server::config::Config;

#[derive(Clone, Debug, Default)]
pub(in crate::options) struct Wish {
    pub(in crate::options) gateway: String,
    pub(in crate::options) token_file: String,
    pub(in crate::options) sessions: String,
    pub(in crate::options) endpoint: String,
    pub(in crate::options) create: bool,
}

impl Wish {
    pub(super) fn take_gateway(&mut self, _: &str) -> Taken {
        Ok(())
    }

    pub(super) fn take_endpoint(&mut self, _: &str) -> Taken {
        Ok(())
    }

    pub(super) fn take_sessions(&mut self, _: &str) -> Taken {
        Ok(())
    }

    pub(super) fn settle(&self, _: &mut Config, _: &Environment) -> Result<(), Usage> {
        Err(Usage::Unclear("this build has no backend: it was built without the feature gateway"))
    }
}

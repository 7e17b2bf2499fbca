//! Combines the flags of `wspulse backend` into a plan.

use super::sessions::{SessionStorage, TableConfig};
use super::{Auth, CaFiles, CallbackApi, Plan};
use crate::aws::credentials::{self, Config as AwsConfig};
use crate::aws::dynamodb;
use crate::aws::endpoint::Endpoint;
use crate::options::Usage;
use crate::options::read::Environment;
use crate::options::table::Taken;

/// The values of the flags, each validated by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(super) gateway: String,
    pub(super) token_file: String,
    pub(super) gateway_ca_file: String,
    pub(super) ca_file: String,
    pub(super) sessions: String,
    pub(super) endpoint: String,
    pub(super) create: bool,
}

const SESSIONS: &str =
    "must be memory or dynamodb:TABLE, with a table name of 3 to 255 characters of A-Za-z0-9_.-";

impl Settings {
    pub(super) fn take_gateway(&mut self, value: &str) -> Taken {
        CallbackApi::parse(value)?;
        value.clone_into(&mut self.gateway);
        Ok(())
    }

    pub(super) fn take_endpoint(&mut self, value: &str) -> Taken {
        Endpoint::parse(value)?;
        value.clone_into(&mut self.endpoint);
        Ok(())
    }

    pub(super) fn take_sessions(&mut self, value: &str) -> Taken {
        if value != "memory" && !table(value).is_some_and(dynamodb::is_table) {
            return Err(SESSIONS.into());
        }
        value.clone_into(&mut self.sessions);
        Ok(())
    }

    /// Checks the flags against each other and the environment.
    pub(super) fn settle(&self, env: &Environment) -> Result<Plan, Usage> {
        let bad = |name: &str, value: &str, why: &str| Usage::BadValue {
            name: name.to_owned(),
            value: value.to_owned(),
            why: why.to_owned(),
        };
        let mut gateway = CallbackApi::parse(&self.gateway)
            .map_err(|why| bad("--gateway", &self.gateway, why))?;
        if !self.token_file.is_empty() {
            if matches!(gateway.auth, Auth::SigV4(_)) {
                return Err(Usage::Conflict(
                    "--gateway-token-file is not for gateways in AWS, whose requests are signed",
                ));
            }
            gateway.auth = Auth::Token(self.token_file.clone());
        }
        let table = table(&self.sessions);
        if table.is_none() && (self.create || !self.endpoint.is_empty()) {
            return Err(Usage::Conflict(
                "--create-table and --dynamodb-endpoint need --sessions dynamodb:TABLE",
            ));
        }
        let for_whom = match (table, &gateway.auth) {
            (Some(_), _) => Some(("--sessions", &self.sessions)),
            (None, Auth::SigV4(_)) => Some(("--gateway", &self.gateway)),
            (None, Auth::None | Auth::Token(_)) => None,
        };
        let aws = for_whom.map(|(flag, value)| {
            let read = AwsConfig::read(&|name| env.filled(name).map(str::to_owned));
            read.map_err(|missing| bad(flag, value, &missing.to_string()))
        });
        let aws = aws.transpose()?;
        let sessions = match (table, &aws) {
            (Some(table), Some(aws)) => SessionStorage::Table(self.config(table, aws, env)?),
            _ => SessionStorage::Memory,
        };
        let provider = aws.map(|aws| aws.provider);
        let given = |file: &str| (!file.is_empty()).then(|| file.to_owned());
        let files = CaFiles { gateway: given(&self.gateway_ca_file), all: given(&self.ca_file) };
        let plan = Plan { gateway, sessions, provider, ca_files: files };
        if plan.ca_files.gateway.is_some() && !plan.gateway.endpoint.is_secure() {
            return Err(Usage::Conflict("--gateway-ca-file requires --gateway https://…"));
        }
        Ok(plan)
    }

    fn config(
        &self,
        table: &str,
        aws: &AwsConfig,
        env: &Environment,
    ) -> Result<TableConfig, Usage> {
        let region = aws.region.clone();
        let variable = |name: &str| env.filled(name).map(str::to_owned);
        let endpoint = if self.endpoint.is_empty() {
            let named = credentials::endpoint("DYNAMODB", &variable);
            let named = named.map_err(|wrong| Usage::OfPart(wrong.to_string()))?;
            named.or_else(|| Endpoint::of_aws("dynamodb", &region))
        } else {
            Endpoint::parse(&self.endpoint).ok()
        };
        let endpoint = endpoint.ok_or(Usage::Conflict(
            "DynamoDB in AWS needs TLS, which this build does not have: use --dynamodb-endpoint",
        ))?;
        Ok(TableConfig { name: table.to_owned(), endpoint, region, create: self.create })
    }
}

fn table(sessions: &str) -> Option<&str> {
    sessions.strip_prefix("dynamodb:")
}

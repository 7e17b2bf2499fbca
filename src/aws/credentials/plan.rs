//! What the environment says of credentials, in the order in which AWS' own tools look: keys,
//! a web identity, a container's endpoint.

use core::fmt;

use super::Question;
use super::answer::{self, Given, Trouble};
use crate::aws::endpoint::Endpoint;
use crate::aws::secret::{Credentials, Secret};
use crate::aws::sigv4::encode;

/// Where containers ask that ECS runs.
const ECS: &str = "http://169.254.170.2";
/// Addresses that may be asked without TLS beside one's own: ECS, and EKS on IPv4 and IPv6.
const NEAR: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// All that the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub region: String,
    /// Who gives credentials.
    pub provider: Provider,
}

/// Who gives credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The environment itself.
    Given(Credentials),
    /// EKS Pod Identity or ECS.
    Container {
        /// Whom to ask.
        endpoint: Endpoint,
        /// What for.
        target: String,
        /// Who we are, if that does not stand in a file.
        token: Option<Secret>,
        /// Where it stands, and changes.
        token_file: Option<String>,
    },
    /// A role that is assumed with a web identity.
    Web {
        /// The Security Token Service.
        endpoint: Endpoint,
        /// Which role.
        role: String,
        /// What this use of it is called.
        session: String,
        /// Where the identity stands, and changes.
        token_file: String,
    },
}

/// Why the environment does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No region.
    Region,
    /// Nothing of all that could give credentials.
    Credentials,
    /// A key, and not its secret.
    Secret,
    /// A region that none is called.
    BadRegion,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` is no URL, or one that must not be trusted.
    BadContainer,
    /// `AWS_ENDPOINT_URL_STS` is no URL.
    BadSts,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Region => "AWS_REGION is not set: name the region, such as eu-west-1",
            Self::Credentials => {
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                 or give the pod an identity (EKS Pod Identity or IRSA)"
            }
            Self::Secret => "AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not",
            Self::BadRegion => "AWS_REGION must be a region's name, such as eu-west-1",
            Self::BadContainer => {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https://…, or http:// to this machine \
                 or to 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]"
            }
            Self::BadSts => "AWS_ENDPOINT_URL_STS must be http(s)://HOST[:PORT]",
        })
    }
}

impl Plan {
    /// Reads the environment; an empty variable is none.
    ///
    /// # Errors
    /// What it lacks.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Missing> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"));
        let region = region.ok_or(Missing::Region)?;
        let sts = Endpoint::of_aws("sts", &region);
        // Without TLS none of AWS' own endpoints can be had, but the region may be sound.
        if sts.is_none() && cfg!(feature = "tls") {
            return Err(Missing::BadRegion);
        }
        let provider = Self::provider(&set, sts)?;
        Ok(Self { region, provider })
    }

    fn provider(
        set: &dyn Fn(&str) -> Option<String>,
        sts: Option<Endpoint>,
    ) -> Result<Provider, Missing> {
        if let Some(access_key) = set("AWS_ACCESS_KEY_ID") {
            let secret = set("AWS_SECRET_ACCESS_KEY").ok_or(Missing::Secret)?;
            return Ok(Provider::Given(Credentials {
                access_key,
                secret_key: Secret::new(secret),
                session_token: set("AWS_SESSION_TOKEN").map(Secret::new),
            }));
        }
        if let (Some(role), Some(token_file)) =
            (set("AWS_ROLE_ARN"), set("AWS_WEB_IDENTITY_TOKEN_FILE"))
        {
            let endpoint = match set("AWS_ENDPOINT_URL_STS") {
                Some(url) => Endpoint::parse(&url).map_err(|_| Missing::BadSts)?,
                None => sts.ok_or(Missing::BadSts)?,
            };
            let session = set("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "wspulse".to_owned());
            return Ok(Provider::Web { endpoint, role, session, token_file });
        }
        let full = set("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let relative = set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = relative.map(|path| format!("{ECS}{path}")).or(full);
        let url = url.ok_or(Missing::Credentials)?;
        // It has a query in some places, which other endpoints have no use for.
        let (base, query) = match url.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (url.as_str(), String::new()),
        };
        let endpoint = Endpoint::parse(base).map_err(|_| Missing::BadContainer)?;
        let near = NEAR.contains(&endpoint.name.as_str()) || endpoint.is_local();
        if !endpoint.is_secure() && !near {
            return Err(Missing::BadContainer);
        }
        let path = if endpoint.path.is_empty() { "/" } else { &endpoint.path };
        let target = format!("{path}{query}");
        let token = set("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new);
        let token_file = set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        Ok(Provider::Container { endpoint, target, token, token_file })
    }
}

impl Provider {
    /// The file to read before asking.
    #[must_use]
    pub fn token_file(&self) -> Option<&str> {
        match self {
            Self::Given(_) => None,
            Self::Container { token_file, .. } => token_file.as_deref(),
            Self::Web { token_file, .. } => Some(token_file),
        }
    }

    /// What to ask, given what that file had.
    pub(super) fn question(&self, read: Option<&Secret>) -> Option<Question> {
        match self {
            Self::Given(_) => None,
            Self::Container { endpoint, target, token, .. } => {
                let token = read.or(token.as_ref()).cloned();
                Some(Question {
                    endpoint: endpoint.clone(),
                    method: "GET",
                    target: target.clone(),
                    fields: token.map(|token| ("Authorization", token)).into_iter().collect(),
                    body: Secret::new(""),
                })
            }
            Self::Web { endpoint, role, session, .. } => {
                let mut body = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15".to_owned();
                let token = read?.reveal();
                let parts = [
                    ("RoleArn", &**role),
                    ("RoleSessionName", session),
                    ("WebIdentityToken", token),
                ];
                for (name, value) in parts {
                    body.extend(["&", name, "="]);
                    encode(value.as_bytes(), &mut body);
                }
                let form = Secret::new("application/x-www-form-urlencoded");
                Some(Question {
                    endpoint: endpoint.clone(),
                    method: "POST",
                    target: format!("{}/", endpoint.path),
                    fields: vec![("Content-Type", form)],
                    body: Secret::new(body),
                })
            }
        }
    }

    /// What the answer gives.
    pub(super) fn given(&self, status: u16, body: &[u8]) -> Result<Given, Trouble> {
        match self {
            Self::Given(_) => Err(Trouble::Malformed),
            Self::Container { .. } => answer::json(status, body),
            Self::Web { .. } => answer::xml(status, body),
        }
    }
}

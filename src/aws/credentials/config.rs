//! Reads region and credential provider from environment variables, in the order of the AWS SDKs:
//! keys, web identity, container endpoint.

use core::fmt;

use super::ProviderRequest;
use super::answer::{self, CredentialsError, Temporary};
use crate::aws::endpoint::Endpoint;
use crate::aws::secret::{Credentials, Secret};
use crate::aws::sigv4::encode;

/// The credentials endpoint of ECS.
const ECS: &str = "http://169.254.170.2";
/// Hosts allowed without TLS besides loopback: ECS, and EKS on IPv4 and IPv6.
const LINK_LOCAL: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Region and credential provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub region: String,
    /// Where credentials come from.
    pub provider: Provider,
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Access keys in environment variables.
    Static(Credentials),
    /// EKS Pod Identity or ECS.
    Container {
        /// The credentials endpoint.
        endpoint: Endpoint,
        /// Path and query.
        target: String,
        /// Authorization token, unless it is in a file.
        token: Option<Secret>,
        /// File with the authorization token, which is rotated.
        token_file: Option<String>,
    },
    /// `AssumeRoleWithWebIdentity`.
    Web {
        /// The Security Token Service.
        endpoint: Endpoint,
        /// ARN of the role.
        role: String,
        /// Session name.
        session: String,
        /// File with the web identity token, which is rotated.
        token_file: String,
    },
}

/// A missing or invalid environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `AWS_REGION` is not set.
    Region,
    /// No credential provider is configured.
    Credentials,
    /// `AWS_SECRET_ACCESS_KEY` is not set.
    Secret,
    /// Not a valid region name.
    BadRegion,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` is invalid or must use TLS.
    BadContainer,
    /// `AWS_ENDPOINT_URL` or that of a service is invalid.
    BadEndpoint,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Region => "AWS_REGION is not set: name the region, such as eu-west-1",
            Self::Credentials => {
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                 or give the pod an identity (EKS Pod Identity or IRSA)"
            }
            Self::Secret => "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not",
            Self::BadRegion => "AWS_REGION must be a region's name, such as eu-west-1",
            Self::BadContainer => {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https://…, or http:// to this machine \
                 or to 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]"
            }
            Self::BadEndpoint => {
                "AWS_ENDPOINT_URL, or that of a service, must be http(s)://HOST[:PORT]"
            }
        })
    }
}

impl Config {
    /// Reads the environment; an empty variable counts as not set.
    ///
    /// # Errors
    /// The first missing or invalid variable.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"));
        let region = region.ok_or(ConfigError::Region)?;
        let sts = Endpoint::of_aws("sts", &region);
        // Without TLS no AWS endpoint is available, but the region may still be valid.
        if sts.is_none() && cfg!(feature = "tls") {
            return Err(ConfigError::BadRegion);
        }
        let provider = Self::provider(&set, sts)?;
        Ok(Self { region, provider })
    }

    fn provider(
        set: &dyn Fn(&str) -> Option<String>,
        sts: Option<Endpoint>,
    ) -> Result<Provider, ConfigError> {
        if let Some(access_key) = set("AWS_ACCESS_KEY_ID") {
            let secret = set("AWS_SECRET_ACCESS_KEY").ok_or(ConfigError::Secret)?;
            return Ok(Provider::Static(Credentials {
                access_key,
                secret_key: Secret::new(secret),
                session_token: set("AWS_SESSION_TOKEN").map(Secret::new),
            }));
        }
        if let (Some(role), Some(token_file)) =
            (set("AWS_ROLE_ARN"), set("AWS_WEB_IDENTITY_TOKEN_FILE"))
        {
            let endpoint = endpoint("STS", set)?.or(sts).ok_or(ConfigError::BadEndpoint)?;
            let session = set("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "wspulse".to_owned());
            return Ok(Provider::Web { endpoint, role, session, token_file });
        }
        let full = set("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let relative = set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = relative.map(|path| format!("{ECS}{path}")).or(full);
        let url = url.ok_or(ConfigError::Credentials)?;
        // Some platforms put a query into the URL, which `Endpoint` does not allow.
        let (base, query) = match url.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (url.as_str(), String::new()),
        };
        let endpoint = Endpoint::parse(base).map_err(|_| ConfigError::BadContainer)?;
        let may_be_plain = LINK_LOCAL.contains(&endpoint.name.as_str()) || endpoint.is_local();
        if !endpoint.is_secure() && !may_be_plain {
            return Err(ConfigError::BadContainer);
        }
        let path = if endpoint.path.is_empty() { "/" } else { &endpoint.path };
        let target = format!("{path}{query}");
        let token = set("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new);
        let token_file = set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        Ok(Provider::Container { endpoint, target, token, token_file })
    }
}

/// The endpoint of a service (in capitals) in the environment: `AWS_ENDPOINT_URL_SERVICE`, else
/// `AWS_ENDPOINT_URL`, unless `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` is `true`.
///
/// # Errors
/// The URL is invalid.
pub fn endpoint(
    service: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Endpoint>, ConfigError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let ignored = set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    if ignored.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let url = set(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| set("AWS_ENDPOINT_URL"));
    url.map(|url| Endpoint::parse(&url).map_err(|_| ConfigError::BadEndpoint)).transpose()
}

impl Provider {
    /// The endpoint that gives credentials.
    pub fn endpoint_mut(&mut self) -> Option<&mut Endpoint> {
        match self {
            Self::Static(_) => None,
            Self::Container { endpoint, .. } | Self::Web { endpoint, .. } => Some(endpoint),
        }
    }

    /// The token file, which is read before each request.
    #[must_use]
    pub fn token_file(&self) -> Option<&str> {
        match self {
            Self::Static(_) => None,
            Self::Container { token_file, .. } => token_file.as_deref(),
            Self::Web { token_file, .. } => Some(token_file),
        }
    }

    /// The request for credentials; `None` if it needs a token and there is none.
    pub(super) fn request(&self, read: Option<&Secret>) -> Option<ProviderRequest> {
        match self {
            Self::Static(_) => None,
            Self::Container { endpoint, target, token, .. } => {
                let token = read.or(token.as_ref()).cloned();
                Some(ProviderRequest {
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
                Some(ProviderRequest {
                    endpoint: endpoint.clone(),
                    method: "POST",
                    target: format!("{}/", endpoint.path),
                    fields: vec![("Content-Type", form)],
                    body: Secret::new(body),
                })
            }
        }
    }

    pub(super) fn parse_response(
        &self,
        status: u16,
        body: &[u8],
    ) -> Result<Temporary, CredentialsError> {
        match self {
            Self::Static(_) => Err(CredentialsError::Malformed),
            Self::Container { .. } => answer::json(status, body),
            Self::Web { .. } => answer::xml(status, body),
        }
    }
}

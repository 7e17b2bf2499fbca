//! Request bodies for the session table and parsers for the responses. Works with any service
//! that implements the `DynamoDB` protocol.

use core::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::time;

/// The partition key; there is no sort key.
pub const KEY: &str = "connectionId";
/// The TTL attribute, in seconds since 1970.
const EXPIRES: &str = "expiresAt";
/// Allowed length of a table name.
const NAME_BYTES: core::ops::RangeInclusive<usize> = 3..=255;

/// An operation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Counts a message; creates the item if needed.
    UpdateItem,
    /// Deletes the session.
    DeleteItem,
    /// Checks whether the table exists.
    DescribeTable,
    /// Creates the table.
    CreateTable,
    /// Enables expiry of items.
    UpdateTimeToLive,
}

impl Operation {
    /// Value of the header field `X-Amz-Target`.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::UpdateItem => "DynamoDB_20120810.UpdateItem",
            Self::DeleteItem => "DynamoDB_20120810.DeleteItem",
            Self::DescribeTable => "DynamoDB_20120810.DescribeTable",
            Self::CreateTable => "DynamoDB_20120810.CreateTable",
            Self::UpdateTimeToLive => "DynamoDB_20120810.UpdateTimeToLive",
        }
    }

    /// The name for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.target().rsplit('.').next().unwrap_or_default()
    }
}

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Throttled: the operation was not carried out and may be retried.
    Throttled(String),
    /// The table does not exist.
    NoTable,
    /// The table is being created, updated or deleted.
    Busy,
    /// The credentials are invalid or have expired.
    Credentials(String),
    /// The credentials are valid but lack the permission.
    Denied(String),
    /// The request is invalid.
    Invalid(String),
    /// Server error: the operation may or may not have been carried out.
    Server(u16),
    /// The response is not one of `DynamoDB`.
    Malformed(u16),
}

impl Fault {
    /// The value of the metric label `reason`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Throttled(_) => "throttled",
            Self::NoTable => "no_table",
            Self::Busy => "busy",
            Self::Credentials(_) => "credentials",
            Self::Denied(_) => "denied",
            Self::Invalid(_) => "invalid",
            Self::Server(_) => "server",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throttled(code) => write!(f, "throttled ({code})"),
            Self::NoTable => f.write_str("the table does not exist"),
            Self::Busy => f.write_str("the table is being created or updated"),
            Self::Credentials(code) => write!(f, "the credentials were rejected ({code})"),
            Self::Denied(code) => write!(f, "access denied ({code})"),
            Self::Invalid(code) => write!(f, "invalid request ({code})"),
            Self::Server(status) => write!(f, "server error ({status})"),
            Self::Malformed(status) => write!(f, "not a DynamoDB response ({status})"),
        }
    }
}

/// Whether this is a valid table name.
#[must_use]
pub fn is_table(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    NAME_BYTES.contains(&name.len()) && name.bytes().all(allowed)
}

/// Counts a message of a connection, in one request whether or not the item exists.
#[must_use]
pub fn update_item(table: &str, connection: &str, wall_ms: i64, keep_ms: i64) -> Vec<u8> {
    let expires_s = (wall_ms + keep_ms) / 1000;
    body(&json!({
        "TableName": table,
        "Key": { KEY: { "S": connection } },
        "UpdateExpression": "SET createdAt = if_not_exists(createdAt, :now), lastSeenAt = :now, \
            expiresAt = :expires ADD messages :one",
        "ExpressionAttributeValues": {
            ":now": { "S": time::rfc3339(wall_ms) },
            ":expires": { "N": expires_s.to_string() },
            ":one": { "N": "1" },
        },
        "ReturnValues": "UPDATED_NEW",
    }))
}

/// Deletes the session of a connection.
#[must_use]
pub fn delete_item(table: &str, connection: &str) -> Vec<u8> {
    body(&json!({ "TableName": table, "Key": { KEY: { "S": connection } } }))
}

/// Body of `DescribeTable` or of any operation that takes only the table name.
#[must_use]
pub fn describe_table(table: &str) -> Vec<u8> {
    body(&json!({ "TableName": table }))
}

/// Pay-per-request, so that no throughput has to be provisioned.
#[must_use]
pub fn create_table(table: &str) -> Vec<u8> {
    body(&json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": KEY, "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": KEY, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    }))
}

/// Lets the service delete items after `expiresAt`.
#[must_use]
pub fn update_time_to_live(table: &str) -> Vec<u8> {
    body(&json!({
        "TableName": table,
        "TimeToLiveSpecification": { "AttributeName": EXPIRES, "Enabled": true },
    }))
}

fn body(value: &Value) -> Vec<u8> {
    // Strings and numbers always serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The state of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    /// The table can be used.
    Ready,
    /// The table is still being created.
    Busy,
    /// The primary key is not [`KEY`].
    OtherKey,
}

/// Parses the response to [`update_item`]: the message count, including this message.
///
/// # Errors
/// The message was not counted, or the outcome is unknown.
pub fn updated(status: u16, body: &[u8]) -> Result<u64, Fault> {
    #[derive(Deserialize)]
    struct Updated<'a> {
        #[serde(borrow, rename = "Attributes")]
        attributes: Attributes<'a>,
    }
    #[derive(Deserialize)]
    struct Attributes<'a> {
        #[serde(borrow)]
        messages: Number<'a>,
    }
    #[derive(Deserialize)]
    struct Number<'a> {
        #[serde(rename = "N")]
        n: &'a str,
    }
    done(status, body)?;
    let updated: Option<Updated<'_>> = serde_json::from_slice(body).ok();
    let messages = updated.and_then(|updated| updated.attributes.messages.n.parse().ok());
    messages.ok_or(Fault::Malformed(status))
}

/// Parses the response to [`describe_table`].
///
/// # Errors
/// The table does not exist, or its state is unknown.
pub fn described(status: u16, body: &[u8]) -> Result<TableState, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Described {
        table: Description,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Description {
        table_status: String,
        key_schema: Vec<Part>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Part {
        attribute_name: String,
    }
    done(status, body)?;
    let Described { table } = serde_json::from_slice(body).map_err(|_| Fault::Malformed(status))?;
    if !matches!(&table.key_schema[..], [part] if part.attribute_name == KEY) {
        return Ok(TableState::OtherKey);
    }
    // A table that is UPDATING serves requests.
    let ready = matches!(&*table.table_status, "ACTIVE" | "UPDATING");
    Ok(if ready { TableState::Ready } else { TableState::Busy })
}

/// Parses a response whose body does not matter on success.
///
/// # Errors
/// The operation failed, or the outcome is unknown.
pub fn done(status: u16, body: &[u8]) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Failed {
        #[serde(rename = "__type")]
        kind: String,
    }
    if status == 200 {
        return Ok(());
    }
    if status >= 500 && status != 503 {
        return Err(Fault::Server(status));
    }
    let failed: Option<Failed> = serde_json::from_slice(body).ok();
    let Some(Failed { kind }) = failed else {
        return Err(match status {
            503 => Fault::Server(status),
            // Compatible services may not send an error type.
            401 | 403 => Fault::Credentials(status.to_string()),
            _ => Fault::Malformed(status),
        });
    };
    // `com.amazonaws.dynamodb.v20120810#ResourceNotFoundException`
    let code = kind.rsplit('#').next().unwrap_or_default();
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    Err(match code.as_str() {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Fault::Throttled(code),
        "ResourceNotFoundException" => Fault::NoTable,
        "ResourceInUseException" => Fault::Busy,
        "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken" => Fault::Credentials(code),
        "AccessDeniedException" => Fault::Denied(code),
        _ if status == 503 => Fault::Server(status),
        _ => Fault::Invalid(code),
    })
}

#[cfg(test)]
mod tests;

//! What is asked of a table of sessions, and what its answers mean: bodies in, bodies out. Anything
//! that speaks `DynamoDB`'s protocol will do. It knows no connection and no time of its own.

use core::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::time;

/// The one attribute of the key.
pub const KEY: &str = "connectionId";
/// Seconds since 1970 after which an item may go.
const EXPIRES: &str = "expiresAt";
/// What may stand in a table's name, and how long it is.
const NAME_BYTES: core::ops::RangeInclusive<usize> = 3..=255;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Counts a message; makes the item if there is none.
    UpdateItem,
    /// The connection is gone.
    DeleteItem,
    /// Whether there is such a table.
    DescribeTable,
    /// Makes it.
    CreateTable,
    /// Items go by themselves.
    UpdateTimeToLive,
}

impl Operation {
    /// The field `X-Amz-Target`.
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

    /// Its name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.target().rsplit('.').next().unwrap_or_default()
    }
}

/// Why an answer is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Too much is asked: it was not done, and may be asked again.
    Throttled(String),
    /// There is no such table.
    NoTable,
    /// It is being made, changed or deleted.
    Busy,
    /// The credentials are not, or no longer, good.
    Credentials(String),
    /// They are, and may not do this.
    Denied(String),
    /// The question is wrong.
    Invalid(String),
    /// The service is in trouble; nobody knows whether it was done.
    Server(u16),
    /// That is no answer.
    Malformed(u16),
}

impl Fault {
    /// As a metric's label has it.
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
            Self::NoTable => f.write_str("there is no such table"),
            Self::Busy => f.write_str("the table is being made or changed"),
            Self::Credentials(code) => write!(f, "the credentials are not taken ({code})"),
            Self::Denied(code) => write!(f, "the credentials may not do that ({code})"),
            Self::Invalid(code) => write!(f, "the question is wrong ({code})"),
            Self::Server(status) => write!(f, "the service is in trouble ({status})"),
            Self::Malformed(status) => write!(f, "the answer is none of DynamoDB's ({status})"),
        }
    }
}

/// Whether a table can have that name.
#[must_use]
pub fn is_table(name: &str) -> bool {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    NAME_BYTES.contains(&name.len()) && name.bytes().all(sound)
}

/// One more message of a connection; one question, whether or not the item is there.
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

/// It is gone.
#[must_use]
pub fn delete_item(table: &str, connection: &str) -> Vec<u8> {
    body(&json!({ "TableName": table, "Key": { KEY: { "S": connection } } }))
}

/// Whether it is there.
#[must_use]
pub fn describe_table(table: &str) -> Vec<u8> {
    body(&json!({ "TableName": table }))
}

/// Paid by the request: nobody has to guess a rate.
#[must_use]
pub fn create_table(table: &str) -> Vec<u8> {
    body(&json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": KEY, "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": KEY, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    }))
}

/// Items go when their time is over.
#[must_use]
pub fn update_time_to_live(table: &str) -> Vec<u8> {
    body(&json!({
        "TableName": table,
        "TimeToLiveSpecification": { "AttributeName": EXPIRES, "Enabled": true },
    }))
}

fn body(value: &Value) -> Vec<u8> {
    // Text and numbers can always be written.
    serde_json::to_vec(value).unwrap_or_default()
}

/// What a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// It can be used.
    Ready,
    /// Not yet.
    Busy,
    /// It has another key than ours.
    OtherKey,
}

/// Messages of a connection, this one included.
///
/// # Errors
/// It was not counted, or nobody knows.
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

/// What there is to say of a table.
///
/// # Errors
/// There is none, or nobody knows.
pub fn described(status: u16, body: &[u8]) -> Result<Table, Fault> {
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
        return Ok(Table::OtherKey);
    }
    // While it is UPDATING it serves.
    let ready = matches!(&*table.table_status, "ACTIVE" | "UPDATING");
    Ok(if ready { Table::Ready } else { Table::Busy })
}

/// Whether it was done.
///
/// # Errors
/// It was not, or nobody knows.
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
            // Stores that are not DynamoDB's own have no name for it.
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

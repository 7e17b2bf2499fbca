//! Request bodies, and responses of `DynamoDB`, moto and dynalite.

use super::*;

fn text(body: Vec<u8>) -> String {
    String::from_utf8(body).unwrap()
}

#[test]
fn one_request_counts_a_message() {
    let asked = update_item("sessions", "a\"b=", 1_795_231_144_123, 7_200_000);
    assert_eq!(
        text(asked),
        concat!(
            r#"{"ExpressionAttributeValues":{":expires":{"N":"1795238344"},"#,
            r#"":now":{"S":"2026-11-21T03:19:04.123Z"},":one":{"N":"1"}},"#,
            r#""Key":{"connectionId":{"S":"a\"b="}},"ReturnValues":"UPDATED_NEW","#,
            r#""TableName":"sessions","UpdateExpression":"SET createdAt = "#,
            r#"if_not_exists(createdAt, :now), lastSeenAt = :now, "#,
            r#"expiresAt = :expires ADD messages :one"}"#
        )
    );
    let answer = br#"{"Attributes":{"createdAt":{"S":"x"},"messages":{"N":"3"}}}"#;
    assert_eq!(updated(200, answer), Ok(3));
    for odd in [&b""[..], b"{}", b"[]", br#"{"Attributes":{"messages":{"N":"x"}}}"#] {
        assert_eq!(updated(200, odd), Err(Fault::Malformed(200)));
    }
    let asked = delete_item("sessions", "a");
    assert_eq!(text(asked), r#"{"Key":{"connectionId":{"S":"a"}},"TableName":"sessions"}"#);
}

#[test]
fn tables() {
    let answer = |status: &str, key: &str| {
        format!(
            r#"{{"Table":{{"TableStatus":"{status}","TableName":"t","KeySchema":
            [{{"AttributeName":"{key}","KeyType":"HASH"}}]}}}}"#
        )
    };
    for (status, key, table) in [
        ("ACTIVE", KEY, TableState::Ready),
        ("UPDATING", KEY, TableState::Ready),
        ("CREATING", KEY, TableState::Busy),
        ("ACTIVE", "id", TableState::OtherKey),
    ] {
        assert_eq!(described(200, answer(status, key).as_bytes()), Ok(table));
    }
    assert_eq!(described(200, b"{}"), Err(Fault::Malformed(200)));
    for (name, valid) in [("tab", true), ("a.b-c_D9", true), ("ab", false), ("a b c", false)] {
        assert_eq!(is_table(name), valid, "{name}");
    }
    assert!(text(create_table("tab")).contains("PAY_PER_REQUEST"));
    assert!(text(update_time_to_live("tab")).contains(r#""AttributeName":"expiresAt""#));
    assert_eq!(text(describe_table("tab")), r#"{"TableName":"tab"}"#);
}

#[test]
fn errors_have_names() {
    let throttled = "ProvisionedThroughputExceededException";
    for (status, kind, name) in [
        (400, throttled, "throttled"),
        (400, "ThrottlingException", "throttled"),
        (400, "ResourceNotFoundException", "no_table"),
        (400, "ResourceInUseException", "busy"),
        (400, "ExpiredTokenException", "credentials"),
        (400, "AccessDeniedException", "denied"),
        (400, "ValidationException", "invalid"),
        (500, "InternalServerError", "server"),
        (503, "ServiceUnavailable", "server"),
    ] {
        let kinds = [kind.to_owned(), format!("com.amazonaws.dynamodb.v20120810#{kind}")];
        for kind in kinds {
            let fault = done(status, format!(r#"{{"__type":"{kind}"}}"#).as_bytes()).unwrap_err();
            assert_eq!(fault.name(), name, "{kind}");
        }
    }
    assert_eq!(done(502, b"<html>"), Err(Fault::Server(502)));
    assert_eq!(done(404, b"<html>"), Err(Fault::Malformed(404)));
    assert_eq!(done(403, b"<html>"), Err(Fault::Credentials("403".to_owned())));
    // Only letters and digits of an error type reach the log.
    let fault = done(400, br#"{"__type":"x#a\nb c"}"#).unwrap_err();
    assert_eq!(fault, Fault::Invalid("abc".to_owned()));
    assert_eq!(done(200, b""), Ok(()));
}

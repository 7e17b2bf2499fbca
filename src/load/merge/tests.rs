//! Merged reports are those of one test, and no file makes it panic.

use super::super::report::Report;
use super::super::{Life, Outcome, Pace, Plan, Thresholds};
use super::*;
use crate::time::ms;

fn report(first_ns: u64, answers: u64, began_ms: i64) -> Summary {
    let mut report = Report {
        begun: 5,
        connected: 5,
        opened: 5,
        due: answers + 2,
        sent: answers + 1,
        unsent: 1,
        unanswered: 1,
        until_ns: ms(2_000),
        began_ms,
        ..Report::default()
    };
    let server = report.count_server(Some("pod-0".to_owned()));
    for answer in 0..answers {
        report.count_answer(server, first_ns + answer, ms(1));
    }
    report.lag.record(first_ns);
    report.count_end(Outcome::Closed(1000));
    report.count_end(Outcome::ClosedEarly(1013));
    Summary::new("ws://h/", &plan(), &report)
}

fn plan() -> Plan {
    super::super::tests::plan(Life::Time { ms: 2_000 }, Pace::Closed { depth: 1 }, 5)
}

fn of(files: &[&str]) -> Result<Summary, String> {
    let files = files.iter().map(|text| ("f.json", text.as_bytes()));
    merge(files).map_err(|error| error.to_string())
}

#[test]
fn a_report_comes_back_as_it_was() {
    let json = report(1_234_567, 400, 1_000).json();
    assert_eq!(of(&[&json]).unwrap().json(), json);
}

#[test]
fn reports_are_added() {
    let (one, other) = (report(1_000, 400, 1_000), report(5_000_000, 100, 1_500));
    // One file each, or one with both, as `kubectl logs` prints them.
    let (one, other) = (one.json(), other.json());
    for all in [of(&[&one, &other]), of(&[&format!("{one}\n{other}")]), of(&[&other, &one])] {
        let mut all = all.unwrap();
        assert_eq!((all.generators, all.clients, all.answered, all.unsent), (2, 10, 500, 2));
        assert_eq!((all.latency.total(), all.latency.least()), (500, 1_000));
        assert_eq!(all.latency.most(), 5_000_099);
        assert!(all.latency.quantile(800) < 1_500 && all.latency.quantile(810) > 4_900_000);
        assert_eq!((all.closes[&1000], all.closed_by_server[&1013]), (2, 2));
        assert_eq!((all.causes["closed_early_1013"].count, all.errors), (2, 6));
        assert_eq!((all.servers.len(), all.servers[0].answers), (1, 500));
        // 2 s each, the second one half a second later.
        assert_eq!((all.elapsed_ms, all.apart_ms, all.rate), (2_500.0, 500.0, 200.0));
        let wanted = Thresholds { p99_ns: Some(2_000_000), ..Thresholds::default() };
        assert_eq!((all.judge(&wanted), all.missed.len()), (3, 1));
        let page = all.page();
        assert!(page.starts_with("ws://h/   2 generators with 5 clients, messages for 2s\n\n"));
        assert!(page.contains("\nstarted     within 500 ms of each other\n"), "{page}");
        assert!(!page.contains("did not run together"), "{page}");
    }
    let page = of(&[&one, &report(1, 1, 100_000).json()]).unwrap().page();
    assert!(page.contains("they did not run together"), "{page}");
}

#[test]
fn files_that_are_no_reports() {
    let good = report(1_000, 4, 1_000).json();
    let changed = |from: &str, to: &str| {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        of(&[&good, &text]).unwrap_err()
    };
    let of = |text: &str| of(&[text]).unwrap_err();
    let none = "it is not a report of wspulse load --json";
    assert_eq!(of(""), "f.json: there is no report in it");
    assert_eq!(of("\n \n"), "f.json: there is no report in it");
    assert_eq!(of("{}"), format!("f.json, line 1: {none}: it has no schema"));
    assert_eq!(of(&good[..good.len() - 9]), format!("f.json, line 1: {none}: it was cut off"));
    assert!(of(&format!("{good}wspulse: x")).starts_with(&format!("f.json, line 2: {none}: ")));
    assert!(of("[1]").ends_with("it has no schema"));
    assert!(of("7").ends_with("it has no schema"));
    let schema = changed("\"schema\":2", "\"schema\":3");
    assert_eq!(schema, "f.json, line 1: it has schema 3, and only 2 can be read");
    assert!(changed("\"schema\":2", "\"schema\":-2").contains("it has schema -2"));
    assert!(changed("\"sent\":5", "\"s\":5").contains("sent is missing, or no count"));
    assert!(changed("\"sent\":5", "\"sent\":-5").contains("sent is missing, or no count"));
    assert!(changed("\"sent\":5", "\"sent\":1e400").contains("number out of range"));
    let absurd = "f.json, line 1: it has an absurd count";
    assert_eq!(changed("\"sent\":5", "\"sent\":18446744073709551615"), absurd);
    assert_eq!(changed("\"1000\":1", "\"1000\":9007199254740993"), absurd);
    let together = changed("\"sent\":5", "\"sent\":9007199254740992");
    assert_eq!(together, "f.json, line 1: the counts of all reports are absurd together");
    assert!(changed("\"elapsed_ms\":2", "\"elapsed_ms\":-2").contains("absurd time"));
    assert!(changed("\"began_ms\":1", "\"began_ms\":-1").contains("absurd time"));
    assert!(changed("ws://h/", "ws://\\u001b[2J").contains("control or invisible characters"));
    // Not escaped: JSON may have it as it is.
    assert!(changed("pod-0", "pod\u{202e}0").contains("control or invisible characters"));
    assert!(changed("\"schema\":2", "\"schema\":\"\u{202e}\"").contains("it has schema another"));
    assert!(changed("pod-0", "pod\\u0007").contains("control or invisible characters"));
    let cut = "downtime is not base64, or was cut off";
    assert!(changed("\"histogram\":\"HISTF", "\"histogram\":\"HIST").contains(cut));
    assert!(changed("\"histogram\":\"HISTF", "\"histogram\":\"IISTF").contains("is not "));
    assert!(changed("\"min_ms\":0.001", "\"min_ms\":9").contains("contradicts its minimum"));
    let text = merge([("f", &b"\xff"[..])]).unwrap_err().to_string();
    assert_eq!(text, "f: it is not UTF-8");
    assert!(merge([]).is_err());
}

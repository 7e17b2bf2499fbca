//! Reports of load generators: whatever a file has, merging it ends with an error or a report that
//! can be printed, and that is read again as the same report.

use wspulse::load::{Thresholds, merge};

/// See the module's head.
pub fn reports(data: &[u8]) {
    let half = data.len() / 2;
    let files = [("a", data), ("b", &data[half..])];
    for files in [&files[..1], &files[..]] {
        let Ok(mut report) = merge(files.iter().copied()) else { continue };
        let wanted = Thresholds { p99_ns: Some(1), errors: Some(0), downtime_ns: Some(0) };
        let code = report.judge(&wanted);
        assert!([0, 1, 3, 4].contains(&code));
        let page = report.page();
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
        report.judge(&Thresholds::default());
        let json = report.json();
        let again = merge([("c", json.as_bytes())]).expect("its own report").json();
        // What was missed is not read, but compared again.
        assert_eq!(again.replace("\"missed\":[]", ""), {
            let (before, rest) = json.split_once("\"missed\":[").expect("the field");
            let (_, after) = rest.split_once("],\"not_yet").expect("its end");
            format!("{before},\"not_yet{after}")
        });
    }
}

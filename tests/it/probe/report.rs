//! What holds for every report: its JSON, its page, its `JUnit` XML and the exit code.

use serde_json::Value;
use wspulse::probe::{Report, Severity};

const COLUMNS: usize = 100;
const REQUESTS: u64 = 200;

pub(super) fn check(report: &Report, quick: bool) -> Result<(), String> {
    json(report, quick)?;
    page(report)?;
    xml(&report.junit())?;
    exit_codes(report)
}

fn json(report: &Report, quick: bool) -> Result<(), String> {
    let text = report.json();
    if !text.ends_with('\n') || text.trim_end().contains('\n') {
        return Err("the JSON is not one line".to_owned());
    }
    let json: Value = serde_json::from_str(&text).map_err(|why| format!("{why}: {text}"))?;
    if json["schema"] != 1 {
        return Err(format!("schema {}", json["schema"]));
    }
    let requests = json["requests"].as_u64().unwrap_or(u64::MAX);
    if quick && requests > REQUESTS {
        return Err(format!("{requests} requests"));
    }
    for one in json["experiments"].as_array().into_iter().flatten() {
        let found = json["findings"].as_array().into_iter().flatten();
        let found = found.filter(|found| found["experiment"] == one["id"]);
        let bad = found.clone().any(|found| found["severity"] != "info");
        if (one["result"] == "finding") != bad {
            return Err(format!("{} has result {}", one["id"], one["result"]));
        }
        if one["note"].as_str().unwrap_or_default().is_empty() {
            return Err(format!("{} has no note", one["id"]));
        }
    }
    for found in json["findings"].as_array().into_iter().flatten() {
        for name in ["id", "title", "evidence"] {
            if found[name].as_str().unwrap_or_default().is_empty() {
                return Err(format!("{} without {name}", found["id"]));
            }
        }
        if found["severity"] != "info" && found["remedy"].as_str().unwrap_or_default().is_empty() {
            return Err(format!("{} without a remedy", found["id"]));
        }
    }
    Ok(())
}

fn page(report: &Report) -> Result<(), String> {
    let page = report.page();
    let is_bad = |c: &char| c.is_control() && *c != '\n' || *c == '\u{202e}';
    if let Some(c) = page.chars().find(is_bad) {
        return Err(format!("the page contains {c:?}"));
    }
    let findings = report.findings();
    for line in page.lines() {
        // A remedy is to be pasted.
        let mut remedies = findings.iter().flat_map(|(_, found)| found.remedy.lines());
        let is_remedy = line.len() > 10 && remedies.any(|remedy| line[10..] == *remedy);
        if line.chars().count() > COLUMNS && !is_remedy {
            return Err(format!("a line is too long: {line}"));
        }
    }
    Ok(())
}

/// Whether elements are balanced, attributes quoted, and nothing is left unescaped.
fn xml(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest =
        text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").ok_or("no xml")?;
    while let Some(start) = rest.find('<') {
        escaped(&rest[..start])?;
        let length = rest[start..].find('>').ok_or("an element has no end")?;
        let tag = &rest[start + 1..start + length];
        rest = &rest[start + length + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes another element"));
            }
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        for (at, part) in attributes.split('"').enumerate() {
            // In turn a name and a value.
            let valid = if at % 2 == 1 { escaped(part).is_ok() } else { is_name(part) };
            if !valid {
                return Err(format!("attributes {attributes}"));
            }
        }
        if !is_empty {
            open.push(name);
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} are open")) }
}

fn is_name(part: &str) -> bool {
    let name = part.trim_start().strip_suffix('=');
    part.is_empty() || name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_lowercase()))
}

fn escaped(text: &str) -> Result<(), String> {
    if text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{ffff}') {
        return Err(format!("{text:?} has control characters"));
    }
    for (at, _) in text.match_indices('&') {
        if !["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|name| text[at..].starts_with(name)) {
            return Err(format!("{text:?} is not escaped"));
        }
    }
    Ok(())
}

fn exit_codes(report: &Report) -> Result<(), String> {
    let findings = report.findings();
    let reached = !findings
        .iter()
        .any(|(_, found)| ["unreachable", "tls-failed"].contains(&found.id.as_str()));
    let reached = reached && !report.page().contains("upgrade     unknown  interrupted");
    for least in [Severity::Warning, Severity::Error] {
        let bad = findings.iter().any(|(_, found)| found.severity >= least);
        let want = if !reached {
            1
        } else if bad {
            3
        } else if report.json().contains("\"interrupted\":true") {
            4
        } else {
            0
        };
        let code = report.exit_code(least);
        if code != want {
            return Err(format!("exit code {code} instead of {want}"));
        }
    }
    Ok(())
}

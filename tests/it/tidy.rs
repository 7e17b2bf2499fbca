//! The project's rules, checked by reading the source tree: dependencies between folders, lengths,
//! and that each row of a table is documented and tested.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use wspulse::{limits, options, parts, server};

/// Files whose `//!` comment may be longer.
const LONG_HEADS: [&str; 4] =
    ["src/lib.rs", "src/engine.rs", "src/server/conn/mod.rs", "tests/it/scenarios.rs"];

/// Words that code must not contain, by path. `core` is everything but `net`, `run` and `main`.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("all", &["unsafe", "dbg!", "todo!", "unimplemented!"]),
    ("core", &["mio", "std::net", "std::fs", "std::process", "std::thread", "Instant"]),
    ("core", &["SystemTime", "Rc<", "RefCell", "Arc<", "Mutex", "async fn"]),
    ("src/main.rs", &["mio", "std::net", "std::fs", "std::thread", "Instant", "SystemTime"]),
    ("src/run", &["mio", "Rc<", "RefCell", "Arc<", "Mutex", "async fn"]),
    ("src/net", &["http", "websocket", "async fn", "server::", "options::", "run::"]),
    ("src/net", &["load::", "connect::", "healthcheck::", "behaviours::"]),
    ("src/net", &["informer::", "gateway::", "backend::"]),
    ("src/proto", &["Id", "Now", "log::"]),
    ("src/behaviours", &["server", "conn::"]),
];

/// Exceptions: a word that means something else in this file.
const ALLOWED: &[(&str, &str)] = &[
    // The module `rustls::server`.
    ("src/net/tls/certificate.rs", "server::"),
    ("src/net/tls/session.rs", "server::"),
];

struct Source {
    path: String,
    text: String,
    /// The text without comments and string literals.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Files with this ending below a folder, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Build output.
        if path.is_dir() && path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        Source { code: code(&text), text, path }
    };
    files(&root().join(folder), "rs").into_iter().map(source).collect()
}

/// Removes comments and string literals; line numbers stay the same.
fn code(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = left.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let raw = rest.strip_prefix('r').map(|after| after.trim_start_matches('#'));
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if !word && raw.is_some_and(|after| after.starts_with('"')) {
            let hashes = rest.len() - 1 - raw.map_or(0, str::len);
            let open = hashes + 2;
            let close = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
        } else if first == '"' || (first == '\'' && is_char(rest)) {
            quoted(rest)
        } else {
            left.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        left.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    left
}

/// `'a'` or `'\n'`, but not the lifetime `'a`.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

/// The length of a quoted literal, with its quotes.
fn quoted(rest: &str) -> usize {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if Some(c) == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// Whether code contains a word, and not as a part of another one.
fn names(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let goes_on = word.ends_with(part) && code[at + word.len()..].starts_with(part);
        !goes_on && !code[..at].ends_with(part)
    })
}

/// Fails with all violations.
fn judge(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn forbidden_words_do_not_occur() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let path = source.path.as_str();
        let outside = ["src/net/", "src/run/", "src/main.rs"];
        let core = !outside.iter().any(|place| path.starts_with(place));
        for (place, words) in FORBIDDEN {
            if *place != "all" && !(*place == "core" && core) && !path.starts_with(place) {
                continue;
            }
            let text = match *place {
                "src/net" => source.code.to_ascii_lowercase(),
                _ => source.code.clone(),
            };
            let may = |word: &str| ALLOWED.iter().any(|(at, w)| path.starts_with(at) && *w == word);
            let named = words.iter().filter(|word| !may(word) && names(&text, word));
            wrong.extend(named.map(|word| format!("{path} names {word}")));
        }
    }
    judge(&wrong);
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let path = source.path;
        let lines = source.text.lines().count();
        if lines > 700 {
            wrong.push(format!("{path} has {lines} lines"));
        }
        for (at, line) in (1..).zip(source.text.lines()) {
            // Table rows cannot be wrapped.
            if line.chars().count() > 100 && !line.starts_with("//! |") {
                wrong.push(format!("{path}:{at} has more than 100 columns"));
            }
        }
        let long = functions(&source.code).into_iter().filter(|(_, lines)| *lines > 70);
        wrong.extend(long.map(|(name, lines)| format!("{path}: {name} has {lines} lines")));
        let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        let most = if LONG_HEADS.contains(&path.as_str()) { 20 } else { 6 };
        if !(1..=most).contains(&head) {
            wrong.push(format!("{path} opens with {head} lines of //!, not 1 to {most}"));
        }
        let name = path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        if ["utils", "util", "common", "misc", "types", "helpers"].contains(&name) {
            wrong.push(format!("{path}: meaningless file name"));
        }
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
            if source.text.contains(mark) {
                wrong.push(format!("{path}: {mark}"));
            }
        }
    }
    judge(&wrong);
}

/// Functions with their numbers of lines, without empty ones.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let rest = &code[at + 3..];
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name: String = rest.chars().take_while(|c| word(*c)).collect();
        if name.is_empty() || code[..at].ends_with(word) {
            continue;
        }
        let (mut depth, mut end) = (0, 0);
        for (offset, c) in rest.char_indices() {
            depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
            if depth == 0 && (c == '}' || c == ';') {
                end = offset;
                break;
            }
        }
        let lines = rest[..end].lines().filter(|line| !line.trim().is_empty()).count();
        found.push((name, lines));
    }
    found
}

#[test]
fn the_map_names_every_module() {
    let map = read("src/lib.rs");
    let (head, body) = map.split_once("\n\n").unwrap();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        if !["lib", "main"].contains(&name) {
            assert!(head.contains(&format!("[`{name}`]")), "the head of lib.rs lacks {name}");
            assert!(body.contains(&format!("pub mod {name};")), "lib.rs lacks mod {name}");
        }
    }
}

/// The text of all scenarios.
fn tests() -> String {
    let scenarios = files(&root().join("tests/scenarios"), "txt");
    scenarios.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Whether a request path matches a route; a segment in braces matches any.
fn asks_for(path: &str, route: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let segments = |text: &'_ str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (asked, known) = (segments(path), segments(route));
    asked.len() == known.len()
        && asked.iter().zip(&known).all(|(a, b)| a == b || (b.starts_with('{') && !a.is_empty()))
}

#[test]
fn each_route_and_behaviour_is_documented_and_has_a_scenario() {
    let documents = read("docs/USE.md") + &read("docs/REFERENCE.md");
    // Only requests count: a 404 response lists all paths.
    let scenarios = tests();
    let inputs = scenarios.lines().filter(|line| !line.starts_with([' ', '#']));
    let asked: Vec<&str> = inputs.flat_map(str::split_whitespace).collect();
    let mut wrong = Vec::new();
    let catalogue = parts::catalogue();
    let behaviours = catalogue.entries.iter().map(|entry| entry.name);
    let mounts = catalogue.mounts.iter().filter_map(|mount| mount.split('=').next());
    let routes = server::routes().chain(parts::routes()).map(|route| route.path);
    let paths: Vec<&str> = mounts.chain(routes).collect();
    for name in behaviours.chain(paths.iter().copied()) {
        if !documents.contains(&format!("`{name}`")) {
            wrong.push(format!("docs/USE.md and docs/REFERENCE.md lack `{name}`"));
        }
    }
    for path in paths {
        if !asked.iter().any(|word| word.starts_with('/') && asks_for(word, path)) {
            wrong.push(format!("no scenario requests {path}"));
        }
    }
    judge(&wrong);
}

/// Relative links are not broken, and the README is short.
#[test]
fn links_in_documents_are_not_broken() {
    let mut wrong = Vec::new();
    let pages = ["README.md", "SECURITY.md", "CHANGELOG.md", "tests/README.md"];
    let docs = files(&root().join("docs"), "md");
    for path in pages.iter().map(|page| root().join(page)).chain(docs) {
        let text = fs::read_to_string(&path).unwrap();
        let folder = path.parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    let lines = read("README.md").lines().count();
    if lines > 250 {
        wrong.push(format!("README.md has {lines} lines"));
    }
    judge(&wrong);
}

#[test]
fn each_status_and_close_code_has_a_test() {
    let hostile: String =
        sources("tests/it/hostile").into_iter().map(|source| source.text).collect();
    let tried = tests() + &hostile;
    let codes = |path: &str, function: &str, digits: usize| {
        let text = read(path);
        let body =
            text.split_once(function).unwrap().1.split_once("\n    }\n").unwrap().0.to_owned();
        let numbers = body.split("=> ").skip(1).map(|rest| rest[..digits].to_owned());
        numbers.collect::<Vec<String>>()
    };
    let statuses = codes("src/proto/refusal.rs", "fn status(", 3);
    let closes = codes("src/proto/frame.rs", "fn close_code(", 4);
    assert!(statuses.len() >= 10 && closes.len() >= 4, "{statuses:?} {closes:?}");
    let is_tried = |code: &&String| {
        [format!(" {code} "), format!("\"{code}"), format!("close {code}")]
            .iter()
            .any(|form| tried.contains(form))
    };
    let untried = statuses.iter().chain(&closes).filter(|code| !is_tried(code));
    judge(&untried.map(|code| format!("no test for {code}")).collect::<Vec<_>>());
}

/// Only with all features: other builds have fewer rows.
#[test]
fn the_reference_has_the_tables() {
    if !cfg!(all(feature = "gateway", feature = "informer")) {
        return;
    }
    let mut rows = String::from("| limit | value | beyond it |\n|---|---|---|\n");
    for (name, value, over) in limits::table() {
        writeln!(rows, "| {name} | {value} | {over} |").unwrap();
    }
    let mut paths = String::from("| path | on | answer |\n|---|---|---|\n");
    for route in server::routes().chain(parts::routes()) {
        writeln!(paths, "| `{}` | {} | {} |", route.path, route.place(), route.about).unwrap();
    }
    let mut metrics = String::from("| metric | labels | |\n|---|---|---|\n");
    for metric in server::metrics().chain(parts::metrics()) {
        writeln!(metrics, "| `{}` | {} | {} |", metric.name, metric.labels, metric.about).unwrap();
    }
    let tables = [("limits", rows), ("paths", paths), ("metrics", metrics)];
    let reference = read("docs/REFERENCE.md");
    let mut happened = reference.clone();
    for (name, rows) in options::readme_rows().into_iter().chain(tables) {
        let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let (before, rest) = happened.split_once(&open).expect("docs/REFERENCE.md has the marker");
        let (_, after) = rest.split_once(&close).expect("docs/REFERENCE.md has the end marker");
        happened = format!("{before}{open}{rows}{close}{after}");
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join("docs/REFERENCE.md"), happened).unwrap();
    } else {
        assert!(reference == happened, "UPDATE=1 cargo test rewrites docs/REFERENCE.md");
    }
}

//! What is accepted, what it becomes, and the error for what is not.

use super::*;
use crate::behaviours::Mount;
use crate::parts;
use crate::server::config::{DrainReady, Origins};
use core::net::SocketAddr;
use core::slice;
use std::os::unix::ffi::OsStringExt;

fn command(args: &str, env: &[(&str, &str)]) -> Result<Command, Usage> {
    let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let args = args.split_whitespace().map(OsString::from);
    parse(args, env, &Surroundings { host_name: "host-1".to_owned() })
}

fn serve(args: &str, env: &[(&str, &str)]) -> Serve {
    match command(args, env) {
        Ok(Command::Serve(serve)) => *serve,
        other => panic!("{args}: {other:?}"),
    }
}

fn printed(args: &str, env: &[(&str, &str)]) -> String {
    match command(args, env) {
        Ok(Command::Print(text)) => text,
        other => panic!("{args}: {other:?}"),
    }
}

fn error(args: &str, env: &[(&str, &str)]) -> String {
    command(args, env).expect_err(args).to_string()
}

fn at(text: &str) -> Listen {
    Listen::At(text.parse::<SocketAddr>().unwrap())
}

#[test]
fn defaults_are_those_of_the_specification() {
    let serve = serve("", &[]);
    assert_eq!(serve.listen, [Listen::Default { port: 8080 }]);
    assert_eq!(serve.admin, Some(at("127.0.0.1:8081")));
    assert_eq!((serve.reuse_port, serve.assets), (false, None));
    assert_eq!(serve.log, LogStyle { filter: "info".to_owned(), format: LogFormat::Auto });
    let server = serve.server;
    assert_eq!(server.mounts.len(), Mount::defaults(&parts::catalogue()).len());
    assert_eq!((server.origins, server.faults, server.log_payloads), (Origins::Same, false, false));
    assert_eq!((server.base_path.as_str(), server.identity.pod.as_str()), ("", "host-1"));
    let limits = server.limits;
    assert_eq!((limits.max_message, limits.max_connections), (1 << 20, 0));
    assert_eq!(
        (limits.head_timeout_ms, limits.keepalive_timeout_ms, limits.send_timeout_ms),
        (10_000, 75_000, 30_000)
    );
    assert_eq!((limits.ping_interval_ms, limits.pong_timeout_ms), (20_000, 20_000));
    let drain = server.drain;
    assert_eq!((drain.delay_ms, drain.window_ms, drain.timeout_ms), (0, 3_000, 8_000));
    assert_eq!((drain.code, drain.reason.as_str()), (1001, "draining"));
    assert_eq!((drain.ready, drain.leaves_early), (DrainReady::Fail, true));
}

/// Help and reference show the default texts of the table; they must match the actual defaults.
#[test]
fn default_texts_are_what_is_in_effect() {
    let env = Environment::new(Vec::new()).unwrap();
    let draft = read::fill(flags::SERVE, std::collections::BTreeMap::new(), &env, serve::blank());
    let draft = draft.unwrap().draft;
    for flag in table::flags(flags::SERVE) {
        let shown = (flag.show)(&draft);
        match flag.fallback {
            table::Fallback::Is("") => assert_eq!(shown, "\"\"", "{}", flag.name),
            table::Fallback::Is("auto") => assert!(shown.starts_with("auto"), "{}", flag.name),
            table::Fallback::Is("75s") => assert_eq!(shown, "75s"),
            table::Fallback::Is("same") => assert_eq!(shown, "same"),
            table::Fallback::Is(text) => assert_eq!(shown, text, "{}", flag.name),
            table::Fallback::Off
            | table::Fallback::From { .. }
            | table::Fallback::Variable { .. } => {}
        }
    }
    let config = printed("--print-config", &[]);
    for line in ["[::]:8080", "info", "0s", "3s", "8s"] {
        assert!(config.contains(line), "{line}");
    }
}

#[test]
fn flags_take_their_value_either_way() {
    for args in ["--drain-code=1012 --faults", "serve --faults --drain-code 1012"] {
        let serve = serve(args, &[]);
        assert_eq!((serve.server.drain.code, serve.server.faults), (1012, true), "{args}");
    }
}

#[test]
fn flags_override_variables_and_variables_override_defaults() {
    let env = [("WSPULSE_MAX_MESSAGE", "2MiB"), ("WSPULSE_LISTEN", "127.0.0.1:1 :2")];
    let from_env = serve("", &env);
    assert_eq!(from_env.server.limits.max_message, 2 << 20);
    assert_eq!(from_env.listen, [at("127.0.0.1:1"), Listen::Default { port: 2 }]);
    let from_flag = serve("--max-message 3MiB --listen 127.0.0.1:3", &env);
    assert_eq!(from_flag.server.limits.max_message, 3 << 20);
    assert_eq!(from_flag.listen, [at("127.0.0.1:3")]);
    assert_eq!(serve("--drain-code 1000 --drain-code 1012", &[]).server.drain.code, 1012);
}

#[test]
fn port_is_overridden_by_listen() {
    let port = ("PORT", "9000");
    assert_eq!(serve("", &[port]).listen, [Listen::Default { port: 9000 }]);
    assert_eq!(serve("", &[port, ("WSPULSE_LISTEN", ":1")]).listen, [Listen::Default { port: 1 }]);
    assert_eq!(serve("--listen 2", &[port]).listen, [Listen::Default { port: 2 }]);
    assert_eq!(serve("", &[("PORT", ""), ("WSPULSE_LISTEN", " ")]).listen.len(), 1);
    assert_eq!(error("", &[("PORT", "http")]), "PORT \"http\": must have a port from 0 to 65535");
}

#[test]
fn an_address_is_listened_on_once() {
    for twice in ["--listen :80 --listen :80", "--listen unix:/x --listen unix:/x"] {
        let error = error(twice, &[]);
        assert!(error.ends_with("is given twice: leave one out"), "{error}");
    }
    assert_eq!(serve("--listen :0 --listen :0", &[]).listen.len(), 2);
}

#[test]
fn switches_in_the_environment() {
    for (value, on) in [("1", true), ("true", true), ("0", false), ("false", false)] {
        assert_eq!(serve("", &[("WSPULSE_FAULTS", value)]).server.faults, on, "{value}");
    }
    assert_eq!(
        error("", &[("WSPULSE_FAULTS", "yes")]),
        "WSPULSE_FAULTS \"yes\": must be 1, 0, true or false"
    );
    assert_eq!(error("--faults=1", &[]), "--faults takes no value: leave \"1\" out");
}

#[test]
fn addresses() {
    for (text, listen) in [
        ("127.0.0.1:80", at("127.0.0.1:80")),
        ("[::1]:80", at("[::1]:80")),
        ("localhost:80", at("127.0.0.1:80")),
        (":80", Listen::Default { port: 80 }),
        ("0", Listen::Default { port: 0 }),
    ] {
        assert_eq!(serve(&format!("--listen {text}"), &[]).listen, [listen], "{text}");
    }
    assert_eq!(serve("--admin-listen 9", &[]).admin, Some(at("127.0.0.1:9")));
    assert_eq!(serve("--admin-listen off", &[]).admin, None);
    let unix = Listen::Unix("/run/x.sock".into());
    assert_eq!(serve("--listen unix:/run/x.sock", &[]).listen, slice::from_ref(&unix));
    assert_eq!(serve("", &[("WSPULSE_ADMIN_LISTEN", "unix:/run/x.sock")]).admin, Some(unix));
    let no_port = "must be an address and a port, such as 127.0.0.1:8080, [::]:8080 or :8080, or \
                   a Unix socket, such as unix:/run/x.sock";
    let long = format!("unix:{}", "x".repeat(108));
    let bad_port = "must have a port from 0 to 65535";
    let name = "must be an IP address or localhost and a port: other names are not resolved, \
                since they may have several addresses";
    for (text, why) in [
        ("localhost", no_port),
        ("off", no_port),
        ("unix:", "must have a path, such as unix:/run/x.sock"),
        ("unix:@x", "must have a path that does not begin with @"),
        (&long, "must have a path of at most 107 bytes"),
        ("::1", "needs brackets and a port, such as [::1]:8080"),
        ("127.0.0.1", no_port),
        ("127.0.0.1:65536", bad_port),
        (":http", bad_port),
        (":+1", bad_port),
        ("99999", bad_port),
        ("example.com:80", name),
        ("::1:x", bad_port),
        ("[::x]:80", name),
    ] {
        let message = error(&format!("--listen {text}"), &[]);
        assert_eq!(message, format!("--listen {text:?}: {why}"));
    }
}

#[test]
fn origins() {
    let listed = |list: &[&str]| Origins::Listed(list.iter().map(ToString::to_string).collect());
    for (args, origins) in [
        ("--origin any", Origins::Any),
        ("--origin same", Origins::Same),
        (
            "--origin same --origin HTTPS://App.Example:443 --origin http://[::1]:3000 \
             --origin https://app.example",
            listed(&["https://app.example", "http://[::1]:3000"]),
        ),
        ("--origin http://localhost:80", listed(&["http://localhost"])),
        ("--origin chrome-extension://abc", listed(&["chrome-extension://abc"])),
    ] {
        assert_eq!(serve(args, &[]).server.origins, origins, "{args}");
    }
    assert_eq!(
        serve("", &[("WSPULSE_ORIGIN", "https://a.example  https://b.example")]).server.origins,
        listed(&["https://a.example", "https://b.example"])
    );
    assert_eq!(
        error("--origin any --origin https://a.example", &[]),
        "--origin any allows every page: leave the other origins out"
    );
    let want = "must be same, any or scheme://host[:port], such as https://app.example";
    for (text, why) in [
        ("app.example", want),
        ("https://***@c", want),
        ("null", want),
        ("https://", want),
        ("://a.example", want),
        ("https://[::x]", want),
        ("https://bücher.example", want),
        ("https://a.example/", "must end after the host and port: an origin has no path"),
        ("wss://a.example", "must be the page's scheme: http:// or https://, not ws:// or wss://"),
        ("https://a.example:http", "must have a port from 1 to 65535"),
    ] {
        let message = error(&format!("--origin {text}"), &[]);
        assert_eq!(message, format!("--origin {text:?}: {why}"));
    }
}

#[test]
fn base_paths() {
    for (text, path) in [("/x", "/x"), ("/x/", "/x"), ("/a/b.c~1", "/a/b.c~1"), ("/", "")] {
        assert_eq!(serve(&format!("--base-path {text}"), &[]).server.base_path, path);
    }
    assert_eq!(serve("", &[("WSPULSE_BASE_PATH", "")]).server.base_path, "");
    let why = "must begin with / and hold only letters, digits, - . _ ~ and single /";
    for text in ["x", "/a//b", "/a/../b", "/a%20b", "//x", "/ä", "/."] {
        let message = error(&format!("--base-path {text}"), &[]);
        assert_eq!(message, format!("--base-path {text:?}: {why}"));
    }
}

#[test]
fn a_mount_of_a_known_path_replaces_it() {
    let count = Mount::defaults(&parts::catalogue()).len();
    let replaced = serve("--mount /ws=echo?delay=1s", &[]).server.mounts;
    assert_eq!(replaced.len(), count);
    assert_eq!(serve("--mount /new=echo", &[]).server.mounts.len(), count + 1);
    assert_eq!(serve("", &[("WSPULSE_MOUNT", "/a=echo /b=echo")]).server.mounts.len(), count + 2);
    assert!(error("--mount nonsense", &[]).starts_with("--mount \"nonsense\": "));
}

#[test]
fn invalid_values() {
    let time = "must be a time such as 250ms, 10s or 2h";
    let code =
        "must be a close code that a server may send: 1000 to 1003, 1007 to 1014 or 3000 to 4999";
    let count = "must be auto or a number from 1 to 10000000";
    for (flag, value, why) in [
        ("head-timeout", "soon", time),
        ("head-timeout", "10", time),
        ("head-timeout", "0", "must be longer than 0"),
        ("pong-timeout", "0s", "must be longer than 0"),
        ("ping-interval", "25h", "must be at most 24h"),
        ("max-message", "1MB", "must be a size such as 64KiB or 1MiB"),
        ("max-message", "124", "must be from 125B to 1GiB"),
        ("max-message", "2GiB", "must be from 125B to 1GiB"),
        ("max-connections", "0", count),
        ("max-connections", "many", count),
        ("drain-code", "1004", code),
        ("drain-code", "1006", code),
        ("drain-code", "2000", code),
        ("drain-code", "5000", code),
        ("drain-ready", "maybe", "must be fail or keep"),
        ("profile", "docker", "must be auto, kubernetes or plain"),
        ("log-level", "verbose", "must be error, warn, info, debug, trace or off"),
        ("log-format", "xml", "must be auto, text or json"),
    ] {
        let flag_message = error(&format!("--{flag} {value}"), &[]);
        assert_eq!(flag_message, format!("--{flag} {value:?}: {why}"));
        let variable = table::env_name(flag);
        let variable_message = error("", &[(&variable, value)]);
        assert_eq!(variable_message, format!("{variable} {value:?}: {why}"));
    }
    let long = "x".repeat(124);
    let message = error(&format!("--drain-reason {long}"), &[]);
    assert!(message.ends_with("must be at most 123 bytes, and is 124"), "{message}");
    assert_eq!(serve("--drain-reason=", &[]).server.drain.reason, "");
    assert_eq!(error("--assets=", &[]), "--assets \"\": must be a directory");
    assert_eq!(serve("--ping-interval 0", &[]).server.limits.ping_interval_ms, 0);
}

#[test]
fn unknown_flags_commands_and_variables() {
    for (args, env, message) in [
        ("--lisen :1", &[][..], "unknown flag --lisen; did you mean --listen?"),
        ("--turbo", &[], "unknown flag --turbo"),
        ("--hepl", &[], "unknown flag --hepl; did you mean --help?"),
        ("-x", &[], "unknown flag -x"),
        ("sevre", &[], "unknown command sevre; did you mean serve?"),
        ("help sevre", &[], "unknown command sevre; did you mean serve?"),
        ("help serve serve", &[], "unexpected argument \"serve\""),
        ("serve now", &[], "unexpected argument \"now\""),
        ("--faults serve", &[], "unexpected argument \"serve\""),
        ("--listen", &[], "--listen needs a value: --listen ADDR"),
        (
            "",
            &[("WSPULSE_LISTN", "")],
            "unknown variable WSPULSE_LISTN; did you mean WSPULSE_LISTEN?",
        ),
        ("", &[("WSPULSE_TURBO", "1")], "unknown variable WSPULSE_TURBO"),
        ("", &[("WSPULSE_PORT", "8080")], "unknown variable WSPULSE_PORT"),
        ("--\x1b[31m", &[], "unknown flag --\\u{1b}[31m"),
    ] {
        assert_eq!(error(args, env), message, "{args}");
    }
    // Parts add commands.
    let commands = error("gauge", &[]);
    let known = "unknown command gauge; the commands are serve, healthcheck, load, connect, probe";
    assert!(commands.starts_with(known) && commands.ends_with("and help"), "{commands}");
}

#[test]
fn what_kubernetes_injects_is_ignored() {
    let env: Vec<(&str, &str)> = ["WSPULSE", "WSPULSE_ADMIN", "WSPULSE_CANARY_2"]
        .into_iter()
        .flat_map(|service| {
            [
                ("_SERVICE_HOST", "10.0.0.1"),
                ("_SERVICE_PORT", "80"),
                ("_SERVICE_PORT_HTTP", "80"),
                ("_PORT", "tcp://10.0.0.1:80"),
                ("_PORT_80_TCP", "tcp://10.0.0.1:80"),
                ("_PORT_80_TCP_PROTO", "tcp"),
                ("_PORT_80_TCP_PORT", "80"),
                ("_PORT_80_TCP_ADDR", "10.0.0.1"),
                ("_PORT_53_UDP", "udp://10.0.0.1:53"),
            ]
            .map(|(tail, value)| (&*format!("{service}{tail}").leak(), value))
        })
        .collect();
    assert_eq!(serve("", &env).listen, [Listen::Default { port: 8080 }]);
    for name in ["WSPULSE_PORT_X_TCP", "WSPULSE_PORT_80_HTTP", "WSPULSE_SERVICE_NAME"] {
        assert!(error("", &[(name, "1")]).starts_with(&format!("unknown variable {name}")));
    }
}

#[test]
fn values_that_are_not_utf8() {
    let bad = || OsString::from_vec(vec![b'x', 0xff]);
    let with = |args: Vec<OsString>, env: Vec<(OsString, OsString)>| {
        parse(args, env, &Surroundings::default())
    };
    let refused = with(vec!["--assets".into(), bad()], vec![]).unwrap_err().to_string();
    assert_eq!(refused, "--assets: the value is not UTF-8 text");
    let refused = with(vec![], vec![("WSPULSE_ASSETS".into(), bad())]).unwrap_err().to_string();
    assert_eq!(refused, "WSPULSE_ASSETS: the value is not UTF-8 text");
    let name = OsString::from_vec(b"WSPULSE_\xff".to_vec());
    assert!(with(vec![], vec![(name, "1".into())]).is_err());
    let others = vec![("LESSOPEN".into(), bad()), (bad(), "1".into()), ("POD_NAME".into(), bad())];
    assert!(with(vec![], others).is_ok());
}

#[test]
fn the_profile_follows_kubernetes() {
    let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    for (args, env, times) in [
        ("", &kubernetes[..], (Profile::Kubernetes, 5_000, 15_000, 25_000)),
        ("--profile plain", &kubernetes, (Profile::Plain, 0, 3_000, 8_000)),
        ("--profile kubernetes", &[], (Profile::Kubernetes, 5_000, 15_000, 25_000)),
        ("--drain-timeout 60s", &kubernetes, (Profile::Kubernetes, 5_000, 15_000, 60_000)),
        ("--drain-window 1s", &[], (Profile::Plain, 0, 1_000, 8_000)),
    ] {
        let serve = serve(args, env);
        let drain = serve.server.drain;
        let found = (serve.profile, drain.delay_ms, drain.window_ms, drain.timeout_ms);
        assert_eq!(found, times, "{args}");
        assert_eq!(drain.leaves_early, serve.profile == Profile::Plain, "{args}");
    }
    assert_eq!(
        error("--drain-window 20s", &kubernetes),
        "--drain-delay 5s + --drain-window 20s + 5s for close handshakes = 30s, longer than \
         --drain-timeout 25s: raise it or shorten the others"
    );
}

#[test]
fn identity_from_the_environment() {
    let env = [("POD_NAME", "web-1"), ("POD_NAMESPACE", "ns"), ("NODE_NAME", ""), ("ZONE", "a\nb")];
    let who = serve("", &env).server.identity;
    assert_eq!((who.pod.as_str(), who.namespace.as_deref()), ("web-1", Some("ns")));
    assert_eq!((who.node, who.zone.as_deref()), (None, Some("a-b")));
}

#[test]
fn log_level_overrides_rust_log() {
    let env = [("RUST_LOG", "warn,close=info")];
    assert_eq!(serve("", &env).log.filter, "warn,close=info");
    assert_eq!(serve("--log-level debug", &env).log.filter, "debug");
    assert_eq!(serve("", &[("RUST_LOG", "")]).log.filter, "info");
    assert_eq!(serve("--log-format json", &[]).log.format, LogFormat::Json);
}

#[test]
fn help_fits_one_screen() {
    let help = printed("--help", &[("WSPULSE_TURBO", "help works all the same")]);
    let lines: Vec<&str> = help.lines().collect();
    assert!((24..=50).contains(&lines.len()), "{} lines", lines.len());
    for line in &lines {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let words = format!("{} ", help.replace('\n', " \n"));
    let brief = table::groups(flags::SERVE)
        .into_iter()
        .filter(|group| group.brief)
        .flat_map(|group| group.flags);
    for flag in brief {
        assert_eq!(words.matches(&format!("  --{} ", flag.name)).count(), 1, "{}", flag.name);
    }
    let long = table::groups(flags::SERVE)
        .into_iter()
        .filter(|group| !group.brief)
        .flat_map(|group| group.flags);
    for flag in long {
        assert_eq!(help.matches(&format!("  {} ", flag.usage())).count(), 1, "{}", flag.name);
    }
    for flag in table::flags(flags::SERVE) {
        assert!(!flag.help.ends_with('.') && !flag.help.contains('|'), "{}", flag.name);
    }
    for name in VERBS.iter().map(|verb| verb.name) {
        let help = printed(&format!("help {name}"), &[]);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    for args in ["help", "help serve", "serve -h", "help --help", "--help --turbo"] {
        assert_eq!(printed(args, &[]), help, "{args}");
    }
    let version = format!("wspulse {}\n", env!("CARGO_PKG_VERSION"));
    for args in ["-V", "--version", "serve --version"] {
        assert_eq!(printed(args, &[]), version, "{args}");
    }
}

#[test]
fn print_config_shows_sources() {
    let env = [("WSPULSE_MAX_MESSAGE", "2MiB"), ("PORT", "9000"), ("RUST_LOG", "debug")];
    let text = printed("--print-config --check --drain-code 1012 --faults", &env);
    let row = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).expect(name);
        line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>()
    };
    for expected in [
        ["listen", "[::]:9000", "environment PORT"],
        ["max-message", "2MiB", "environment WSPULSE_MAX_MESSAGE"],
        ["max-connections", "auto", "default"],
        ["drain-code", "1012", "flag"],
        ["faults", "on", "flag"],
        ["reuse-port", "off", "default"],
        ["profile", "auto (plain)", "default"],
        ["drain-window", "3s", "derived from --profile"],
        ["base-path", "\"\"", "default"],
        ["log-level", "debug", "environment RUST_LOG"],
    ] {
        assert_eq!(row(expected[0]), expected);
    }
    for expected in [
        ["request head", "8KiB", "431"],
        ["close handshake", "10s", "close"],
        ["memory, of its limit", "92 %", "close the largest, 1013"],
    ] {
        let [name, value, over] = expected;
        let is_row = |l: &str| l.starts_with(name) && l.contains(value) && l.ends_with(over);
        assert!(text.lines().any(is_row), "{expected:?}");
    }
}

#[test]
fn check_from_flag_and_variable() {
    assert!(matches!(command("--check", &[]), Ok(Command::Check(_))));
    assert!(matches!(command("", &[("WSPULSE_CHECK", "1")]), Ok(Command::Check(_))));
    assert!(matches!(command("", &[("WSPULSE_CHECK", "0")]), Ok(Command::Serve(_))));
    assert!(command("--check --drain-code 1", &[]).is_err());
}

#[test]
fn rows_of_the_reference() {
    let (_, rows) = readme_rows().remove(0);
    assert_eq!(rows.lines().count(), 2 + table::names(flags::SERVE).len());
    let row = "| `--admin-listen ADDR\\|off` | `WSPULSE_ADMIN_LISTEN` | `127.0.0.1:8081` | \
               health, metrics and drain; keep it private |";
    assert!(rows.lines().any(|line| line == row), "{rows}");
    assert!(rows.lines().all(|line| line.replace("\\|", "").matches('|').count() == 5));
}

#[cfg(feature = "tools")]
#[test]
fn secrets_are_not_repeated() {
    const FORM: &str = "WSPULSE_HEADER \"***\": must be NAME: VALUE";
    assert_eq!(error("connect ws://x", &[("WSPULSE_HEADER", "Bearer hush")]), FORM);
    let url = error("connect ftp://x/?access_token=hush&a=b", &[]);
    assert!(url.contains("access_token=***&a=b") && !url.contains("hush"), "{url}");
    let two = [("WSPULSE_HEADER", "Authorization: Bearer hush\nX-Second: b c\n")];
    let Ok(Command::Connect(plan)) = command("connect ws://x/?token=hush", &two) else {
        panic!("a header in a variable")
    };
    let fields = &plan.plan.ask.fields;
    let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, v)| &**v);
    assert_eq!(value("Authorization"), Some("Bearer hush"));
    assert_eq!(value("X-Second"), Some("b c"));
    assert_eq!(plan.plan.url, "ws://x/?token=***");
}
